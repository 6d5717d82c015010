"""Products, meters and prices at Stripe, made when a subscription first needs them."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from quill_pricing.currency import minor_unit_places
from quill_pricing.period import Interval
from stripe import InvalidRequestError, StripeClient

from quill_invoicing.domain.collection import RailItem

PREFIX = "quill_"
PAGE = 100
PAGES_MAX = 20
HTTP_NOT_FOUND = 404


class UnpricedAtStripe(ValueError):
    """The price cannot be expressed as a metered Stripe price."""


class StripeCatalog:
    """Finds or makes catalog objects; remembers what it found, since prices and meters never change."""

    def __init__(self, client: StripeClient) -> None:
        self._client = client
        self._prices: dict[str, str] = {}
        self._meters: dict[str, str] = {}
        self._making = asyncio.Lock()

    async def price(self, item: RailItem, interval: Interval) -> str:
        """The id of the metered price of an item, with its product and its meter (formula ``last``, L12).

        Raises:
            UnpricedAtStripe: its model is not one that Stripe meters.
        """
        key = lookup_key(item, interval)
        if key not in self._prices:
            async with self._making:
                if key not in self._prices:
                    self._prices[key] = await self._find_or_make_price(item, interval, key)
        return self._prices[key]

    async def meter(self, product_key: str) -> str | None:
        """The id of a product's active meter; None when there is none."""
        name = event_name(product_key)
        if name not in self._meters:
            params: Any = {"status": "active", "limit": PAGE}
            for _ in range(PAGES_MAX):
                page = await self._client.v1.billing.meters.list_async(params=params)
                self._meters.update({meter.event_name: meter.id for meter in page.data})
                if not page.has_more:
                    break
                params = {**params, "starting_after": page.data[-1].id}
        return self._meters.get(name)

    async def _find_or_make_price(self, item: RailItem, interval: Interval, key: str) -> str:
        found = await self._client.v1.prices.list_async(params={"lookup_keys": [key], "active": True, "limit": 1})
        if found.data:
            return found.data[0].id
        product = await self._product(item.product_key)
        meter = await self.meter(item.product_key) or await self._make_meter(item.product_key)
        params: Any = {
            **amounts(item.price_document),
            "currency": item.price_document.get("currency", "usd"),
            "product": product,
            "lookup_key": key,
            "metadata": {"quill_price_id": item.price_id, "quill_product_key": item.product_key},
            "recurring": {
                "interval": interval.unit,
                "interval_count": interval.count,
                "usage_type": "metered",
                "meter": meter,
            },
        }
        made = await self._client.v1.prices.create_async(
            params=params,
            options={"idempotency_key": f"price:{key}"},
        )
        return made.id

    async def _product(self, product_key: str) -> str:
        identifier = PREFIX + product_key
        try:
            return (await self._client.v1.products.retrieve_async(identifier)).id
        except InvalidRequestError as error:
            if error.http_status != HTTP_NOT_FOUND:
                raise
        made = await self._client.v1.products.create_async(
            params={
                "id": identifier,
                "name": product_key.replace("_", " ").capitalize(),
                "metadata": {"quill_product_key": product_key, "posthog_type": product_key},
            },
            options={"idempotency_key": f"product:{identifier}"},
        )
        return made.id

    async def _make_meter(self, product_key: str) -> str:
        name = event_name(product_key)
        made = await self._client.v1.billing.meters.create_async(
            params={
                "display_name": product_key.replace("_", " ").capitalize(),
                "event_name": name,
                "default_aggregation": {"formula": "last"},
            },
            options={"idempotency_key": f"meter:{name}"},
        )
        self._meters[name] = made.id
        return made.id


def event_name(product_key: str) -> str:
    """The name of a product's meter events."""
    return PREFIX + product_key


def product_key_of(product: str | None) -> str | None:
    """The product key behind a Stripe product id; None for a product that is not ours."""
    return product.removeprefix(PREFIX) if product is not None and product.startswith(PREFIX) else None


def lookup_key(item: RailItem, interval: Interval) -> str:
    """A name for exactly this price: a changed amount is another price, as Stripe's own never change."""
    content = json.dumps([item.price_document, item.product_key, str(interval)], sort_keys=True)
    return f"quill:{item.price_id[:100]}:{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def amounts(document: Mapping[str, Any]) -> dict[str, Any]:
    """The amount fields of a Stripe price. Stripe counts in minor units; strings keep every decimal place.

    Raises:
        UnpricedAtStripe: a flat price has nothing to meter.
    """
    places = minor_unit_places(document.get("currency", "usd"))
    match document["model"]:
        case "graduated" | "volume" as mode:
            return {
                "billing_scheme": "tiered",
                "tiers_mode": mode,
                "tiers": [_tier(tier, places) for tier in document["tiers"]],
            }
        case "per_unit":
            return {
                "billing_scheme": "per_unit",
                "unit_amount_decimal": in_minor_units(document["unit_amount"], places),
            }
        case "package":
            return {
                "billing_scheme": "per_unit",
                "unit_amount_decimal": in_minor_units(document["package_amount"], places),
                "transform_quantity": {"divide_by": document["package_size"], "round": "up"},
            }
        case other:
            raise UnpricedAtStripe(f"a {other} price cannot be metered")


def in_minor_units(amount: str, places: int) -> str:
    """``"0.00005"`` dollars are ``"0.005"`` cents; written plainly, since Stripe may not read ``5E-3``."""
    return format(Decimal(amount).scaleb(places), "f")


def _tier(tier: Mapping[str, Any], places: int) -> dict[str, Any]:
    """A tier has a unit amount, a flat amount or both; Stripe takes each of the three forms."""
    fields: dict[str, Any] = {"up_to": "inf" if tier.get("up_to") is None else tier["up_to"]}
    for name in ("unit_amount", "flat_amount"):
        if tier.get(name) is not None:
            fields[f"{name}_decimal"] = in_minor_units(tier[name], places)
    return fields
