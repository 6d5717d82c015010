"""Sources in Postgres: the fold of each one's events in a row, claims that wait for the logs, and what is parked."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
from quill_contracts.topics import SOURCES
from quill_runtime.database import Transaction
from quill_runtime.event_store import NewEvent
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import Outgoing
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.usage_source import CLOCKWORK, SourceEvent, UsageSource
from quill_usage_ingest.domain.watermark import LogEnds, WatermarkClaim, is_passed
from quill_usage_ingest.ports import Unfenced
from quill_usage_ingest.store.source_events import kind_of, state_document
from quill_usage_ingest.store.source_tables import parked_reports, usage_sources, watermark_claims
from quill_usage_ingest.store.source_views import CLAIMS_MAX, PostgresSourceViews, source_of_row, stream_of
from quill_usage_ingest.wire.sources import to_wire_source

_IS_ANYTHING_WAITING: Final = text(
    """
    select exists (select from watermark_claims)
        or exists (select from parked_reports where not is_read)
        or exists (select from parked_reports where replayed_at is not null and gone_at is null)
    """
)
_MISCOUNTED: Final = text(
    """
    select s.source from usage_sources as s
    left join unnest(cast(:names as text[]), cast(:counts as int[])) as k(source, parked) on k.source = s.source
    where s.parked <> coalesce(k.parked, 0)
    """
)
_REPLAYED: Final = text(
    """
    select p.letter_id from parked_reports as p
    where p.replayed_at is not null and p.gone_at is null and p.fence is null
      and not exists (select from outbox as o where o.headers ->> 'quill-replay-of' = p.letter_id::text)
    order by p.letter_id
    limit :limit
    """
)


class PostgresSources(PostgresSourceViews):
    """`SourceTransaction` on one open transaction."""

    def __init__(self, transaction: Transaction, outbox: Outbox) -> None:
        super().__init__(transaction)
        self._outbox = outbox

    # -- sources ---------------------------------------------------------------------------------------------------

    async def lock_sources(self, names: Collection[str]) -> dict[str, UsageSource]:
        if not names:
            return {}
        ordered = sorted(names)
        await self._connection.execute(
            insert(usage_sources).values([{"source": name} for name in ordered]).on_conflict_do_nothing()
        )
        rows = await self._connection.execute(
            select(usage_sources)
            .where(usage_sources.c.source == func.any(ordered))
            .order_by(usage_sources.c.source)
            .with_for_update()
        )
        return {row.source: source_of_row(row) for row in rows}

    async def known_sources(self) -> int:
        return await self._connection.scalar(select(func.count()).select_from(usage_sources)) or 0

    async def expected_sources(self) -> dict[str, UsageSource]:
        rows = await self._connection.execute(
            select(usage_sources).where(usage_sources.c.is_expected).order_by(usage_sources.c.source)
        )
        return {row.source: source_of_row(row) for row in rows}

    async def save_source(
        self, before: UsageSource, after: UsageSource, events: Sequence[SourceEvent], *, is_announced: bool
    ) -> None:
        await self._connection.execute(
            update(usage_sources)
            .where(usage_sources.c.source == after.source)
            .values(
                version=after.version,
                revision=after.revision,
                parked=after.parked,
                is_expected=after.is_expected,
                silent_since=after.silent_since,
                document=state_document(after),
            )
        )
        if events:
            await self._events.append(
                stream_of(after.source), expected_version=before.version, events=_new_events(before, events)
            )
        if is_announced:
            await self._outbox.add(
                self._transaction, [Outgoing(SOURCES.name, after.source, to_wire_source(after).to_bytes())]
            )

    # -- claims ----------------------------------------------------------------------------------------------------

    async def add_claims(self, claims: Sequence[WatermarkClaim], *, now: datetime) -> None:
        if claims:
            await self._connection.execute(
                insert(watermark_claims),
                [
                    {
                        "source": claim.source,
                        "claim": msgspec.to_builtins(claim),
                        "claimed_at": now,
                    }
                    for claim in claims
                ],
            )

    async def unfenced(self) -> Unfenced:
        claims = await self._connection.execute(
            select(watermark_claims.c.id)
            .where(watermark_claims.c.fence.is_(None))
            .order_by(watermark_claims.c.id)
            .limit(CLAIMS_MAX)
        )
        letters = await self._connection.execute(_REPLAYED, {"limit": CLAIMS_MAX})
        return Unfenced(tuple(claims.scalars()), tuple(letters.scalars()))

    async def put_up_fences(self, waiting: Unfenced, ends: LogEnds) -> None:
        fence = _fence_document(ends)
        await self._connection.execute(
            update(watermark_claims)
            .where(watermark_claims.c.id == func.any(list(waiting.claim_ids)), watermark_claims.c.fence.is_(None))
            .values(fence=fence)
        )
        await self._connection.execute(
            update(parked_reports)
            .where(parked_reports.c.letter_id == func.any(list(waiting.letter_ids)), parked_reports.c.fence.is_(None))
            .values(fence=fence)
        )

    async def passed_claims(self, settled: LogEnds, *, limit: int) -> list[tuple[int, WatermarkClaim]]:
        rows = await self._connection.execute(
            select(watermark_claims)
            .where(watermark_claims.c.fence.is_not(None))
            .order_by(watermark_claims.c.id)
            .limit(CLAIMS_MAX)
            .with_for_update(skip_locked=True)
        )
        passed = [row for row in rows if is_passed(_fence(row.fence), settled)]
        return [(row.id, msgspec.convert(row.claim, WatermarkClaim)) for row in passed[:limit]]

    async def drop_claims(self, claim_ids: Collection[int]) -> None:
        await self._connection.execute(
            delete(watermark_claims).where(watermark_claims.c.id == func.any(list(claim_ids)))
        )

    # -- what is parked --------------------------------------------------------------------------------------------

    async def forget_reentered(self, settled: LogEnds, *, now: datetime) -> int:
        rows = await self._connection.execute(
            select(parked_reports.c.letter_id, parked_reports.c.fence)
            .where(
                parked_reports.c.replayed_at.is_not(None),
                parked_reports.c.gone_at.is_(None),
                parked_reports.c.fence.is_not(None),
            )
            .order_by(parked_reports.c.letter_id)
            .limit(CLAIMS_MAX)
        )
        gone = [row.letter_id for row in rows if is_passed(_fence(row.fence), settled)]
        if gone:
            await self._connection.execute(
                update(parked_reports).where(parked_reports.c.letter_id == func.any(gone)).values(gone_at=now)
            )
        return len(gone)

    async def is_anything_waiting(self) -> bool:
        """Whether there are claims, letters not read yet, or parked reports that were sent again."""
        return bool(await self._connection.scalar(_IS_ANYTHING_WAITING))

    async def miscounted(self, parked: Mapping[str, int]) -> set[str]:
        parameters = {"names": list(parked), "counts": list(parked.values())}
        rows = await self._connection.execute(_MISCOUNTED, parameters)
        return set(rows.scalars())

    async def parked_by_source(self) -> dict[str, int]:
        rows = await self._connection.execute(
            select(parked_reports.c.source, func.count().label("letters"))
            .where(parked_reports.c.gone_at.is_(None), parked_reports.c.source.is_not(None))
            .group_by(parked_reports.c.source)
        )
        return {row.source: row.letters for row in rows}


def _new_events(before: UsageSource, events: Sequence[SourceEvent]) -> list[NewEvent]:
    """Events as facts: who, when, and the state before and after (L20)."""
    made = []
    state = before
    for event in events:
        after = state.evolved(event)
        type_, actor, at = kind_of(event, otherwise=CLOCKWORK)
        data = {"event": msgspec.to_builtins(event), "before": state_document(state), "after": state_document(after)}
        made.append(NewEvent(type_, data, actor, at))
        state = after
    return made


def _fence_document(ends: LogEnds) -> dict[str, dict[str, int]]:
    document: dict[str, dict[str, int]] = {}
    for (topic, partition), end in ends.items():
        document.setdefault(topic, {})[str(partition)] = end
    return document


def _fence(document: Mapping[str, Mapping[str, int]]) -> LogEnds:
    return {
        (topic, int(partition)): end for topic, partitions in document.items() for partition, end in partitions.items()
    }
