"""What kept reports claim, read back as domain values: the ground that explanations and corrections stand on (L5)."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from quill_runtime.database import Transaction
from sqlalchemy import Row, func, select, update

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.generation import GENERATION_OF_INTAKE
from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_report import Correction, UsageReport, UsageWindow
from quill_usage_ingest.ports import Arrival, KeptClaim, KeptReport
from quill_usage_ingest.store.archived_months import PostgresArchivedMonths
from quill_usage_ingest.store.generation_marks import mark_comparisons_of_kept
from quill_usage_ingest.store.kept_bytes import compressed, decompressed
from quill_usage_ingest.store.tables import usage_reports
from quill_usage_ingest.store.team_marks import mark_team_rebuilds

NATIVE_INTAKE: Final = "kafka"
"""Its bytes are the claim: a message of ``usage.reports.v1``."""
CLAIMS_MAX: Final = 50_000
"""Reports of one organization that one read may return: a month of half-hourly ones from thirty sources."""

_Counters = dict[str, int]
_counters_decoder: Final = msgspec.json.Decoder(_Counters)


class _Native(msgspec.Struct):
    counters: _Counters


_native_decoder: Final = msgspec.json.Decoder(_Native)


class TooManyClaims(Exception):
    """More reports than one answer can weigh; ask for a shorter span or one source."""


class UnreadableClaim(Exception):
    """A report kept before claims were: its bytes alone do not say which of its numbers counted."""

    def __init__(self, kept_id: int) -> None:
        super().__init__(f"report {kept_id} was kept without its claim, before claims were kept; recount it instead")
        self.kept_id = kept_id


def claim_of(arrival: Arrival, counters: Mapping[str, int]) -> bytes | None:
    """What to keep beside the bytes; None when the bytes are the claim."""
    if arrival.intake == NATIVE_INTAKE:
        return None
    return compressed(msgspec.json.encode(dict(counters)))


class PostgresClaims(PostgresArchivedMonths):
    """Kept claims on one open transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    async def kept_claims(
        self, organization_id: str, start: datetime, end: datetime, *, source: str | None = None
    ) -> list[KeptClaim]:
        await self._refuse_archived(start, end)
        query = select(usage_reports).where(
            usage_reports.c.organization_id == organization_id,
            usage_reports.c.window_start >= start,
            usage_reports.c.window_start < end,
        )
        if source is not None:
            query = query.where(usage_reports.c.source == source)
        rows = (await self._connection.execute(query.order_by(usage_reports.c.id).limit(CLAIMS_MAX + 1))).all()
        if len(rows) > CLAIMS_MAX:
            raise TooManyClaims(f"more than {CLAIMS_MAX} reports; ask for a shorter span, or for one source")
        return [_kept_claim(row) for row in rows]

    async def kept_claims_after(
        self, organization_id: str, start: datetime, end: datetime, *, after_id: int, limit: int
    ) -> list[KeptClaim]:
        await self._refuse_archived(start, end)
        rows = await self._connection.execute(
            select(usage_reports)
            .where(
                usage_reports.c.organization_id == organization_id,
                usage_reports.c.window_start >= start,
                usage_reports.c.window_start < end,
                usage_reports.c.id > after_id,
            )
            .order_by(usage_reports.c.id + 0)
            .limit(limit)
        )
        return [_kept_claim(row) for row in rows]

    async def kept_reports_of_ids(self, organization_id: str, kept_ids: Collection[int]) -> dict[int, KeptReport]:
        columns = [usage_reports.c[name] for name in KeptReport.__dataclass_fields__]
        rows = await self._connection.execute(
            select(*columns).where(
                usage_reports.c.id == func.any(sorted(kept_ids)), usage_reports.c.organization_id == organization_id
            )
        )
        return {row.id: KeptReport(**row._mapping) for row in rows}  # noqa: SLF001 - SQLAlchemy's documented accessor

    async def set_verdict(self, kept_ids: Collection[int], verdict: Verdict) -> None:
        if kept_ids:
            await self._connection.execute(
                update(usage_reports)
                .where(usage_reports.c.id == func.any(sorted(kept_ids)))
                .values(verdict=verdict.value)
            )
            await mark_team_rebuilds(self._connection, kept_ids)
            await mark_comparisons_of_kept(self._connection, kept_ids, intakes=GENERATION_OF_INTAKE)


def _kept_claim(row: Row[Any]) -> KeptClaim:
    body = decompressed(row.body)
    kept = KeptReport(**{name: row._mapping[name] for name in KeptReport.__dataclass_fields__})  # noqa: SLF001 - SQLAlchemy's documented accessor
    correction = Correction(row.correction_actor, row.correction_reason) if row.correction_actor else None
    report = UsageReport(
        report_id=row.report_id,
        organization_id=row.organization_id,
        source=row.source,
        window=UsageWindow(row.window_start, row.window_end),
        completeness=Completeness(row.completeness),
        as_of=row.as_of,
        counters=_counters(row, body),
        content_hash=row.content_hash,
        correction=correction,
    )
    return KeptClaim(kept, report, body)


def _counters(row: Row[Any], body: bytes) -> _Counters:
    if row.claim is not None:
        return _counters_decoder.decode(decompressed(row.claim))
    if row.intake != NATIVE_INTAKE:
        raise UnreadableClaim(row.id)
    return _native_decoder.decode(body).counters
