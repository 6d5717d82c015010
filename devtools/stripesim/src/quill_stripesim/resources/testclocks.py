"""Test clocks: customers that live at an instant of the caller's choice."""

from stripe.params.test_helpers import (
    TestClockAdvanceParams,
    TestClockCreateParams,
    TestClockDeleteParams,
    TestClockListParams,
    TestClockRetrieveParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.passage import LIVE, recurrence_of
from quill_stripesim.listing import newest_first, page
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

KEPT_SECONDS = 30 * 86_400
MAX_INTERVALS = 2


def create(call: Call) -> Resource:
    """Makes a clock that stands still at `frozen_time`."""
    clock = call.world.put(
        {
            "id": call.world.new_id("clock"),
            "object": "test_helpers.test_clock",
            "created": call.now,
            "deletes_after": call.now + KEPT_SECONDS,
            "frozen_time": call.params["frozen_time"],
            "livemode": False,
            "name": call.params.get("name"),
            "status": "ready",
            "status_details": {},
        }
    )
    announce(call.world, "test_helpers.test_clock.created", clock, at=call.now)
    return clock


def advance(call: Call) -> Resource:
    """Sets a clock going: the answer says `advancing`, and `ready` follows when everything due was done.

    Raises:
        StripeError: 400 for a step backwards, more than two intervals of the shortest price, or a clock on its way.
    """
    clock = call.world.require("test_helpers.test_clock", call.ids["id"])
    target = call.params["frozen_time"]
    if clock["status"] != "ready":
        raise StripeError("The test clock is still advancing.", code="test_clock_advancing", status=429)
    if target <= clock["frozen_time"]:
        raise StripeError("A test clock only moves forward.", param="frozen_time")
    furthest = _furthest(call.world, clock)
    if furthest is not None and target > furthest:
        raise StripeError(
            f"A test clock advances at most {MAX_INTERVALS} intervals of the shortest price at once.",
            param="frozen_time",
        )
    moving = call.world.put(
        {**clock, "status": "advancing", "status_details": {"advancing": {"target_frozen_time": target}}}
    )
    announce(call.world, "test_helpers.test_clock.advancing", moving, at=call.now)
    return moving


def moving_clocks(world: World) -> list[Resource]:
    """Returns the clocks that were told to advance and have not arrived."""
    return [each for each in world.all("test_helpers.test_clock") if each["status"] == "advancing"]


def start_advancing(world: World) -> list[Resource]:
    """Sets every moving clock to where it is going and returns those clocks, for time to pass on them."""
    return [
        world.put({**each, "frozen_time": each["status_details"]["advancing"]["target_frozen_time"]})
        for each in moving_clocks(world)
    ]


def finish_advancing(world: World, clocks: list[Resource], *, now: int) -> None:
    """Marks clocks as arrived."""
    for clock in clocks:
        ready = world.put({**clock, "status": "ready", "status_details": {}})
        announce(world, "test_helpers.test_clock.ready", ready, at=now)


def retrieve(call: Call) -> Resource:
    """Returns a clock."""
    return call.world.require("test_helpers.test_clock", call.ids["id"])


def delete(call: Call) -> Resource:
    """Removes a clock and, as Stripe does, every customer on it with what it owns."""
    world = call.world
    clock = world.require("test_helpers.test_clock", call.ids["id"])
    for customer in world.where("customer", "test_clock", clock["id"]):
        for subscription in world.where("subscription", "customer", customer["id"]):
            world.put({**subscription, "status": "canceled", "ended_at": clock["frozen_time"]})
        for invoice in world.where("invoice", "customer", customer["id"]):
            world.remove("invoice", invoice["id"])
        for subscription in world.where("subscription", "customer", customer["id"]):
            world.remove("subscription", subscription["id"])
        world.remove("customer", customer["id"])
    world.remove("test_helpers.test_clock", clock["id"])
    announce(world, "test_helpers.test_clock.deleted", clock, at=call.now)
    return {"id": clock["id"], "object": "test_helpers.test_clock", "deleted": True}


def list_(call: Call) -> Resource:
    """Lists clocks, newest first."""
    return page(newest_first(call.world.all("test_helpers.test_clock")), call.params, url=call.path)


def _furthest(world: World, clock: Resource) -> int | None:
    ends = [
        _two_intervals_on(world, subscription, clock["frozen_time"])
        for customer in world.where("customer", "test_clock", clock["id"])
        for subscription in world.where("subscription", "customer", customer["id"])
        if subscription["status"] in LIVE
    ]
    return min(ends, default=None)


def _two_intervals_on(world: World, subscription: Resource, frozen_time: int) -> int:
    items = world.where("subscription_item", "subscription", subscription["id"])
    rhythm = recurrence_of(subscription, world.require("price", items[0]["_price"]))
    at = frozen_time
    for _ in range(MAX_INTERVALS):
        start, end = rhythm.period_at(at)
        at += end - start
    return at


ROUTES = [
    Route("POST", "/v1/test_helpers/test_clocks", create, TestClockCreateParams, honours("frozen_time", "name")),
    Route("GET", "/v1/test_helpers/test_clocks", list_, TestClockListParams, LISTING),
    Route("GET", "/v1/test_helpers/test_clocks/{id}", retrieve, TestClockRetrieveParams),
    Route("POST", "/v1/test_helpers/test_clocks/{id}/advance", advance, TestClockAdvanceParams, honours("frozen_time")),
    Route("DELETE", "/v1/test_helpers/test_clocks/{id}", delete, TestClockDeleteParams),
]
