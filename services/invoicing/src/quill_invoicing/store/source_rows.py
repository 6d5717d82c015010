"""Sources of usage, whose they are, and the closings that wait for them."""

from collections.abc import Collection
from datetime import datetime

from quill_pricing.period import BillingPeriod
from quill_runtime.database import Transaction
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_invoicing.domain.completeness_gate import HeldClosing, SourceStanding
from quill_invoicing.store.documents import standing_document, standing_from_document
from quill_invoicing.store.tables import held_closings, organization_sources, usage_sources


class SourceRows:
    """The part of a transaction on Postgres that knows sources."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def save_standing(self, standing: SourceStanding) -> bool:
        values = {"revision": standing.revision, "document": standing_document(standing)}
        saved = await self._connection.scalar(
            insert(usage_sources)
            .values(source=standing.source, **values)
            .on_conflict_do_update(
                index_elements=["source"], set_=values, where=usage_sources.c.revision < standing.revision
            )
            .returning(usage_sources.c.source)
        )
        return saved is not None

    async def standings(self, *, expected_only: bool = False) -> dict[str, SourceStanding]:
        query = select(usage_sources)
        if expected_only:
            query = query.where(usage_sources.c.document["is_expected"].as_boolean())
        rows = await self._connection.execute(query)
        return {row.source: standing_from_document(row.source, row.revision, row.document) for row in rows}

    async def know_sources(self, organization_id: str, names: Collection[str]) -> None:
        if not names:
            return
        upsert = insert(organization_sources).values(organization_id=organization_id, sources=sorted(names))
        # Names only ever join, so whichever list holds the other is the newer one.
        await self._connection.execute(
            upsert.on_conflict_do_update(
                index_elements=["organization_id"],
                set_={"sources": upsert.excluded.sources},
                where=~organization_sources.c.sources.contains(upsert.excluded.sources),
            )
        )

    async def sources_of(self, organization_id: str) -> frozenset[str]:
        held = await self._connection.scalar(
            select(organization_sources.c.sources).where(organization_sources.c.organization_id == organization_id)
        )
        return frozenset(held or ())

    async def hold_closing(self, held: HeldClosing, *, look_again_at: datetime) -> bool:
        key = (
            held_closings.c.organization_id == held.organization_id,
            held_closings.c.period_start == held.period.start,
        )
        known = await self._connection.scalar(select(held_closings.c.missing).where(*key))
        values = {
            "period_end": held.period.end,
            "missing": list(held.missing),
            "look_again_at": look_again_at,
        }
        await self._connection.execute(
            insert(held_closings)
            .values(organization_id=held.organization_id, period_start=held.period.start, since=held.since, **values)
            .on_conflict_do_update(index_elements=["organization_id", "period_start"], set_=values)
        )
        return known is None or tuple(known) != held.missing

    async def release_closing(self, organization_id: str, period_start: datetime) -> bool:
        result = await self._connection.execute(
            delete(held_closings).where(
                held_closings.c.organization_id == organization_id, held_closings.c.period_start == period_start
            )
        )
        return result.rowcount > 0

    async def look_at_held_again(self, source: str, *, now: datetime) -> None:
        await self._connection.execute(
            update(held_closings).where(held_closings.c.missing.has_key(source)).values(look_again_at=now)
        )

    async def held_closings(self, *, limit: int) -> list[HeldClosing]:
        rows = await self._connection.execute(
            select(held_closings)
            .order_by(held_closings.c.since, held_closings.c.organization_id, held_closings.c.period_start)
            .limit(limit)
        )
        return [
            HeldClosing(
                row.organization_id, BillingPeriod(row.period_start, row.period_end), tuple(row.missing), row.since
            )
            for row in rows
        ]

    async def count_held(self) -> int:
        return await self._connection.scalar(select(func.count()).select_from(held_closings)) or 0
