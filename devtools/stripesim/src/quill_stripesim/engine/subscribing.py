"""Subscription items and their periods: adding, changing and removing them, and what that bills."""

from typing import Any

from quill_stripesim.engine.metering import billed_quantity
from quill_stripesim.engine.passage import current_period
from quill_stripesim.rating import rate, share
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

MAX_ITEMS = 20
_ITEM_PARAMS = frozenset({"price", "quantity", "metadata"})


def add_item(
    world: World,
    subscription: Resource,
    given: dict[str, Any],
    *,
    period: tuple[int, int],
    usage_from: int,
    at: int,
    param: str,
) -> Resource:
    """Adds an item to a subscription.

    Args:
        world: Where the item is stored.
        subscription: What it is added to.
        given: `price`, `quantity` (licensed only) and `metadata`.
        period: The subscription's current period.
        usage_from: Unix seconds from which a metered item's usage is billed.
        at: Simulated unix seconds of the addition.
        param: Name of the parameter that holds `given`, for refusals.

    Raises:
        StripeError: 400 for an unknown or one-time price, a quantity on a metered price, a second item with the same
            price, another interval or currency than the rest, or more than 20 items.
    """
    for name in given:
        if name not in _ITEM_PARAMS:
            raise StripeError(f"quill-stripesim does not simulate {param}[{name}].", code="not_simulated", param=param)
    if "price" not in given:
        raise StripeError(f"Missing required param: {param}[price].", code="parameter_missing", param=f"{param}[price]")
    price = world.require("price", given["price"], param=f"{param}[price]")
    siblings = world.where("subscription_item", "subscription", subscription["id"])
    _refuse_misfit(world, price, siblings, subscription=subscription, param=param)
    is_metered = price["recurring"]["usage_type"] == "metered"
    if is_metered and "quantity" in given:
        raise StripeError("You cannot set the quantity of a metered price.", param=f"{param}[quantity]")
    if len(siblings) >= MAX_ITEMS:
        raise StripeError(f"A subscription can have at most {MAX_ITEMS} items.", param=param)
    return world.put(
        {
            "id": world.new_id("si"),
            "object": "subscription_item",
            "billed_until": None,
            "billing_thresholds": None,
            "created": at,
            "current_period_end": period[1],
            "current_period_start": period[0],
            "current_trial": None,
            "discounts": [],
            "metadata": given.get("metadata") or {},
            "subscription": subscription["id"],
            "tax_rates": [],
            **({} if is_metered else {"quantity": given.get("quantity", 1)}),
            "_is_metered": is_metered,
            "_price": price["id"],
            "_usage_from": usage_from,
        }
    )


def bill_removal(world: World, subscription: Resource, item: Resource, *, at: int, clear_usage: bool) -> None:
    """Leaves behind what a removed item still owes (flexible billing mode) or is owed, as pending invoice items."""
    start, end = current_period(world, subscription)
    if not item["_is_metered"]:
        credit_unused(world, subscription, item, at=at)
        return
    if clear_usage or subscription["billing_mode"]["type"] != "flexible":
        return
    price = world.require("price", item["_price"])
    meter = world.require("billing.meter", price["recurring"]["meter"])
    since = max(start, item["_usage_from"])
    quantity = billed_quantity(world, meter, subscription["customer"], start=since, end=min(at, end))
    for part in rate(price, quantity):
        if part.amount:
            pending_item(
                world,
                subscription,
                amount=part.amount,
                description=f"Usage until the removal of {price['id']} (tier {part.tier})",
                period=(since, at),
                price=price,
                at=at,
            )


def credit_unused(world: World, subscription: Resource, item: Resource, *, at: int) -> None:
    """Credits what is left of a licensed item's period."""
    _prorate(world, subscription, item, at=at, sign=-1)


def charge_rest(world: World, subscription: Resource, item: Resource, *, at: int) -> None:
    """Charges what is left of a licensed item's period."""
    _prorate(world, subscription, item, at=at, sign=1)


def pending_item(
    world: World,
    subscription: Resource,
    *,
    amount: int,
    description: str,
    period: tuple[int, int],
    price: Resource,
    at: int,
) -> Resource:
    """Puts a proration on the subscription's next invoice."""
    customer = world.require("customer", subscription["customer"])
    return world.put(
        {
            "id": world.new_id("ii"),
            "object": "invoiceitem",
            "amount": amount,
            "currency": subscription["currency"],
            "customer": customer["id"],
            "customer_account": None,
            "date": at,
            "description": description,
            "discountable": False,
            "discounts": [],
            "invoice": None,
            "livemode": False,
            "metadata": {},
            "net_amount": amount,
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": subscription["id"], "subscription_item": None},
            },
            "period": {"start": period[0], "end": period[1]},
            "pricing": {
                "type": "price_details",
                "price_details": {"price": price["id"], "product": price["product"]},
                "unit_amount_decimal": str(amount),
            },
            "proration": True,
            "proration_details": {"credited_items": None, "discount_amounts": []},
            "quantity": 1,
            "quantity_decimal": "1",
            "tax_rates": [],
            "test_clock": customer["test_clock"],
        }
    )


def _prorate(world: World, subscription: Resource, item: Resource, *, at: int, sign: int) -> None:
    start, end = current_period(world, subscription)
    if not start <= at < end:
        return
    price = world.require("price", item["_price"])
    whole = sum(part.amount for part in rate(price, item["quantity"]))
    amount = sign * share(whole, numerator=end - at, denominator=end - start)
    if amount:
        word = "Unused" if sign < 0 else "Remaining"
        pending_item(
            world,
            subscription,
            amount=amount,
            description=f"{word} time on {item['quantity']} x {price['id']}",
            period=(at, end),
            price=price,
            at=at,
        )


def _refuse_misfit(
    world: World, price: Resource, siblings: list[Resource], *, subscription: Resource, param: str
) -> None:
    if price["recurring"] is None:
        raise StripeError("A subscription takes only recurring prices.", param=f"{param}[price]")
    if not price["active"]:
        raise StripeError(f"The price {price['id']} is inactive.", param=f"{param}[price]")
    if not world.require("product", price["product"])["active"]:
        raise StripeError(f"The product {price['product']} is inactive.", param=f"{param}[price]")
    meter = price["recurring"]["meter"]
    if meter is not None and world.require("billing.meter", meter)["status"] != "active":
        raise StripeError(f"The meter {meter} is inactive.", param=f"{param}[price]")
    if price["currency"] != subscription["currency"]:
        raise StripeError("All prices of a subscription must have one currency.", param=f"{param}[price]")
    rhythm = (price["recurring"]["interval"], price["recurring"]["interval_count"])
    for sibling in siblings:
        other = world.require("price", sibling["_price"])
        if other["id"] == price["id"]:
            raise StripeError(
                f"The subscription already has an item with price {price['id']}.", param=f"{param}[price]"
            )
        if (other["recurring"]["interval"], other["recurring"]["interval_count"]) != rhythm:
            raise StripeError(
                "quill-stripesim does not simulate items of different intervals on one subscription.",
                code="not_simulated",
                param=f"{param}[price]",
            )
