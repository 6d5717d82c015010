"""Limits of teams and projects in the messages of an organization, and what teams used."""

from typing import Final

from quill_contracts.identifiers import QUANTITY_MAX
from quill_contracts.limits import SCOPES_PER_MESSAGE_MAX, LimitState, ScopeStates
from quill_contracts.limits import ScopeEvidence as WireScopeEvidence
from quill_contracts.limits import TeamUsed as WireTeamUsed
from quill_contracts.usage import TeamUsageSnapshot

from quill_quota_limiter.domain.limit_state import ScopeEvidence, TeamUsed
from quill_quota_limiter.domain.meter_limit import MeterLimit
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes
from quill_quota_limiter.domain.scope import PROJECT_PREFIX
from quill_quota_limiter.domain.team_usage import TeamQuantities, TeamUsage

SCOPE_BYTES_PER_MESSAGE_MAX: Final = 500_000
"""Half of what a Kafka record may hold; the organization's own states need little of the other half."""


def from_wire_team_usage(snapshot: TeamUsageSnapshot) -> TeamUsage:
    """Quantities that scopes are compared with: complete days and today together (L6)."""
    return TeamUsage(
        organization_id=snapshot.organization_id,
        team_id=snapshot.team_id,
        revision=snapshot.revision,
        periods=tuple(
            TeamQuantities(
                period.period_start,
                {key: min(meter.complete + meter.partial, QUANTITY_MAX) for key, meter in period.meters.items()},
            )
            for period in snapshot.periods
        ),
    )


def to_wire_state(meter: MeterLimit) -> LimitState:
    """One limit: its state from the log, with the numbers and the rule of the newest evaluation."""
    return LimitState(
        state=meter.state.name,
        usage=meter.usage,
        quota=meter.quota,
        limited_until=meter.state.limited_until,
        suspended_until=meter.state.suspended_until,
        rule=meter.rule,
        rule_version=meter.rule_version,
        since=meter.state.since,
    )


def to_wire_scopes(scopes: OrganizationScopes | None) -> tuple[list[ScopeStates], int]:
    """The scopes in force, those that are limited first, and how many do not fit into a message."""
    if scopes is None:
        return [], 0
    in_force = scopes.in_force()
    teams: dict[str, list[str]] = {}
    for team, names in scopes.teams.items():
        for name in names:
            teams.setdefault(name, []).append(team)
    limited = {name for name, meters in in_force.items() if any(meter.state.limited_until for meter in meters.values())}
    found: list[ScopeStates] = []
    room = SCOPE_BYTES_PER_MESSAGE_MAX
    for name in sorted(in_force, key=lambda name: (name not in limited, name)):
        each = ScopeStates(
            scope=name,
            kind="project" if name.startswith(PROJECT_PREFIX) else "team",
            teams=teams[name],
            states={usage_key: to_wire_state(meter) for usage_key, meter in in_force[name].items()},
        )
        room -= len(each.model_dump_json())
        if room < 0 or len(found) == SCOPES_PER_MESSAGE_MAX:
            break
        found.append(each)
    return found, len(in_force) - len(found)


def to_wire_scope_evidence(evidence: ScopeEvidence) -> WireScopeEvidence:
    """What only a scope's decision looked at."""
    return WireScopeEvidence(
        settings_revision=evidence.settings_revision,
        money_minor=evidence.money_minor,
        currency=evidence.currency,
        teams={
            team: WireTeamUsed(usage=used.usage, usage_revision=used.usage_revision)
            for team, used in evidence.teams.items()
        },
    )


def from_wire_scope_evidence(message: WireScopeEvidence) -> ScopeEvidence:
    """The evidence a message tells of."""
    return ScopeEvidence(
        settings_revision=message.settings_revision,
        money_minor=message.money_minor,
        currency=message.currency,
        teams={team: TeamUsed(used.usage, used.usage_revision) for team, used in message.teams.items()},
    )
