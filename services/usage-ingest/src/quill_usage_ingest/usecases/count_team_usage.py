"""Add up what marked teams used and keep it under a new revision where it is another number (L2, L10)."""

from collections.abc import Collection
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.team_usage import TeamMeters, TeamName, TeamSpan, is_out_of_reach, periods_to_count
from quill_usage_ingest.ports import TeamUsageTransaction


async def count_team_usage(
    organization_ids: Collection[str] | None, *, tx: TeamUsageTransaction, now: datetime, limit: int
) -> int:
    """Work off the marks of these organizations' teams, or of all; returns how many.

    Cells are added up by the catalog and the schedule of this moment; whoever changes either marks the teams again. A
    team of an organization nobody knows has no period, so nothing of it is published.
    """
    marked = await tx.take_marked_teams(organization_ids, limit=limit)
    if not marked:
        return 0
    archived = await tx.archived_months()
    schedules = await tx.schedules_of({team.organization_id for team in marked})
    meters = MeterMap.of(await tx.metered_products())
    spans = [
        TeamSpan(team, period)
        for team in marked
        if team.organization_id in schedules
        for period in periods_to_count(schedules[team.organization_id], now)
    ]
    sums = await tx.team_sums([span for span in spans if not is_out_of_reach(span.period, archived)], meters)
    by_team: dict[TeamName, dict[BillingPeriod, TeamMeters | None]] = {team: {} for team in marked}
    for span in spans:
        by_team[span.team][span.period] = None if is_out_of_reach(span.period, archived) else sums.get(span, {})
    await tx.save_team_usage({team: usage.counted_anew(by_team[team]) for team, usage in marked.items()})
    return len(marked)
