"""Meter events: one customer's value for one meter at one instant, its repeats refused, its mistakes cancelled."""

import re
from typing import Any

from stripe.params.billing import MeterEventAdjustmentCreateParams, MeterEventCreateParams

from quill_stripesim.call import Call, Route, honours
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.recurrence import days_before
from quill_stripesim.resources.meters import active_meter
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

OLDEST_DAYS = 35
NEWEST_AHEAD_SECONDS = 300
UNIQUE_SECONDS = 86_400
MAX_DIGITS = 15

_WHOLE = re.compile(r"^-?[0-9]+$")


def create(call: Call) -> Resource:
    """Records an event. Times are measured on the customer's own clock.

    Raises:
        StripeError: 400 with the code that Stripe gives in its error reports, or for an identifier already used within
            a day.
    """
    world, params = call.world, call.params
    meter = _meter(world, params["event_name"])
    payload: dict[str, str] = params["payload"]
    customer = _customer(world, payload.get(meter["customer_mapping"]["event_payload_key"]))
    value = _value(meter, payload)
    at = instant_of(world, customer, now=call.now)
    timestamp = params.get("timestamp", at)
    if timestamp < days_before(at, OLDEST_DAYS):
        raise _refused("timestamp_too_far_in_past", f"must be within the past {OLDEST_DAYS} days", param="timestamp")
    if timestamp > at + NEWEST_AHEAD_SECONDS:
        raise _refused("timestamp_in_future", "must be at most 5 minutes ahead", param="timestamp")
    identifier = params.get("identifier") or world.new_id("meter_event")
    if any(
        at - each["created"] < UNIQUE_SECONDS for each in world.where("billing.meter_event", "identifier", identifier)
    ):
        raise StripeError(
            f"An event already exists with identifier {identifier}.",
            code="duplicate_meter_event",
            param="identifier",
        )
    return world.put(
        {
            "id": world.new_id("_event"),
            "object": "billing.meter_event",
            "created": at,
            "event_name": meter["event_name"],
            "identifier": identifier,
            "livemode": False,
            "payload": payload,
            "timestamp": timestamp,
            "_customer": customer["id"],
            "_meter": meter["id"],
            "_value": value,
        }
    )


def cancel(call: Call) -> Resource:
    """Cancels one event by its identifier within 24 hours of its receipt."""
    identifier = call.params.get("cancel", {}).get("identifier")
    if identifier is None:
        raise StripeError(
            "Missing required param: cancel[identifier].", code="parameter_missing", param="cancel[identifier]"
        )
    found = [
        event
        for event in call.world.where("billing.meter_event", "identifier", identifier)
        if event["event_name"] == call.params["event_name"]
    ]
    if not found:
        raise StripeError(
            f"No event with identifier {identifier}.", code="resource_missing", param="cancel[identifier]"
        )
    event = found[-1]
    at = instant_of(call.world, call.world.require("customer", event["_customer"]), now=call.now)
    if at - event["created"] >= UNIQUE_SECONDS:
        raise StripeError("An event can be cancelled within 24 hours of its receipt.", param="cancel[identifier]")
    call.world.remove("billing.meter_event", event["id"])
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": event["event_name"],
        "livemode": False,
        "status": "pending",
        "type": "cancel",
    }


def _meter(world: World, event_name: str) -> Resource:
    meter = active_meter(world, event_name)
    if meter is not None:
        return meter
    if world.where("billing.meter", "event_name", event_name):
        raise _refused("archived_meter", f"the meter for '{event_name}' is not active", param="event_name")
    raise _refused("no_meter", f"no meter takes '{event_name}'", param="event_name")


def _customer(world: World, identifier: str | None) -> Resource:
    if identifier is None:
        raise _refused("meter_event_no_customer_defined", "the payload names no customer", param="payload")
    customer = world.get("customer", identifier)
    if customer is None:
        raise _refused("meter_event_customer_not_found", f"no such customer: '{identifier}'", param="payload")
    return customer


def _value(meter: Resource, payload: dict[str, str]) -> int:
    if meter["default_aggregation"]["formula"] == "count":
        return 1
    text = payload.get(meter["value_settings"]["event_payload_key"], "")
    if not _WHOLE.match(text):
        raise _refused("meter_event_invalid_value", "the value must be a whole number", param="payload")
    if len(text.lstrip("-").lstrip("0")) > MAX_DIGITS:
        raise _refused("meter_event_value_too_many_digits", f"more than {MAX_DIGITS} digits", param="payload")
    return int(text)


def _refused(code: str, reason: str, **where: Any) -> StripeError:
    return StripeError(f"The meter event was refused: {reason}.", code=code, **where)


ROUTES = [
    Route(
        "POST",
        "/v1/billing/meter_events",
        create,
        MeterEventCreateParams,
        honours("event_name", "identifier", "payload", "timestamp"),
    ),
    Route(
        "POST",
        "/v1/billing/meter_event_adjustments",
        cancel,
        MeterEventAdjustmentCreateParams,
        honours("cancel", "event_name", "type"),
    ),
]
