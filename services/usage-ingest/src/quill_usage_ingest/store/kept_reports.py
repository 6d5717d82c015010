"""Kept reports in Postgres: every distinct content once, with what became of it (L4, L5)."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select

from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_report import ReportName
from quill_usage_ingest.ports import ArrivedReport, KeptReport
from quill_usage_ingest.store import statements
from quill_usage_ingest.store.archived_months import PostgresArchivedMonths
from quill_usage_ingest.store.array_text import (
    column_of_instants,
    column_of_numbers,
    column_of_optional_texts,
    column_of_texts,
)
from quill_usage_ingest.store.claims import claim_of
from quill_usage_ingest.store.kept_bytes import compressed
from quill_usage_ingest.store.months import of_months
from quill_usage_ingest.store.tables import usage_reports

_MICROSECOND: Final = timedelta(microseconds=1)


class PostgresKeptReports(PostgresArchivedMonths):
    """The part of `UsageTransaction` that keeps reports and finds them again."""

    async def known_contents(self, names: Collection[ReportName]) -> dict[ReportName, set[bytes]]:
        if not names:
            return {}
        months = [name.month for name in names]
        parameters = {
            "organization_id": column_of_texts([name.organization_id for name in names]),
            "source": column_of_texts([name.source for name in names]),
            "report_id": column_of_texts([name.report_id for name in names]),
            "month": column_of_instants(months),
        }
        of_names = of_months(statements.KNOWN_CONTENTS, months)
        known: dict[ReportName, set[bytes]] = {}
        for *name, content_hash in await self._connection.execute(of_names, parameters):
            known.setdefault(ReportName(*name), set()).add(content_hash)
        return known

    async def keep_reports(self, reports: Sequence[tuple[ArrivedReport, Verdict]], *, now: datetime) -> None:
        if reports:
            await self._connection.execute(statements.KEEP_REPORTS, {**_columns_of(reports), "received_at": now})

    async def kept_reports(
        self, organization_id: str, *, window_start: datetime | None, after_id: int, limit: int
    ) -> list[KeptReport]:
        if window_start is not None:
            await self._refuse_archived(window_start, window_start + _MICROSECOND)
        columns = [usage_reports.c[name] for name in KeptReport.__dataclass_fields__]
        query = select(*columns).where(
            usage_reports.c.organization_id == organization_id, usage_reports.c.id > after_id
        )
        if window_start is not None:
            query = query.where(usage_reports.c.window_start == window_start)
        # By the organization's index, then sorted: in the order of ids, rows of all other organizations come first.
        rows = await self._connection.execute(query.order_by(usage_reports.c.id + 0).limit(limit))
        return [KeptReport(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's documented accessor


def _columns_of(kept: Sequence[tuple[ArrivedReport, Verdict]]) -> dict[str, Any]:
    reports = [item.report for item, _ in kept]
    arrivals = [item.arrival for item, _ in kept]
    corrections = [report.correction for report in reports]
    return {
        "organization_id": column_of_texts([report.organization_id for report in reports]),
        "source": column_of_texts([report.source for report in reports]),
        "report_id": column_of_texts([report.report_id for report in reports]),
        "content_hash": [report.content_hash for report in reports],
        "window_start": column_of_instants([report.window.start for report in reports]),
        "window_end": column_of_instants([report.window.end for report in reports]),
        "completeness": column_of_texts([report.completeness for report in reports]),
        "as_of": column_of_texts([report.as_of.isoformat() for report in reports]),
        "intake": column_of_texts([arrival.intake for arrival in arrivals]),
        "topic": column_of_optional_texts([arrival.topic for arrival in arrivals]),
        "partition": column_of_numbers([arrival.partition for arrival in arrivals]),
        "log_offset": column_of_numbers([arrival.offset for arrival in arrivals]),
        "verdict": column_of_texts([verdict for _, verdict in kept]),
        "correction_actor": column_of_optional_texts([each.actor if each else None for each in corrections]),
        "correction_reason": column_of_optional_texts([each.reason if each else None for each in corrections]),
        "note": column_of_optional_texts([json.dumps(dict(each.note)) if each.note else None for each in arrivals]),
        "body": [compressed(arrival.body) for arrival in arrivals],
        "claim": [claim_of(arrival, report.counters) for report, arrival in zip(reports, arrivals, strict=True)],
    }
