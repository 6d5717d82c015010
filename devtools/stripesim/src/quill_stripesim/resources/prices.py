"""Prices: per unit or tiered, recurring or once, licensed or metered."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

from stripe.params import PriceCreateParams, PriceListParams, PriceRetrieveParams, PriceSearchParams, PriceUpdateParams

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.invoice_lines import decimal_text
from quill_stripesim.listing import newest_first, page, search
from quill_stripesim.resources.customers import merged_metadata
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

MAX_LOOKUP_KEY_LENGTH = 200

_CREATE = honours(
    "active",
    "billing_scheme",
    "currency",
    "lookup_key",
    "metadata",
    "nickname",
    "product",
    "recurring",
    "tax_behavior",
    "tiers",
    "tiers_mode",
    "transfer_lookup_key",
    "transform_quantity",
    "unit_amount",
    "unit_amount_decimal",
)
_UPDATE = honours("active", "lookup_key", "metadata", "nickname", "transfer_lookup_key")


def create(call: Call) -> Resource:
    """Creates a price; what it costs can never change afterwards."""
    world, params = call.world, call.params
    if "product" not in params:
        raise StripeError("Missing required param: product.", code="parameter_missing", param="product")
    world.require("product", params["product"], param="product")
    scheme = params.get("billing_scheme", "per_unit")
    recurring = _recurring(world, params.get("recurring"))
    unit_amount, unit_amount_decimal = _amount(params, "unit_amount")
    tiers = _tiers(params, scheme)
    if scheme == "per_unit" and unit_amount_decimal is None:
        raise StripeError("Missing required param: unit_amount.", code="parameter_missing", param="unit_amount")
    _take_lookup_key(world, params)
    price = world.put(
        {
            "id": world.new_id("price"),
            "object": "price",
            "active": params.get("active", True),
            "billing_scheme": scheme,
            "created": call.now,
            "currency": params["currency"],
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": params.get("lookup_key"),
            "metadata": params.get("metadata", {}),
            "nickname": params.get("nickname"),
            "product": params["product"],
            "recurring": recurring,
            "tax_behavior": params.get("tax_behavior", "unspecified"),
            "tiers": tiers,
            "tiers_mode": params.get("tiers_mode") if scheme == "tiered" else None,
            "transform_quantity": params.get("transform_quantity"),
            "type": "one_time" if recurring is None else "recurring",
            "unit_amount": unit_amount,
            "unit_amount_decimal": unit_amount_decimal,
        }
    )
    announce(world, "price.created", price, at=call.now)
    return price


def update(call: Call) -> Resource:
    """Changes what a price is called, not what it costs."""
    before = call.world.require("price", call.ids["id"])
    _take_lookup_key(call.world, call.params, but_not_from=before["id"])
    own = ("active", "lookup_key", "nickname")
    changed: Resource = {name: call.params[name] for name in own if name in call.params}
    metadata = merged_metadata(before["metadata"], call.params.get("metadata", {}))
    after = call.world.put({**call.world.require("price", before["id"]), **changed, "metadata": metadata})
    previous = {name: before[name] for name in call.params if before.get(name) != after.get(name)}
    announce(call.world, "price.updated", after, at=call.now, previous=previous)
    return after


def retrieve(call: Call) -> Resource:
    """Returns a price; its tiers only when expanded."""
    return call.world.require("price", call.ids["id"])


def list_(call: Call) -> Resource:
    """Lists prices, newest first."""
    return page(
        [each for each in newest_first(call.world.all("price")) if _fits(each, call.params)], call.params, url=call.path
    )


def search_(call: Call) -> Resource:
    """Searches prices by metadata, product or lookup key."""
    return search(call.world.all("price"), call.params, url=call.path)


def _fits(price: Resource, params: dict[str, Any]) -> bool:
    return (
        params.get("product", price["product"]) == price["product"]
        and params.get("active", price["active"]) == price["active"]
        and params.get("currency", price["currency"]) == price["currency"]
        and params.get("type", price["type"]) == price["type"]
        and price["lookup_key"] in params.get("lookup_keys", [price["lookup_key"]])
        and (
            params.get("recurring", {}).get("meter") is None
            or (price["recurring"] or {}).get("meter") == params["recurring"]["meter"]
        )
    )


def _recurring(world: World, given: dict[str, Any] | None) -> Resource | None:
    if given is None:
        return None
    if "trial_period_days" in given:
        raise StripeError("quill-stripesim does not simulate trials.", code="not_simulated", param="recurring")
    usage_type = given.get("usage_type", "licensed")
    meter = given.get("meter")
    if (usage_type == "metered") != (meter is not None):
        raise StripeError("A metered price must reference a meter, and only a metered one.", param="recurring[meter]")
    if meter is not None and world.require("billing.meter", meter, param="recurring[meter]")["status"] != "active":
        raise StripeError("The meter is not active.", param="recurring[meter]")
    if given.get("interval_count", 1) < 1:
        raise StripeError("Invalid interval_count: must be at least 1", param="recurring[interval_count]")
    return {
        "interval": given["interval"],
        "interval_count": given.get("interval_count", 1),
        "meter": meter,
        "trial_period_days": None,
        "usage_type": usage_type,
    }


def _amount(given: dict[str, Any], name: str) -> tuple[int | None, str | None]:
    """Returns an amount as Stripe shows it twice: as an integer when it is one, and as an exact decimal."""
    if name in given and f"{name}_decimal" in given:
        raise StripeError(f"You may only specify one of {name} and {name}_decimal.", param=name)
    value = given.get(name, given.get(f"{name}_decimal"))
    if value is None:
        return None, None
    exact = Decimal(value)
    return (int(exact) if exact == exact.to_integral_value() else None), decimal_text(exact)


def _tiers(params: dict[str, Any], scheme: str) -> list[Resource] | None:
    if scheme == "per_unit":
        if "tiers" in params or "tiers_mode" in params:
            raise StripeError("Tiers belong to billing_scheme=tiered.", param="tiers")
        return None
    for name in ("tiers", "tiers_mode"):
        if name not in params:
            raise StripeError(f"Missing required param: {name}.", code="parameter_missing", param=name)
    for name in ("unit_amount", "unit_amount_decimal", "transform_quantity"):
        if name in params:
            raise StripeError(f"You may not use {name} with tiers.", param=name)
    tiers = [_tier(given, number) for number, given in enumerate(params["tiers"])]
    bounds = [tier["up_to"] for tier in tiers]
    rising = all(low is not None and (high is None or low < high) for low, high in pairwise(bounds))
    if not bounds or bounds[-1] is not None or not rising:
        raise StripeError("Tiers must rise and end with up_to=inf.", param="tiers")
    return tiers


def _tier(given: dict[str, Any], number: int) -> Resource:
    unit_amount, unit_amount_decimal = _amount(given, "unit_amount")
    flat_amount, flat_amount_decimal = _amount(given, "flat_amount")
    if unit_amount_decimal is None and flat_amount_decimal is None:
        raise StripeError("A tier needs a unit_amount or a flat_amount.", param=f"tiers[{number}]")
    if flat_amount_decimal is not None and flat_amount is None:
        raise StripeError(
            "flat_amount_decimal must represent an integer.", param=f"tiers[{number}][flat_amount_decimal]"
        )
    return {
        "flat_amount": flat_amount,
        "flat_amount_decimal": flat_amount_decimal,
        "unit_amount": unit_amount,
        "unit_amount_decimal": unit_amount_decimal,
        "up_to": None if given["up_to"] == "inf" else given["up_to"],
    }


def _take_lookup_key(world: World, params: dict[str, Any], *, but_not_from: str | None = None) -> None:
    key = params.get("lookup_key")
    if key is None:
        return
    if len(key) > MAX_LOOKUP_KEY_LENGTH:
        raise StripeError(f"lookup_key can be at most {MAX_LOOKUP_KEY_LENGTH} characters.", param="lookup_key")
    for holder in world.where("price", "lookup_key", key):
        if holder["id"] == but_not_from:
            continue
        if not params.get("transfer_lookup_key", False):
            raise StripeError(f"A price ({holder['id']}) already uses that lookup key.", param="lookup_key")
        world.put({**holder, "lookup_key": None})


ROUTES = [
    Route("POST", "/v1/prices", create, PriceCreateParams, _CREATE),
    Route(
        "GET",
        "/v1/prices",
        list_,
        PriceListParams,
        LISTING | honours("product", "active", "currency", "type", "lookup_keys", "recurring"),
    ),
    Route("GET", "/v1/prices/search", search_, PriceSearchParams, honours("query", "limit", "page")),
    Route("GET", "/v1/prices/{id}", retrieve, PriceRetrieveParams),
    Route("POST", "/v1/prices/{id}", update, PriceUpdateParams, _UPDATE),
]
