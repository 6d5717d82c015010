"""What capture services let through and dropped, as they report it; kept by id, added up per billing period."""

from datetime import datetime
from typing import Literal

from quill_runtime.database import Database
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from quill_quota_limiter.domain.drop_report import DropReport, DropTotals
from quill_quota_limiter.store import tables

Verdict = Literal["new", "repeat", "conflict"]


class DropReports:
    """The table of drop reports; one transaction each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, report: DropReport, *, now: datetime) -> Verdict:
        """Keep a report unless its id was used: by the same content, or by another."""
        table = tables.drop_reports
        row = {
            "organization_id": report.organization_id,
            "report_id": report.report_id,
            "usage_key": report.usage_key,
            "source": report.source,
            "window_start": report.window_start,
            "window_end": report.window_end,
            "allowed": report.allowed,
            "dropped": report.dropped,
        }
        async with self._database.begin() as transaction:
            statement = insert(table).values(**row, received_at=now).on_conflict_do_nothing()
            is_new = await transaction.connection.scalar(statement.returning(table.c.report_id))
            if is_new is not None:
                return "new"
            kept = await transaction.connection.execute(
                select(*(table.c[name] for name in row)).where(
                    table.c.organization_id == report.organization_id, table.c.report_id == report.report_id
                )
            )
            return "repeat" if dict(kept.one()._mapping) == row else "conflict"  # noqa: SLF001 - its public name

    async def totals(self, organization_id: str, *, start: datetime, end: datetime) -> dict[str, DropTotals]:
        """Sums by meter over reports whose window starts in the half-open span."""
        table = tables.drop_reports
        async with self._database.begin() as transaction:
            rows = await transaction.connection.execute(
                select(
                    table.c.usage_key,
                    func.sum(table.c.allowed).label("allowed"),
                    func.sum(table.c.dropped).label("dropped"),
                    func.count().label("reports"),
                )
                .where(
                    table.c.organization_id == organization_id,
                    table.c.window_start >= start,
                    table.c.window_start < end,
                )
                .group_by(table.c.usage_key)
                .order_by(table.c.usage_key)
            )
            return {row.usage_key: DropTotals(int(row.allowed), int(row.dropped), row.reports) for row in rows}


class MemoryDropReports:
    """The same without Postgres, for unit tests."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], DropReport] = {}

    async def keep(self, report: DropReport, *, now: datetime) -> Verdict:
        del now
        key = (report.organization_id, report.report_id)
        if key not in self._kept:
            self._kept[key] = report
            return "new"
        return "repeat" if self._kept[key] == report else "conflict"

    async def totals(self, organization_id: str, *, start: datetime, end: datetime) -> dict[str, DropTotals]:
        totals: dict[str, DropTotals] = {}
        for report in self._kept.values():
            if report.organization_id == organization_id and start <= report.window_start < end:
                before = totals.get(report.usage_key, DropTotals(0, 0, 0))
                totals[report.usage_key] = DropTotals(
                    before.allowed + report.allowed, before.dropped + report.dropped, before.reports + 1
                )
        return dict(sorted(totals.items()))
