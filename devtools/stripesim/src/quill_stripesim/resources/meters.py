"""Meters: a named measurement and how its events become one quantity."""

from stripe.params.billing import (
    MeterCreateParams,
    MeterDeactivateParams,
    MeterListParams,
    MeterReactivateParams,
    MeterRetrieveParams,
    MeterUpdateParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.listing import newest_first, page
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World


def create(call: Call) -> Resource:
    """Creates a meter; apart from its display name it never changes."""
    _refuse_taken_name(call.world, call.params["event_name"])
    meter = call.world.put(
        {
            "id": call.world.new_id("mtr"),
            "object": "billing.meter",
            "created": call.now,
            "customer_mapping": call.params.get(
                "customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}
            ),
            "default_aggregation": call.params["default_aggregation"],
            "display_name": call.params["display_name"],
            "event_name": call.params["event_name"],
            "event_time_window": call.params.get("event_time_window"),
            "livemode": False,
            "status": "active",
            "status_transitions": {"deactivated_at": None},
            "updated": call.now,
            "value_settings": call.params.get("value_settings", {"event_payload_key": "value"}),
        }
    )
    announce(call.world, "billing.meter.created", meter, at=call.now)
    return meter


def update(call: Call) -> Resource:
    """Renames a meter for people."""
    meter = call.world.require("billing.meter", call.ids["id"])
    name = call.params.get("display_name", meter["display_name"])
    changed = call.world.put({**meter, "display_name": name, "updated": call.now})
    announce(
        call.world, "billing.meter.updated", changed, at=call.now, previous={"display_name": meter["display_name"]}
    )
    return changed


def retrieve(call: Call) -> Resource:
    """Returns a meter."""
    return call.world.require("billing.meter", call.ids["id"])


def list_(call: Call) -> Resource:
    """Lists meters, newest first."""
    status = call.params.get("status")
    found = [each for each in newest_first(call.world.all("billing.meter")) if status in {None, each["status"]}]
    return page(found, call.params, url=call.path)


def deactivate(call: Call) -> Resource:
    """Stops a meter: it takes no more events and its event name is free again."""
    meter = call.world.require("billing.meter", call.ids["id"])
    if meter["status"] != "active":
        raise StripeError("The meter is already inactive.")
    stopped = call.world.put(
        {**meter, "status": "inactive", "status_transitions": {"deactivated_at": call.now}, "updated": call.now}
    )
    announce(call.world, "billing.meter.deactivated", stopped, at=call.now)
    return stopped


def reactivate(call: Call) -> Resource:
    """Takes a stopped meter up again, if its event name is still free."""
    meter = call.world.require("billing.meter", call.ids["id"])
    if meter["status"] == "active":
        raise StripeError("The meter is already active.")
    _refuse_taken_name(call.world, meter["event_name"])
    active = call.world.put(
        {**meter, "status": "active", "status_transitions": {"deactivated_at": None}, "updated": call.now}
    )
    announce(call.world, "billing.meter.reactivated", active, at=call.now)
    return active


def active_meter(world: World, event_name: str) -> Resource | None:
    """Returns the one active meter that takes events of a name."""
    found = world.where("billing.meter", "event_name", event_name)
    return next((meter for meter in found if meter["status"] == "active"), None)


def _refuse_taken_name(world: World, event_name: str) -> None:
    holder = active_meter(world, event_name)
    if holder is not None:
        raise StripeError(
            f"There is already an active meter ({holder['id']}) for the event name '{event_name}'.",
            code="resource_already_exists",
            param="event_name",
        )


ROUTES = [
    Route(
        "POST",
        "/v1/billing/meters",
        create,
        MeterCreateParams,
        honours(
            "customer_mapping",
            "default_aggregation",
            "display_name",
            "event_name",
            "event_time_window",
            "value_settings",
        ),
    ),
    Route("GET", "/v1/billing/meters", list_, MeterListParams, LISTING | honours("status")),
    Route("GET", "/v1/billing/meters/{id}", retrieve, MeterRetrieveParams),
    Route("POST", "/v1/billing/meters/{id}", update, MeterUpdateParams, honours("display_name")),
    Route("POST", "/v1/billing/meters/{id}/deactivate", deactivate, MeterDeactivateParams),
    Route("POST", "/v1/billing/meters/{id}/reactivate", reactivate, MeterReactivateParams),
]
