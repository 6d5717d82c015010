"""Which days two generations of reports must be compared again, marked together with what was said (L4)."""

from collections.abc import Collection
from typing import Final

from quill_runtime.database import Transaction
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.usage_report import UsageReport

# A source that never announced a run has one generation and nothing to compare: self-hosted instances cost no mark.
_MARK: Final[TextClause] = text(
    """
    insert into generation_marks (organization_id, day, source)
    select distinct k.organization_id, k.day, k.source
    from unnest(cast(:organization_ids as text[]), cast(:days as timestamptz[]), cast(:sources as text[]))
             as k(organization_id, day, source)
    where exists (select from report_runs as r where r.source = k.source)
    """
)
_MARK_KEPT: Final[TextClause] = text(
    """
    insert into generation_marks (organization_id, day, source)
    select distinct u.organization_id, date_trunc('day', u.window_start, 'UTC'), u.source
    from usage_reports as u
    where u.id = any(cast(:kept_ids as bigint[])) and u.intake = any(cast(:intakes as text[]))
      and exists (select from report_runs as r where r.source = u.source)
    """
)


async def mark_comparisons(transaction: Transaction, reports: Collection[UsageReport]) -> None:
    """Mark the days of complete reports of either generation; partial ones decide nothing yet."""
    keys = {report.day_key for report in reports if report.completeness is Completeness.COMPLETE}
    if keys:
        parameters = {
            "organization_ids": [key.organization_id for key in keys],
            "days": [key.day for key in keys],
            "sources": [key.source for key in keys],
        }
        await transaction.connection.execute(_MARK, parameters)


async def mark_comparisons_of_kept(
    connection: AsyncConnection, kept_ids: Collection[int], *, intakes: Collection[str]
) -> None:
    """Mark the days of kept reports, in the transaction that changed whether they count."""
    await connection.execute(_MARK_KEPT, {"kept_ids": sorted(kept_ids), "intakes": sorted(intakes)})
