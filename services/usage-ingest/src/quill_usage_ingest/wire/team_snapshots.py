"""A team's usage as the message that others read (``usage.team-usage.v1``)."""

from quill_contracts.usage import TeamMeterUsage, TeamPeriodUsage, TeamUsageSnapshot

from quill_usage_ingest.domain.team_usage import TeamName, TeamUsage


def to_wire_team_usage(team: TeamName, usage: TeamUsage) -> TeamUsageSnapshot:
    """The snapshot of a team whose revision is above 0."""
    return TeamUsageSnapshot(
        organization_id=team.organization_id,
        team_id=team.team_id,
        revision=usage.revision,
        periods=[
            TeamPeriodUsage(
                period_start=held.period.start,
                period_end=held.period.end,
                meters={
                    meter: TeamMeterUsage(complete=used.complete, partial=used.partial)
                    for meter, used in sorted(held.meters.items())
                },
            )
            for held in usage.periods
        ],
    )
