"""Subscriptions: a customer's commercial schedule, its anchor and its items."""

from typing import Any

from stripe.params import (
    SubscriptionCancelParams,
    SubscriptionCreateParams,
    SubscriptionListParams,
    SubscriptionRetrieveParams,
    SubscriptionSearchParams,
    SubscriptionUpdateParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.collecting import advance_open, finalize
from quill_stripesim.engine.drafting import draft_for_subscription
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.engine.passage import current_period, end_subscription, recurrence_of
from quill_stripesim.engine.subscribing import add_item, bill_removal, credit_unused
from quill_stripesim.listing import newest_first, page, search
from quill_stripesim.recurrence import day_of_month, next_day_of_month
from quill_stripesim.resources.customers import merged_metadata
from quill_stripesim.resources.subscription_items import change_item
from quill_stripesim.stripe_error import StripeError, not_simulated
from quill_stripesim.world import Resource, World

MAX_PER_CUSTOMER = 500

_OWN = (
    "cancel_at",
    "cancel_at_period_end",
    "collection_method",
    "days_until_due",
    "default_payment_method",
    "description",
)
_SHARED = honours(*_OWN, "items", "metadata", "proration_behavior", "payment_behavior", "off_session")


def create(call: Call) -> Resource:
    """Subscribes a customer.

    Periods are anchor + n x interval. Without an anchor it is now. `billing_cycle_anchor` must lie ahead and makes a
    shorter first period; `billing_cycle_anchor_config` finds the next such day itself and remembers day 31 through
    shorter months; `backdate_start_date` lets the first period, and the usage in it, begin earlier.
    """
    world, params = call.world, call.params
    for name in ("customer", "items"):
        if not params.get(name):
            raise StripeError(f"Missing required param: {name}.", code="parameter_missing", param=name)
    customer = world.require("customer", params["customer"], param="customer")
    if len(world.where("subscription", "customer", customer["id"])) >= MAX_PER_CUSTOMER:
        raise StripeError(f"A customer can have at most {MAX_PER_CUSTOMER} subscriptions.", param="customer")
    at = instant_of(world, customer, now=call.now)
    first_price = _first_price(world, params)
    anchor, anchor_day = _anchor(params, at=at)
    started = params.get("backdate_start_date", at)
    if started > at:
        raise StripeError("backdate_start_date must be in the past.", param="backdate_start_date")
    subscription = world.put(_blank(world, customer, params, at=at, started=started, anchor=anchor, day=anchor_day))
    subscription = world.put({**subscription, "currency": first_price["currency"]})
    whole = recurrence_of(subscription, first_price).period_at(at)
    if anchor > at and whole[1] != anchor:
        raise StripeError(
            "billing_cycle_anchor cannot be later than the next natural billing date.", param="billing_cycle_anchor"
        )
    period = (max(started, whole[0]), whole[1])
    for number, given in enumerate(params["items"]):
        add_item(world, subscription, given, period=period, usage_from=period[0], at=at, param=f"items[{number}]")
    announce(world, "customer.subscription.created", subscription, at=at)
    return _bill_first(world, subscription, period=period, whole=whole, at=at, params=params)


def retrieve(call: Call) -> Resource:
    """Returns a subscription."""
    return call.world.require("subscription", call.ids["id"])


def update(call: Call) -> Resource:
    """Changes a subscription and its items, with prorations unless `proration_behavior` is `none`."""
    world, params = call.world, call.params
    before = world.require("subscription", call.ids["id"])
    if before["status"] == "canceled":
        raise StripeError("A canceled subscription can only update its cancellation_details and metadata.")
    if params.get("proration_behavior") == "always_invoice":
        raise not_simulated("proration_behavior=always_invoice")
    at = _instant(call, before)
    after = world.put(_changed(before, params))
    for number, given in enumerate(params.get("items", [])):
        _change_items(world, after, given, number, prorates=params.get("proration_behavior") != "none", at=at)
    if not world.where("subscription_item", "subscription", after["id"]):
        raise StripeError("A subscription must have at least one active item.", param="items")
    previous = {name: before[name] for name in params if name in before and before[name] != after.get(name)}
    announce(world, "customer.subscription.updated", after, at=at, previous=previous)
    return after


def cancel(call: Call) -> Resource:
    """Cancels at once. Open usage is billed only with `invoice_now`, unused licensed time credited with `prorate`."""
    world = call.world
    subscription = world.require("subscription", call.ids["id"])
    if subscription["status"] == "canceled":
        raise StripeError("The subscription is already canceled.", code="resource_missing", status=404)
    at = _instant(call, subscription)
    start, end = current_period(world, subscription)
    if call.params.get("prorate", False):
        for item in world.where("subscription_item", "subscription", subscription["id"]):
            if not item["_is_metered"]:
                credit_unused(world, subscription, item, at=at)
    if call.params.get("invoice_now", False):
        draft_for_subscription(
            world,
            subscription,
            at=at,
            billing_reason="manual",
            arrears=(start, min(at, end)),
            advance=None,
        )
        subscription = world.require("subscription", subscription["id"])
    return end_subscription(world, subscription, at=at)


def list_(call: Call) -> Resource:
    """Lists subscriptions, newest first; canceled ones only when asked for by `status`."""
    found = [each for each in newest_first(call.world.all("subscription")) if _fits(call.world, each, call.params)]
    return page(found, call.params, url=call.path)


def search_(call: Call) -> Resource:
    """Searches subscriptions by metadata, status or created."""
    return search(call.world.all("subscription"), call.params, url=call.path)


def _instant(call: Call, subscription: Resource) -> int:
    customer = call.world.require("customer", subscription["customer"])
    return instant_of(call.world, customer, now=call.now)


def _first_price(world: World, params: dict[str, Any]) -> Resource:
    given = params["items"][0].get("price")
    if given is None:
        raise StripeError("Missing required param: items[0][price].", code="parameter_missing", param="items[0][price]")
    price = world.require("price", given, param="items[0][price]")
    if price["recurring"] is None:
        raise StripeError("A subscription takes only recurring prices.", param="items[0][price]")
    return price


def _anchor(params: dict[str, Any], *, at: int) -> tuple[int, int]:
    """Returns the anchor in unix seconds and the day of the month that periods return to."""
    config = params.get("billing_cycle_anchor_config")
    given = params.get("billing_cycle_anchor")
    if config is not None and given is not None:
        raise StripeError("You may only specify one of billing_cycle_anchor and billing_cycle_anchor_config.")
    if config is not None:
        if "month" in config:
            raise not_simulated("billing_cycle_anchor_config[month]")
        anchor = next_day_of_month(
            at - 1,
            day=config["day_of_month"],
            hour=config.get("hour", 0),
            minute=config.get("minute", 0),
            second=config.get("second", 0),
        )
        return anchor, int(config["day_of_month"])
    if given is not None and given < at:
        raise StripeError("billing_cycle_anchor must be in the future.", param="billing_cycle_anchor")
    anchor = at if given is None else given
    return anchor, day_of_month(anchor)


def _blank(
    world: World, customer: Resource, params: dict[str, Any], *, at: int, started: int, anchor: int, day: int
) -> Resource:
    config = params.get("billing_cycle_anchor_config")
    fields = ("hour", "minute", "month", "second")
    blank: Resource = {
        "id": world.new_id("sub"),
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": None
        if config is None
        else {"day_of_month": config["day_of_month"], **{name: config.get(name) for name in fields}},
        "billing_mode": {"type": "flexible", "flexible": None, "updated_at": None, **params.get("billing_mode", {})},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": at,
        "currency": None,
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "latest_invoice": None,
        "livemode": False,
        "managed_payments": None,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": started,
        "status": "active",
        "status_details": None,
        "test_clock": customer["test_clock"],
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"billing_cycle_anchor": None, "missing_payment_method": "create_invoice"}},
        "trial_start": None,
        "_anchor_day": day,
    }
    return _changed(blank, params)


def _changed(subscription: Resource, params: dict[str, Any]) -> Resource:
    changed = {**subscription, **{name: params[name] for name in _OWN if name in params}}
    if params.get("cancel_at") == "":
        changed["cancel_at"] = None
    if isinstance(changed["cancel_at"], str):
        raise not_simulated(f"cancel_at={changed['cancel_at']}")
    if "metadata" in params:
        changed["metadata"] = merged_metadata(subscription["metadata"], params["metadata"])
    if (changed["collection_method"] == "send_invoice") != (changed["days_until_due"] is not None):
        raise StripeError("days_until_due goes with collection_method=send_invoice.", param="days_until_due")
    return changed


def _bill_first(
    world: World,
    subscription: Resource,
    *,
    period: tuple[int, int],
    whole: tuple[int, int],
    at: int,
    params: dict[str, Any],
) -> Resource:
    """Bills licensed items for the first period: at once by card, as a draft when sent.

    With only metered items there is nothing to bill yet and so no invoice.
    """
    if period != whole and params.get("proration_behavior") == "none":
        return world.require("subscription", subscription["id"])
    draft = draft_for_subscription(
        world, subscription, at=at, billing_reason="subscription_create", arrears=None, advance=(period, whole)
    )
    if draft is None or subscription["collection_method"] == "send_invoice":
        return world.require("subscription", subscription["id"])
    opened = finalize(world, draft, at=at)
    paid = advance_open(world, opened, at=at)
    current = world.require("subscription", subscription["id"])
    if paid["status"] == "paid":
        return current
    if params.get("payment_behavior", "allow_incomplete") != "allow_incomplete":
        raise not_simulated(f"payment_behavior={params['payment_behavior']} with a failing first payment")
    incomplete = world.put({**current, "status": "incomplete"})
    announce(world, "customer.subscription.updated", incomplete, at=at, previous={"status": "active"})
    return incomplete


def _change_items(
    world: World, subscription: Resource, given: dict[str, Any], number: int, *, prorates: bool, at: int
) -> None:
    param = f"items[{number}]"
    if "id" in given:
        item = world.require("subscription_item", given["id"], param=f"{param}[id]")
        if item["subscription"] != subscription["id"]:
            raise StripeError("The item belongs to another subscription.", param=f"{param}[id]")
        if given.get("deleted", False):
            if prorates:
                clears = given.get("clear_usage", False)
                bill_removal(world, subscription, item, at=at, clear_usage=clears)
            world.remove("subscription_item", item["id"])
            return
        rest = {name: value for name, value in given.items() if name not in {"id", "deleted", "clear_usage"}}
        change_item(world, subscription, item, rest, prorates=prorates, at=at, param=param)
        return
    change_item(world, subscription, None, given, prorates=prorates, at=at, param=param)


def _fits(world: World, subscription: Resource, params: dict[str, Any]) -> bool:
    status = params.get("status")
    has_status = (
        status == "all"
        or (status is None and subscription["status"] != "canceled")
        or (status == "ended" and subscription["status"] in {"canceled", "incomplete_expired"})
        or status == subscription["status"]
    )
    price = params.get("price")
    return (
        has_status
        and params.get("customer", subscription["customer"]) == subscription["customer"]
        and params.get("test_clock", subscription["test_clock"]) == subscription["test_clock"]
        and params.get("collection_method", subscription["collection_method"]) == subscription["collection_method"]
        and (
            price is None
            or any(
                item["_price"] == price for item in world.where("subscription_item", "subscription", subscription["id"])
            )
        )
    )


ROUTES = [
    Route(
        "POST",
        "/v1/subscriptions",
        create,
        SubscriptionCreateParams,
        _SHARED
        | honours(
            "customer",
            "currency",
            "billing_mode",
            "billing_cycle_anchor",
            "billing_cycle_anchor_config",
            "backdate_start_date",
        ),
    ),
    Route(
        "GET",
        "/v1/subscriptions",
        list_,
        SubscriptionListParams,
        LISTING | honours("customer", "status", "test_clock", "price", "collection_method"),
    ),
    Route("GET", "/v1/subscriptions/search", search_, SubscriptionSearchParams, honours("query", "limit", "page")),
    Route("GET", "/v1/subscriptions/{id}", retrieve, SubscriptionRetrieveParams),
    Route("POST", "/v1/subscriptions/{id}", update, SubscriptionUpdateParams, _SHARED),
    Route(
        "DELETE",
        "/v1/subscriptions/{id}",
        cancel,
        SubscriptionCancelParams,
        honours("invoice_now", "prorate"),
    ),
]
