"""Subscription items: one price and its quantity inside a subscription."""

from typing import Any

from stripe.params import (
    SubscriptionItemCreateParams,
    SubscriptionItemDeleteParams,
    SubscriptionItemListParams,
    SubscriptionItemRetrieveParams,
    SubscriptionItemUpdateParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.engine.passage import current_period
from quill_stripesim.engine.subscribing import add_item, bill_removal, charge_rest, credit_unused
from quill_stripesim.listing import page
from quill_stripesim.resources.customers import merged_metadata
from quill_stripesim.stripe_error import StripeError, not_simulated
from quill_stripesim.world import Resource, World

_FIELDS = honours("price", "quantity", "metadata", "proration_behavior", "payment_behavior")


def create(call: Call) -> Resource:
    """Adds an item to a subscription; a metered one bills only usage after the addition."""
    subscription = call.world.require("subscription", call.params["subscription"], param="subscription")
    given: Resource = {name: call.params[name] for name in ("price", "quantity", "metadata") if name in call.params}
    return _change(call, subscription, None, given)


def update(call: Call) -> Resource:
    """Changes an item's quantity, price or metadata."""
    item = call.world.require("subscription_item", call.ids["id"])
    subscription = call.world.require("subscription", item["subscription"])
    given: Resource = {name: call.params[name] for name in ("price", "quantity", "metadata") if name in call.params}
    return _change(call, subscription, item, given)


def retrieve(call: Call) -> Resource:
    """Returns an item."""
    return call.world.require("subscription_item", call.ids["id"])


def delete(call: Call) -> Resource:
    """Removes an item; a subscription keeps at least one."""
    world = call.world
    item = world.require("subscription_item", call.ids["id"])
    subscription = world.require("subscription", item["subscription"])
    if len(world.where("subscription_item", "subscription", subscription["id"])) == 1:
        raise StripeError("A subscription must have at least one active item: cancel the subscription instead.")
    at = _instant(call, subscription)
    if _prorates(call):
        bill_removal(world, subscription, item, at=at, clear_usage=call.params.get("clear_usage", False))
    world.remove("subscription_item", item["id"])
    announce(world, "customer.subscription.updated", subscription, at=at, previous={})
    return {"id": item["id"], "object": "subscription_item", "deleted": True}


def list_(call: Call) -> Resource:
    """Lists a subscription's items."""
    subscription = call.world.require("subscription", call.params["subscription"], param="subscription")
    items = call.world.where("subscription_item", "subscription", subscription["id"])
    return page(items, call.params, url=call.path)


def change_item(
    world: World,
    subscription: Resource,
    item: Resource | None,
    given: dict[str, Any],
    *,
    prorates: bool,
    at: int,
    param: str,
) -> Resource:
    """Adds (`item` is None) or changes an item and leaves prorations as pending invoice items.

    A metered item whose price is swapped without proration bills the period's whole usage once, at the new price only
    for events after the swap: with formula `last` the next total carries everything.
    """
    period = current_period(world, subscription)
    if item is None:
        added = add_item(world, subscription, given, period=period, usage_from=at, at=at, param=param)
        if prorates and not added["_is_metered"]:
            charge_rest(world, subscription, added, at=at)
        return added
    if "price" in given and given["price"] != item["_price"]:
        if prorates:
            bill_removal(world, subscription, item, at=at, clear_usage=False)
        world.remove("subscription_item", item["id"])
        kept = {} if item["_is_metered"] else {"quantity": item["quantity"]}
        swapped = add_item(
            world,
            subscription,
            {"metadata": item["metadata"], **kept, **given},
            period=period,
            usage_from=at,
            at=at,
            param=param,
        )
        world.remove("subscription_item", swapped["id"])
        changed = world.put({**swapped, "id": item["id"], "created": item["created"], "_seq": item["_seq"]})
        if prorates and not changed["_is_metered"]:
            charge_rest(world, subscription, changed, at=at)
        return changed
    return _requantified(world, subscription, item, given, prorates=prorates, at=at, param=param)


def _requantified(
    world: World,
    subscription: Resource,
    item: Resource,
    given: dict[str, Any],
    *,
    prorates: bool,
    at: int,
    param: str,
) -> Resource:
    changed = {**item, "metadata": merged_metadata(item["metadata"], given.get("metadata", {}))}
    if "quantity" not in given:
        return world.put(changed)
    if item["_is_metered"]:
        raise StripeError("You cannot set the quantity of a metered price.", param=f"{param}[quantity]")
    if prorates:
        credit_unused(world, subscription, item, at=at)
    changed = world.put({**changed, "quantity": given["quantity"]})
    if prorates:
        charge_rest(world, subscription, changed, at=at)
    return changed


def _change(call: Call, subscription: Resource, item: Resource | None, given: dict[str, Any]) -> Resource:
    at = _instant(call, subscription)
    changed = change_item(call.world, subscription, item, given, prorates=_prorates(call), at=at, param="item")
    announce(call.world, "customer.subscription.updated", subscription, at=at, previous={})
    return changed


def _prorates(call: Call) -> bool:
    behavior = call.params.get("proration_behavior")
    if behavior == "always_invoice":
        raise not_simulated("proration_behavior=always_invoice")
    return bool(behavior != "none")


def _instant(call: Call, subscription: Resource) -> int:
    customer = call.world.require("customer", subscription["customer"])
    return instant_of(call.world, customer, now=call.now)


ROUTES = [
    Route("POST", "/v1/subscription_items", create, SubscriptionItemCreateParams, _FIELDS | honours("subscription")),
    Route("GET", "/v1/subscription_items", list_, SubscriptionItemListParams, LISTING | honours("subscription")),
    Route("GET", "/v1/subscription_items/{id}", retrieve, SubscriptionItemRetrieveParams),
    Route("POST", "/v1/subscription_items/{id}", update, SubscriptionItemUpdateParams, _FIELDS),
    Route(
        "DELETE",
        "/v1/subscription_items/{id}",
        delete,
        SubscriptionItemDeleteParams,
        honours("clear_usage", "proration_behavior"),
    ),
]
