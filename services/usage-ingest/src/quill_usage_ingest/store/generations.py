"""The comparison of report generations in Postgres."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

import msgspec
from quill_runtime.database import Transaction
from quill_runtime.event_store import NewEvent, PostgresEventStream
from sqlalchemy import Row, TextClause, case, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.generation import GENERATION_OF_INTAKE, Generation
from quill_usage_ingest.domain.generation_comparison import (
    Comparison,
    ComparisonState,
    DayTally,
    GenerationClaim,
)
from quill_usage_ingest.domain.usage_report import DayKey
from quill_usage_ingest.store.archived_months import PostgresArchivedMonths
from quill_usage_ingest.store.generation_tables import generation_comparisons, generation_marks
from quill_usage_ingest.store.kept_bytes import decompressed

DIFFERENCES_KEPT: Final = 50
"""Of one organization and day; the number of all of them is kept beside."""

_counters_decoder: Final = msgspec.json.Decoder(dict[str, int])
_NEWEST_CLAIMS: Final[TextClause] = text(
    """
    select distinct on (r.organization_id, r.window_start, r.source, g.generation)
           r.id, r.organization_id, r.window_start, r.source, r.claim, g.generation
    from unnest(cast(:organization_ids as text[]), cast(:days as timestamptz[]), cast(:sources as text[]))
             as k(organization_id, day, source)
    join usage_reports as r
      on r.organization_id = k.organization_id and r.source = k.source and r.window_start = k.day
    join unnest(cast(:intakes as text[]), cast(:generations as text[])) as g(intake, generation)
      on g.intake = r.intake
    where r.window_start between :first_day and :last_day
      and r.completeness = 'complete' and r.verdict <> 'voided' and r.claim is not null
    order by r.organization_id, r.window_start, r.source, g.generation, r.as_of desc, r.content_hash
    """
)

_table: Final = generation_comparisons


class ComparisonKey(NamedTuple):
    """One compared day, ordered as pages are."""

    day: date
    source: str
    organization_id: str


@dataclass(frozen=True, slots=True)
class KeptComparison:
    """A comparison as kept; ``differences`` are the first `DIFFERENCES_KEPT` of ``differing``."""

    key: ComparisonKey
    state: ComparisonState
    differing: int
    differences: tuple[tuple[str, int | None, int | None], ...]
    v1_report: int | None
    v2_report: int | None
    compared_at: datetime
    accepted_by: str | None
    accepted_reason: str | None
    accepted_at: datetime | None


class PostgresGenerations(PostgresArchivedMonths):
    """Comparisons on one open transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection
        self._events = PostgresEventStream(transaction)

    async def take_marks(self, *, limit: int) -> tuple[list[DayKey], int]:
        """The days marked longest ago, taken off with this transaction, and how many marks that were."""
        due = (
            select(generation_marks.c.id)
            .order_by(generation_marks.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        taken = await self._connection.execute(
            delete(generation_marks).where(generation_marks.c.id == due.c.id).returning(generation_marks)
        )
        rows = taken.all()
        return sorted({DayKey(row.organization_id, row.day.astimezone(UTC), row.source) for row in rows}), len(rows)

    async def newest_claims(self, keys: Sequence[DayKey]) -> dict[DayKey, dict[Generation, GenerationClaim]]:
        """The newest complete report of each generation that nobody voided; of equal instants the smallest hash."""
        parameters = {
            "organization_ids": [key.organization_id for key in keys],
            "days": [key.day for key in keys],
            "sources": [key.source for key in keys],
            "first_day": min(key.day for key in keys),
            "last_day": max(key.day for key in keys),
            "intakes": list(GENERATION_OF_INTAKE),
            "generations": [generation.value for generation in GENERATION_OF_INTAKE.values()],
        }
        found: dict[DayKey, dict[Generation, GenerationClaim]] = {}
        for row in await self._connection.execute(_NEWEST_CLAIMS, parameters):
            claim = GenerationClaim(row.id, _counters_decoder.decode(decompressed(row.claim)))
            key = DayKey(row.organization_id, row.window_start.astimezone(UTC), row.source)
            found.setdefault(key, {})[Generation(row.generation)] = claim
        return found

    async def save(self, comparisons: Collection[Comparison], *, now: datetime) -> None:
        """Insert or replace; an acceptance stays while state and differences are what was accepted."""
        if not comparisons:
            return
        rows = [_row(comparison, now) for comparison in sorted(comparisons, key=lambda each: each.key)]
        given = insert(_table).values(rows)
        changed = {
            name: given.excluded[name]
            for name in ("state", "differing", "differences", "fingerprint", "v1_report", "v2_report", "compared_at")
        }
        is_same = _table.c.fingerprint == given.excluded.fingerprint
        kept = {name: case((is_same, _table.c[name])) for name in ("accepted_by", "accepted_reason", "accepted_at")}
        await self._connection.execute(
            given.on_conflict_do_update(index_elements=["organization_id", "day", "source"], set_={**changed, **kept})
        )

    async def forget(self, keys: Collection[DayKey]) -> None:
        """Days of which neither generation says anything any more."""
        for key in keys:
            await self._connection.execute(delete(_table).where(*_is(_key(key))))

    async def tallies(self, start: date, end: date, *, source: str | None) -> list[DayTally]:
        """How many organizations came out how, per source and day in [``start``, ``end``)."""
        query = select(
            _table.c.source,
            _table.c.day,
            _table.c.state,
            func.count().label("organizations"),
            func.count(_table.c.accepted_at).label("accepted"),
        ).where(_table.c.day >= start, _table.c.day < end)
        if source is not None:
            query = query.where(_table.c.source == source)
        rows = (await self._connection.execute(query.group_by(_table.c.source, _table.c.day, _table.c.state))).all()
        states: dict[tuple[str, date], dict[ComparisonState, int]] = {}
        accepted: dict[tuple[str, date], int] = {}
        for row in rows:
            states.setdefault((row.source, row.day), {})[ComparisonState(row.state)] = row.organizations
            accepted[row.source, row.day] = accepted.get((row.source, row.day), 0) + row.accepted
        return [DayTally(*key, states[key], accepted[key]) for key in sorted(states)]

    async def page(
        self,
        start: date,
        end: date,
        *,
        source: str | None,
        states: Collection[ComparisonState],
        after: ComparisonKey | None,
        limit: int,
    ) -> list[KeptComparison]:
        """Comparisons in [``start``, ``end``) by day, source and organization, beginning after a key."""
        place = tuple_(_table.c.day, _table.c.source, _table.c.organization_id)
        query = select(_table).where(
            _table.c.day >= start, _table.c.day < end, _table.c.state.in_([state.value for state in states])
        )
        if source is not None:
            query = query.where(_table.c.source == source)
        if after is not None:
            query = query.where(place > after)
        rows = await self._connection.execute(
            query.order_by(_table.c.day, _table.c.source, _table.c.organization_id).limit(limit)
        )
        return [_kept(row) for row in rows]

    async def find(self, key: ComparisonKey) -> KeptComparison | None:
        """One comparison, locked until the end."""
        row = (await self._connection.execute(select(_table).where(*_is(key)).with_for_update())).one_or_none()
        return None if row is None else _kept(row)

    async def accept(self, found: KeptComparison, *, actor: str, reason: str, now: datetime) -> None:
        """Note who accepted a difference, as an event too (L20); the caller holds the row."""
        values = {"accepted_by": actor, "accepted_reason": reason, "accepted_at": now}
        await self._connection.execute(update(_table).where(*_is(found.key)).values(**values))
        stream = f"generation-difference:{found.key.organization_id}:{found.key.day.isoformat()}:{found.key.source}"
        data: Mapping[str, Any] = {
            "reason": reason,
            "state": found.state.value,
            "differing": found.differing,
            "differences": [list(each) for each in found.differences],
            "before": {"accepted_by": None},
            "after": {"accepted_by": actor},
        }
        version = len(await self._events.read(stream))
        event = NewEvent("usage.generation-difference-accepted", data, actor, now)
        await self._events.append(stream, expected_version=version, events=[event])


def _key(key: DayKey) -> ComparisonKey:
    return ComparisonKey(key.day.date(), key.source, key.organization_id)


def _is(key: ComparisonKey) -> tuple[Any, ...]:
    return (
        _table.c.organization_id == key.organization_id,
        _table.c.day == key.day,
        _table.c.source == key.source,
    )


def _row(comparison: Comparison, now: datetime) -> dict[str, Any]:
    key = _key(comparison.key)
    return {
        **key._asdict(),
        "state": comparison.state.value,
        "differing": len(comparison.differences),
        "differences": [list(each) for each in comparison.differences[:DIFFERENCES_KEPT]],
        "fingerprint": comparison.fingerprint,
        "v1_report": comparison.v1_report,
        "v2_report": comparison.v2_report,
        "compared_at": now,
    }


def _kept(row: Row[Any]) -> KeptComparison:
    return KeptComparison(
        key=ComparisonKey(row.day, row.source, row.organization_id),
        state=ComparisonState(row.state),
        differing=row.differing,
        differences=tuple(tuple(each) for each in row.differences),
        v1_report=row.v1_report,
        v2_report=row.v2_report,
        compared_at=row.compared_at,
        accepted_by=row.accepted_by,
        accepted_reason=row.accepted_reason,
        accepted_at=row.accepted_at,
    )
