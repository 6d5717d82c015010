"""The answer for a part of an organization: the tightest of its own limit, its project's and its team's (L10)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from quill_quota_limiter.domain.limit_state import StateName
from quill_quota_limiter.domain.scope import ORGANIZATION

_SEVERITIES: Final[Mapping[StateName, int]] = {"within": 0, "near": 1, "suspended": 2, "limited": 3}
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class MeterStanding:
    """What a check needs to know of one meter."""

    state: StateName
    usage: int
    quota: int | None
    limited_until: datetime | None = None
    suspended_until: datetime | None = None

    def is_limited(self, now: datetime) -> bool:
        """A limit whose end has passed allows at once, without waiting for the evaluation that will say so (L9)."""
        return self.limited_until is not None and now < self.limited_until


@dataclass(frozen=True, slots=True)
class ScopesStanding:
    """What checks need to know of an organization's scopes.

    Attributes:
        meters: scope, then meter.
        teams: the scopes of each team that has any, the wider one first.
        tokens: the team of each project token whose team has a scope.
    """

    meters: Mapping[str, Mapping[str, MeterStanding]]
    teams: Mapping[str, tuple[str, ...]]
    tokens: Mapping[str, str]

    def scopes_of_token(self, token: str) -> tuple[str, ...]:
        """The scopes that bind a project token's team; none for a token whose team has none."""
        team = self.tokens.get(token)
        return () if team is None else self.teams.get(team, ())

    def standings(self, usage_key: str, scopes: Sequence[str]) -> list[tuple[str, MeterStanding]]:
        """Where these scopes stand on a meter, of those that limit it."""
        named = ((scope, self.meters.get(scope, {}).get(usage_key)) for scope in scopes)
        return [(scope, standing) for scope, standing in named if standing is not None]


def tightest(
    organization: MeterStanding, scopes: Sequence[tuple[str, MeterStanding]], *, now: datetime
) -> tuple[str, MeterStanding]:
    """The limit that holds, and whose it is: the most severe state, then what ends last, then the fewest units left.

    Between equals the wider scope is named, which is the order they come in.
    """
    name, best = ORGANIZATION, organization
    for scope, standing in scopes:
        if tightness(standing, now) > tightness(best, now):
            name, best = scope, standing
    return name, best


def tightness(standing: MeterStanding, now: datetime) -> tuple[int, datetime, bool, int]:
    """Larger is tighter."""
    is_over = standing.state == "limited" and not standing.is_limited(now)
    severity = 0 if is_over else _SEVERITIES[standing.state]
    end = standing.limited_until or standing.suspended_until
    lasts = _NEVER if end is None or is_over else end
    quota = standing.quota
    return severity, lasts, quota is not None, 0 if quota is None else standing.usage - quota
