"""Enter what reports say of teams, and bring team cells back to what the kept reports say (L1, L3)."""

from collections.abc import Collection, Sequence
from datetime import datetime

from quill_usage_ingest.domain.team_cells import TeamBook, TeamsReport, counted, join_claims
from quill_usage_ingest.domain.usage_month import month_of
from quill_usage_ingest.domain.usage_report import WindowKey
from quill_usage_ingest.ports import TeamTransaction


async def record_teams(claims: Sequence[TeamsReport], *, tx: TeamTransaction, now: datetime) -> int:
    """Merge team counters by rank; returns how many team rows changed. Their teams are marked, to be added up again.

    Team rows are kept whether or not the organization is known: they name no period and no price, and whoever reads
    them must own the organization. A report that was taken out of count enters nothing.

    Raises:
        TooManyCounters: a new counter name found no slot; nothing may be committed.
    """
    naming = [claim for claim in claims if claim.teams]
    if not naming:
        return 0
    # A report about an archived month is parked by those who enter the organization's counters, teams and all.
    archived = await tx.archived_months()
    naming = [claim for claim in naming if month_of(claim.report.window.start) not in archived]
    if not naming:
        return 0
    reports = [claim.report for claim in naming]
    await tx.hold_teams(
        {report.organization_id for report in reports},
        counters={counter for claim in naming for counters in claim.teams.values() for counter in counters},
    )
    naming = counted(naming, await tx.out_of_count({report.name for report in reports}))
    book = TeamBook(await tx.team_rows_of_days({claim.report.day_key for claim in naming}))
    for claim in naming:
        book.enter(claim, now=now)
    await tx.save_team_rows(book.changed_rows)
    await tx.mark_teams({key.team for key in book.changed})
    return len(book.changed)


async def rebuild_team_windows(
    windows: Collection[WindowKey], claims: Sequence[TeamsReport], *, tx: TeamTransaction
) -> int:
    """Make the team rows of these windows again from the claims that count; returns how many rows there are.

    For corrections: called in the transaction that changed which reports count, with the claims of every kept report
    of these windows that still does. Claims of other windows are ignored.

    Raises:
        TooManyCounters: a new counter name found no slot; nothing may be committed.
    """
    wanted = set(windows)
    rows = join_claims(claim for claim in claims if claim.report.window_key in wanted)
    await tx.hold_teams(
        {window.organization_id for window in wanted},
        counters={counter for row in rows.values() for counter in row.cells},
    )
    forgotten = await tx.forget_team_windows(wanted)
    await tx.save_team_rows(rows)
    await tx.mark_teams(forgotten | {key.team for key in rows})
    return len(rows)
