"""Reading sources from Postgres: what is known of them, what waits, what is parked."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import msgspec
from quill_runtime.database import Transaction
from quill_runtime.event_store import PostgresEventStream
from sqlalchemy import Row, func, or_, select

from quill_usage_ingest.domain.freshness import ParkedGroup
from quill_usage_ingest.domain.usage_source import UsageSource
from quill_usage_ingest.domain.watermark import WatermarkClaim
from quill_usage_ingest.store.source_events import event_from
from quill_usage_ingest.store.source_tables import parked_reports, usage_sources, watermark_claims

CLAIMS_MAX: Final = 10_000
"""Claims looked at in one transaction; those behind wait for the next look."""
PARKED_GROUPS_MAX: Final = 10_000


class PostgresSourceViews:
    """`SourceViews` on one open transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._events = PostgresEventStream(transaction)

    async def sources(self, names: Collection[str] | None = None) -> dict[str, UsageSource]:
        query = select(usage_sources).order_by(usage_sources.c.source)
        if names is not None:
            query = query.where(usage_sources.c.source == func.any(sorted(names)))
        return {row.source: source_of_row(row) for row in await self._connection.execute(query)}

    async def sources_as_of(self, names: Collection[str], at: datetime) -> dict[str, UsageSource]:
        found = {}
        for name in sorted(names):
            stored = await self._events.read(stream_of(name), as_of=at)
            source = UsageSource(source=name)
            for event in stored:
                source = source.evolved(event_from(event.type, event.data["event"]))
            if stored:
                found[name] = source
        return found

    async def waiting_claims(self, source: str | None = None) -> list[WatermarkClaim]:
        query = select(watermark_claims.c.claim).order_by(watermark_claims.c.id).limit(CLAIMS_MAX)
        if source is not None:
            query = query.where(watermark_claims.c.source == source)
        rows = await self._connection.execute(query)
        return [msgspec.convert(row.claim, WatermarkClaim) for row in rows]

    async def parked_groups(
        self, organization_id: str, sources: Collection[str], *, at: datetime | None = None
    ) -> list[ParkedGroup]:
        held = parked_reports.c
        is_parked = (
            held.gone_at.is_(None)
            if at is None
            else (held.parked_at <= at) & or_(held.gone_at.is_(None), held.gone_at > at)
        )
        is_theirs = (held.organization_id == organization_id) | (
            held.organization_id.is_(None) & (held.source == func.any(sorted(sources)))
        )
        rows = await self._connection.execute(
            select(held.source, held.window_start, func.count().label("letters"))
            .where(is_parked, is_theirs)
            .group_by(held.source, held.window_start)
            .limit(PARKED_GROUPS_MAX)
        )
        return [ParkedGroup(row.source, row.window_start, row.letters) for row in rows]


def stream_of(source: str) -> str:
    """The event stream of one source."""
    return f"usage-source:{source}"


def source_of_row(row: Row[Any]) -> UsageSource:
    """The source that a row holds."""
    fields = {**row.document, "source": row.source, "version": row.version, "revision": row.revision}
    return msgspec.convert({**fields, "parked": row.parked}, UsageSource)
