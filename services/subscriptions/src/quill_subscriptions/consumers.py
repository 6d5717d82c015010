"""Kafka in: usage, so that a customer sees what was counted; changed limits, so that its region hears at once."""

from collections.abc import Callable, Sequence
from datetime import datetime

from quill_contracts import topics
from quill_contracts.limits import LimitTransition
from quill_contracts.usage import PeriodUsageSnapshot
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction

from quill_subscriptions.ports import SubscriptionsTransaction
from quill_subscriptions.wire.snapshots import usage_from_wire

GROUP = "subscriptions"

OpenStore = Callable[[Transaction], SubscriptionsTransaction]
"""The store inside a batch's transaction."""


def period_usage(within: OpenStore) -> Consumption[PeriodUsageSnapshot]:
    """Keeps the newest usage of every organization, known or not yet known: a copy is harmless and saves a wait."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[PeriodUsageSnapshot]], now: datetime
    ) -> FollowUp | None:
        await within(transaction).keep_usage([usage_from_wire(one.message) for one in received], now=now)
        return None

    return Consumption(topic=topics.PERIOD_USAGE.name, group=GROUP, decode=_decode, apply=apply)


def limit_transitions(within: OpenStore) -> Consumption[LimitTransition]:
    """Tells regions at once of a customer whose limit state changed, with the usage that changed it.

    The transition names the revision of that usage; it may still be on its way here, on another topic.
    """

    async def apply(
        transaction: Transaction, received: Sequence[Received[LimitTransition]], now: datetime
    ) -> FollowUp | None:
        revisions: dict[str, int] = {}
        for one in received:
            name, revision = one.message.organization_id, one.message.evidence.usage_revision
            revisions[name] = max(revision, revisions.get(name, 0))
        await within(transaction).updates.expect_usage(revisions, now=now)
        return None

    return Consumption(
        topic=topics.LIMIT_TRANSITIONS.name, group=f"{GROUP}.transitions", decode=_decode_transition, apply=apply
    )


def _decode_transition(record: Record) -> LimitTransition:
    if record.value is None:
        raise Rejected("empty_value", "a limit transition has a value; this topic has no deletions")
    return LimitTransition.from_bytes(record.value)


def _decode(record: Record) -> PeriodUsageSnapshot:
    if record.value is None:
        raise Rejected("empty_value", "a usage snapshot has a value; this topic has no deletions")
    return PeriodUsageSnapshot.from_bytes(record.value)
