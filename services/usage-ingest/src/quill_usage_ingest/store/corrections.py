"""Corrections in Postgres and in memory. Each change of one is an event with actor, before and after as well (L20)."""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from quill_runtime.database import Transaction
from quill_runtime.event_store import NewEvent, PostgresEventStream
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.correction import AppliedCorrection
from quill_usage_ingest.store.correction_tables import corrections

CORRECTIONS_MAX: Final = 10_000
"""Of one organization, read at once; a person makes each."""


class PostgresCorrections:
    """`Corrections` on one open transaction, whose caller holds the organization's row lock."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection
        self._events = PostgresEventStream(transaction)

    async def of_organization(self, organization_id: str) -> list[AppliedCorrection]:
        rows = await self._connection.execute(
            select(corrections.c.document)
            .where(corrections.c.organization_id == organization_id)
            .order_by(corrections.c.applied_at, corrections.c.correction_id)
            .limit(CORRECTIONS_MAX)
        )
        return [msgspec.convert(row.document, AppliedCorrection) for row in rows]

    async def save(self, correction: AppliedCorrection) -> None:
        order = correction.order
        row = {
            "content_hash": order.content_hash,
            "applied_at": correction.applied_at,
            "document": msgspec.to_builtins(correction),
        }
        await self._connection.execute(
            insert(corrections)
            .values(organization_id=order.organization_id, correction_id=order.correction_id, **row)
            .on_conflict_do_update(index_elements=["organization_id", "correction_id"], set_=row)
        )
        await self._events.append(
            stream_of(order.organization_id, order.correction_id),
            expected_version=0 if correction.is_in_force else 1,
            events=[_event(correction)],
        )


@dataclass(slots=True)
class MemoryCorrections:
    """The same on a dictionary."""

    held: dict[tuple[str, str], AppliedCorrection] = field(default_factory=dict)

    async def of_organization(self, organization_id: str) -> list[AppliedCorrection]:
        found = [each for (owner, _), each in self.held.items() if owner == organization_id]
        return sorted(found, key=lambda each: (each.applied_at, each.order.correction_id))

    async def save(self, correction: AppliedCorrection) -> None:
        self.held[correction.order.organization_id, correction.order.correction_id] = correction


def stream_of(organization_id: str, correction_id: str) -> str:
    """The event stream of one correction: applied, then perhaps reverted."""
    return f"usage-correction:{organization_id}:{correction_id}"


def _event(correction: AppliedCorrection) -> NewEvent:
    reversion = correction.reversion
    changed = msgspec.to_builtins(correction.effects if reversion is None else reversion.effects)
    data: dict[str, Any] = {
        "order": msgspec.to_builtins(correction.order),
        "reason": correction.order.reason if reversion is None else reversion.reason,
        "taken_out": msgspec.to_builtins(correction.taken_out),
        "entered_ids": list(correction.entered_ids),
        "before": _side(changed, "before"),
        "after": _side(changed, "after"),
    }
    if reversion is None:
        return NewEvent("usage.corrected", data, correction.order.actor, correction.applied_at)
    return NewEvent("usage.correction-reverted", data, reversion.actor, reversion.at)


def _side(changed: list[dict[str, Any]], side: str) -> list[dict[str, Any]]:
    return [
        {
            "period_start": period["period_start"],
            "counters": {each["counter"]: each[side] for each in period["counters"]},
        }
        for period in changed
    ]
