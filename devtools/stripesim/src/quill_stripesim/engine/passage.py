"""What the passing of time does: periods roll over, drafts become final, failed payments are tried again.

Customers on a test clock live through every instant in order and see each thing happen at its own time. Customers on
the simulator's clock see what became due happen *now*: a clock that jumps a month still leaves each new draft its full
grace, as a Stripe that was late would.
"""

import heapq
from collections.abc import Iterator

from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.collecting import advance_open, finalize
from quill_stripesim.engine.drafting import draft_for_subscription
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.recurrence import Recurrence
from quill_stripesim.world import Resource, World

MAX_STEPS = 200_000
"""More than this at once is a clock set wrong, not a test."""
LIVE = ("active", "past_due", "unpaid")

_Due = tuple[int, int, str, str]


class TooMuchTime(Exception):
    """A clock moved so far that more than `MAX_STEPS` things became due."""


def pass_time(world: World, *, now: int) -> bool:
    """Does everything that became due, oldest first, and says whether there was anything.

    Args:
        world: Everything that can become due.
        now: The simulator's own instant, unix seconds.

    Raises:
        TooMuchTime: More than `MAX_STEPS` steps were due.
    """
    queue = list(_due(world, now=now))
    heapq.heapify(queue)
    steps = 0
    while queue:
        due_at, _, kind, identifier = heapq.heappop(queue)
        steps += 1
        if steps > MAX_STEPS:
            raise TooMuchTime(f"more than {MAX_STEPS} steps became due by {now}")
        resource = world.require(kind, identifier)
        customer = world.require("customer", resource["customer"])
        at = due_at if customer["test_clock"] is not None else now
        for touched in _step(world, resource, at=at):
            following = _next_due(world, touched, now=now)
            if following is not None:
                heapq.heappush(queue, following)
    return steps > 0


def recurrence_of(subscription: Resource, price: Resource) -> Recurrence:
    """Returns the rhythm of a subscription's periods."""
    recurring = price["recurring"]
    return Recurrence(
        anchor=subscription["billing_cycle_anchor"],
        day_of_month=subscription["_anchor_day"],
        interval=recurring["interval"],
        interval_count=recurring["interval_count"],
    )


def current_period(world: World, subscription: Resource) -> tuple[int, int]:
    """Returns the half-open current period, which its items carry."""
    items = world.where("subscription_item", "subscription", subscription["id"])
    return min(item["current_period_start"] for item in items), min(item["current_period_end"] for item in items)


def end_subscription(world: World, subscription: Resource, *, at: int) -> Resource:
    """Cancels for good."""
    ended = world.put(
        {
            **subscription,
            "status": "canceled",
            "canceled_at": subscription["canceled_at"] or at,
            "ended_at": at,
            "cancellation_details": {**subscription["cancellation_details"], "reason": "cancellation_requested"},
        }
    )
    announce(world, "customer.subscription.deleted", ended, at=at)
    return ended


def _due(world: World, *, now: int) -> Iterator[_Due]:
    living = [each for status in LIVE for each in world.where("subscription", "status", status)]
    unfinished = [each for status in ("draft", "open") for each in world.where("invoice", "status", status)]
    for resource in [*living, *unfinished]:
        due = _next_due(world, resource, now=now)
        if due is not None:
            yield due


def _next_due(world: World, resource: Resource, *, now: int) -> _Due | None:
    """Returns when an object next changes by itself, if its clock has come that far."""
    due_at: int | None = None
    if resource["object"] == "subscription" and resource["status"] in LIVE:
        due_at = current_period(world, resource)[1]
        if resource["cancel_at"] is not None:
            due_at = min(due_at, resource["cancel_at"])
    elif resource["object"] == "invoice" and resource["status"] == "draft" and resource["auto_advance"]:
        due_at = resource["automatically_finalizes_at"]
    elif resource["object"] == "invoice" and resource["status"] == "open" and resource["auto_advance"]:
        due_at = resource["next_payment_attempt"]
    if due_at is None:
        return None
    customer = world.require("customer", resource["customer"])
    if customer["test_clock"] is None and world.where("_delivery", "invoice", resource["id"]):
        return None  # Stripe waits for `invoice.created` to be taken, or given up, before it finalizes
    if due_at > instant_of(world, customer, now=now):
        return None
    return due_at, int(resource["_seq"]), resource["object"], resource["id"]


def _step(world: World, resource: Resource, *, at: int) -> list[Resource]:
    if resource["object"] == "subscription":
        return _roll_over(world, resource, at=at)
    if resource["status"] == "draft":
        resource = finalize(world, resource, at=at)
    return [advance_open(world, resource, at=at)]


def _roll_over(world: World, subscription: Resource, *, at: int) -> list[Resource]:
    start, end = current_period(world, subscription)
    stops_at = subscription["cancel_at"]
    ends = subscription["cancel_at_period_end"] or (stops_at is not None and stops_at <= end)
    if ends:
        end = end if stops_at is None else min(end, stops_at)
        draft = draft_for_subscription(
            world, subscription, at=at, billing_reason="subscription_cycle", arrears=(start, end), advance=None
        )
        ended = end_subscription(world, world.require("subscription", subscription["id"]), at=at)
        return [ended] if draft is None else [ended, draft]
    items = world.where("subscription_item", "subscription", subscription["id"])
    following = recurrence_of(subscription, world.require("price", items[0]["_price"])).period_at(end)
    draft = draft_for_subscription(
        world,
        subscription,
        at=at,
        billing_reason="subscription_cycle",
        arrears=(start, end),
        advance=(following, following),
    )
    for item in items:
        world.put(
            {
                **item,
                "current_period_start": following[0],
                "current_period_end": following[1],
                "_usage_from": following[0],
            }
        )
    rolled = world.require("subscription", subscription["id"])
    announce(
        world,
        "customer.subscription.updated",
        rolled,
        at=at,
        previous={"latest_invoice": subscription["latest_invoice"]},
    )
    return [rolled] if draft is None else [rolled, draft]
