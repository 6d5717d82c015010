"""Meter events become one quantity per customer, meter and span of time."""

from quill_stripesim.world import Resource, World

_WINDOW_SECONDS = {"hour": 3_600, "day": 86_400}


def instant_of(world: World, customer: Resource, *, now: int) -> int:
    """Returns the instant a customer lives at: its test clock's, else the simulator's own."""
    if customer.get("test_clock") is None:
        return now
    return int(world.require("test_helpers.test_clock", customer["test_clock"])["frozen_time"])


def aggregate(world: World, meter: Resource, customer: str, *, start: int, end: int) -> int:
    """Returns a customer's quantity over `[start, end)`, which can be negative for `sum`.

    `last` is the value with the greatest timestamp. Stripe leaves equal timestamps undefined; here the one received
    last wins. No event at all is 0. On a pre-aggregated meter the newest received event of an hour or day replaces the
    earlier ones of that hour or day.
    """
    inside = [
        event
        for event in world.where("billing.meter_event", "_customer", customer)
        if event["_meter"] == meter["id"] and start <= event["timestamp"] < end
    ]
    window = meter["event_time_window"]
    if window is not None:
        inside = list({event["timestamp"] // _WINDOW_SECONDS[window]: event for event in inside}.values())
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return len(inside)
    if formula == "sum":
        return sum(event["_value"] for event in inside)
    newest = max(inside, key=lambda event: (event["timestamp"], event["_seq"]), default=None)
    return 0 if newest is None else int(newest["_value"])


def billed_quantity(world: World, meter: Resource, customer: str, *, start: int, end: int) -> int:
    """Returns what is billed: a negative total bills as 0."""
    return max(0, aggregate(world, meter, customer, start=start, end=end))
