"""Products, meters and prices at Stripe, made when a subscription first needs them; archived ones are left alone."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from quill_pricing.currency import minor_unit_places
from quill_pricing.period import Interval
from stripe import InvalidRequestError, StripeClient

from quill_invoicing.domain.collection import Attempt, RailItem
from quill_invoicing.domain.operator_alert import RailNotice
from quill_invoicing.gateways.stripe_writes import asked, write
from quill_invoicing.ports import RailRefused

PREFIX = "quill_"
PAGE = 100
PAGES_MAX = 20
HTTP_NOT_FOUND = 404
EVENT_NAME_LENGTH_MAX = 100
METADATA_LENGTH_MAX = 500
DIGEST_LENGTH = 16


class UnpricedAtStripe(ValueError):
    """The price cannot be expressed as a metered Stripe price."""


@dataclass(frozen=True, slots=True)
class CatalogPrice:
    """A price at Stripe.

    Attributes:
        reference: Its id; None when there is none.
        notice: Why it cannot be sold to anybody who does not have it yet; None when it can.
    """

    reference: str | None
    notice: RailNotice | None = None


class StripeCatalog:
    """Finds or makes catalog objects; remembers prices that can be sold, until `forget`.

    What a person archived stays archived. Who has such a price keeps it; for the others there is none, and nothing is
    made in its place: a second product of one type never exists.
    """

    def __init__(self, client: StripeClient) -> None:
        self._client = client
        self._prices: dict[str, str] = {}
        self._meters: dict[str, str] = {}
        self._making = asyncio.Lock()

    def forget(self) -> None:
        """Look everything up again: a person changed something at Stripe."""
        self._prices.clear()
        self._meters.clear()

    async def price(self, item: RailItem, interval: Interval, attempt: Attempt) -> CatalogPrice:
        """The metered price of an item, with its product and its meter (formula ``last``, L12)."""
        key = lookup_key(item, interval)
        if key in self._prices:
            return CatalogPrice(self._prices[key])
        async with self._making:
            if key in self._prices:
                return CatalogPrice(self._prices[key])
            try:
                found = await asked(self._find_or_make_price(item, interval, attempt.of(f"price:{key}")))
            except (UnpricedAtStripe, RailRefused) as error:
                return CatalogPrice(None, RailNotice("price_refused", item.price_id, str(error)))
            if found.reference is not None and found.notice is None:
                self._prices[key] = found.reference
            return found

    async def meter(self, product_key: str) -> str | None:
        """The id of a product's active meter; None when there is none."""
        name = event_name(product_key)
        if name not in self._meters:
            self._meters.update({each.event_name: each.id for each in await self._meters_that_are("active")})
        return self._meters.get(name)

    async def _find_or_make_price(self, item: RailItem, interval: Interval, attempt: Attempt) -> CatalogPrice:
        key = lookup_key(item, interval)
        priced = amounts(item.price_document)
        found = await self._price_at(key)
        product = await self._product(item.product_key, attempt)
        meter = await self._meter_or_new(item.product_key, attempt)
        reference = None if found is None else found.id
        for is_archived, kind, subject in (
            (found is not None and not found.active, "price_archived", reference or key),
            (not product.active, "product_archived", product.id),
            (
                meter is None or (found is not None and found.recurring.meter != meter),
                "meter_archived",
                event_name(item.product_key),
            ),
        ):
            if is_archived:
                return CatalogPrice(reference, _archived(kind, subject, item))
        if found is not None:
            return CatalogPrice(found.id)
        params: Any = {
            **priced,
            "currency": item.price_document.get("currency", "usd"),
            "product": product.id,
            "lookup_key": key,
            "metadata": {
                "quill_price_id": item.price_id[:METADATA_LENGTH_MAX],
                "quill_product_key": item.product_key,
            },
            "recurring": {
                "interval": interval.unit,
                "interval_count": interval.count,
                "usage_type": "metered",
                "meter": meter,
            },
        }
        made = await write(
            attempt,
            send=lambda options: self._client.v1.prices.create_async(params=params, options=options),
            find=lambda: self._price_at(key),
        )
        return CatalogPrice(made.id)

    async def _price_at(self, key: str) -> Any:
        """The price with a lookup key, archived or not; listing is up to date at once."""
        for is_active in (True, False):
            page = await self._client.v1.prices.list_async(
                params={"lookup_keys": [key], "active": is_active, "limit": 1}
            )
            if page.data:
                return page.data[0]
        return None

    async def _product(self, product_key: str, attempt: Attempt) -> Any:
        identifier = PREFIX + product_key
        found = await self._product_at(identifier)
        if found is not None:
            return found
        params: Any = {
            "id": identifier,
            "name": product_key.replace("_", " ").capitalize(),
            "metadata": {"quill_product_key": product_key, "posthog_type": product_key},
        }
        return await write(
            attempt.of(f"product:{identifier}"),
            send=lambda options: self._client.v1.products.create_async(params=params, options=options),
            find=lambda: self._product_at(identifier),
        )

    async def _product_at(self, identifier: str) -> Any:
        try:
            return await self._client.v1.products.retrieve_async(identifier)
        except InvalidRequestError as error:
            if error.http_status != HTTP_NOT_FOUND:
                raise
        return None

    async def _meter_or_new(self, product_key: str, attempt: Attempt) -> str | None:
        """The active meter, made when there never was one; None when a person deactivated it."""
        known = await self.meter(product_key)
        name = event_name(product_key)
        if known is not None:
            return known
        if any(each.event_name == name for each in await self._meters_that_are("inactive")):
            return None
        params: Any = {
            "display_name": product_key.replace("_", " ").capitalize(),
            "event_name": name,
            "default_aggregation": {"formula": "last"},
        }

        async def found_meter() -> Any:
            return next((each for each in await self._meters_that_are("active") if each.event_name == name), None)

        made: Any = await write(
            attempt.of(f"meter:{name}"),
            send=lambda options: self._client.v1.billing.meters.create_async(params=params, options=options),
            find=found_meter,
        )
        self._meters[name] = made.id
        return str(made.id)

    async def _meters_that_are(self, status: str) -> list[Any]:
        found: list[Any] = []
        params: Any = {"status": status, "limit": PAGE}
        for _ in range(PAGES_MAX):
            page = await self._client.v1.billing.meters.list_async(params=params)
            found += page.data
            if not page.has_more:
                break
            params = {**params, "starting_after": page.data[-1].id}
        return found


def _archived(kind: str, subject: str, item: RailItem) -> RailNotice:
    what = kind.removesuffix("_archived")
    return RailNotice(
        kind,  # type: ignore[arg-type]
        subject,
        f"the {what} of {item.product_key} ({item.price_id}) is archived at Stripe: customers who have it keep it, "
        "others are charged by own lines. Unarchive it, or sell another price",
    )


def event_name(product_key: str) -> str:
    """The name of a product's meter events; one too long for Stripe ends in its digest."""
    name = PREFIX + product_key
    if len(name) <= EVENT_NAME_LENGTH_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{name[: EVENT_NAME_LENGTH_MAX - DIGEST_LENGTH - 1]}_{digest}"


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
