"""Deliveries are leased, and what became of them is kept: two short transactions, the sending between them (L15)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from quill_runtime.event_store import NewEvent

from quill_quota_limiter.domain.webhook_delivery import DeliveryOutcome, WebhookDelivery
from quill_quota_limiter.domain.webhook_endpoint import DisabledBecause, WebhookEndpoint
from quill_quota_limiter.domain.webhook_rooms import Rooms
from quill_quota_limiter.ports import LimitsStore, LimitsTransaction
from quill_quota_limiter.usecases.change_webhooks import stream_of

LEASE: Final = timedelta(seconds=60)
"""How long a delivery is left alone once somebody tries it: longer than any try may take."""
PER_ENDPOINT: Final = 4
KEPT_FOR: Final = timedelta(days=30)
SWEEP_PAGES_MAX: Final = 200
ACTOR: Final = "quota-limiter"


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a delivery, and why its endpoint was disabled by that, if it was."""

    delivery: WebhookDelivery
    disabled_because: DisabledBecause | None = None


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery in our hands until ``until``, and where it goes."""

    delivery: WebhookDelivery
    endpoint: WebhookEndpoint
    until: datetime


async def lease_due(
    *, in_hand: Mapping[str, int], room: int, store: LimitsStore, now: datetime
) -> list[LeasedDelivery]:
    """Take due deliveries: so many in all, and of each endpoint no more than four, so that none holds up the others."""
    until = now + LEASE
    async with store.begin() as tx:
        taken = await tx.webhooks.lease(now, until=until, rooms=Rooms(room, PER_ENDPOINT, in_hand))
        endpoints = {each.endpoint_id: each for each in (await tx.webhooks.endpoints() if taken else ())}
    return [LeasedDelivery(each, endpoints[each.endpoint_id], until) for each in taken if each.endpoint_id in endpoints]


async def settle_delivery(
    leased: LeasedDelivery, outcome: DeliveryOutcome, *, tx: LimitsTransaction, now: datetime
) -> Settled | None:
    """Keep what a try came to; ``None`` when the lease was lost to somebody else, whose word counts then.

    An endpoint that is gone, or that took nothing for days, is disabled with an event.
    """
    endpoint = await tx.webhooks.find_endpoint(leased.endpoint.endpoint_id, lock=not outcome.is_taken)
    after = leased.delivery.after(outcome, now)
    if not await tx.webhooks.settle(after, lease=leased.until):
        return None
    if endpoint is None:
        return Settled(after)
    if outcome.is_taken:
        if endpoint.failing_since is not None:
            found = await tx.webhooks.find_endpoint(endpoint.endpoint_id, lock=True)
            if found is not None:
                await tx.webhooks.save_endpoint(found.after_success())
        return Settled(after)
    failing = endpoint.after_failure(is_gone=outcome.is_gone, now=now)
    if failing != endpoint:
        await tx.webhooks.save_endpoint(failing)
    if not endpoint.is_enabled or failing.is_enabled:
        return Settled(after)
    data = {
        "reason": outcome.error or f"the receiver answered {outcome.status}",
        "before": {"disabled_because": None},
        "after": {"disabled_because": failing.disabled_because},
    }
    await tx.record(stream_of(endpoint.endpoint_id), NewEvent("webhook_disabled", data, ACTOR, now))
    return Settled(after, failing.disabled_because)


async def sweep_deliveries(*, store: LimitsStore, now: datetime) -> tuple[int, int]:
    """Fail what waited in vain for an endpoint that stayed disabled, and forget what was finished long ago.

    Returns:
        How many were given up, and how many forgotten.
    """
    given_up = forgotten = 0
    for _ in range(SWEEP_PAGES_MAX):
        async with store.begin() as tx:
            late = await tx.webhooks.give_up(now, endpoint_id=None, error="the endpoint stayed disabled")
            old = await tx.webhooks.forget(now - KEPT_FOR)
        given_up += late
        forgotten += old
        if not late and not old:
            break
    return given_up, forgotten
