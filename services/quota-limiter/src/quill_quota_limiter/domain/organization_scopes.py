"""The scopes of one organization as they stand: what was set, what was decided, whom it concerns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quill_quota_limiter.domain.meter_limit import MeterLimit
from quill_quota_limiter.domain.scope import ScopeSettings
from quill_quota_limiter.domain.team_usage import TeamUsage


@dataclass(frozen=True, slots=True)
class OrganizationScopes:
    """Part of an organization's one row, and of its revision.

    Attributes:
        settings: what a person set.
        limits: scope, then meter. A scope that was removed stays, released, so that its log goes on when it comes back.
        teams: the scopes of each team that has any, the wider one first.
        tokens: the team of each project token in use whose team has a scope.
    """

    settings: ScopeSettings = field(default_factory=ScopeSettings)
    limits: Mapping[str, Mapping[str, MeterLimit]] = field(default_factory=dict)
    teams: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)

    def in_force(self) -> dict[str, Mapping[str, MeterLimit]]:
        """The limits that bind somebody now, without those that were removed."""
        bound = {name for names in self.teams.values() for name in names}
        return {name: self.limits[name] for name in sorted(bound) if self.limits.get(name)}


@dataclass(frozen=True, slots=True)
class ScopeFacts:
    """What the scopes of one organization are decided from, beside its settings and its billing period.

    Attributes:
        usage: by team, the newest revision.
        tokens: the team of each project token in use that has one.
        prices: the price document of each meter; empty unless a cap is in money.
    """

    usage: Mapping[str, TeamUsage] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
