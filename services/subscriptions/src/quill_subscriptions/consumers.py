"""Kafka in: usage snapshots, so that a customer sees what was counted."""

from collections.abc import Callable, Sequence
from datetime import datetime

from quill_contracts import topics
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
        transaction: Transaction, received: Sequence[Received[PeriodUsageSnapshot]], _now: datetime
    ) -> FollowUp | None:
        await within(transaction).keep_usage([usage_from_wire(one.message) for one in received])
        return None

    return Consumption(topic=topics.PERIOD_USAGE.name, group=GROUP, decode=_decode, apply=apply)


def _decode(record: Record) -> PeriodUsageSnapshot:
    if record.value is None:
        raise Rejected("empty_value", "a usage snapshot has a value; this topic has no deletions")
    return PeriodUsageSnapshot.from_bytes(record.value)
