"""Limits inside an organization that people set: on a team, on a project that pools teams, on each team alike (L10)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

ORGANIZATION: Final = "organization"
"""What an answer names when the organization's own limit is the tightest."""
TEAM_PREFIX: Final = "team:"
PROJECT_PREFIX: Final = "project:"

ScopeKind = Literal["team", "project"]


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so much of one meter in a billing period: units, or money in minor units; neither is no limit."""

    units: int | None = None
    money_minor: int | None = None
    currency: str | None = None

    def document(self) -> dict[str, Any] | None:
        """As a person writes it; ``None`` for no limit."""
        if self.money_minor is not None:
            return {"money": {"amount_minor": self.money_minor, "currency": self.currency}}
        return None if self.units is None else {"units": self.units}


@dataclass(frozen=True, slots=True)
class LimitScope:
    """Some teams of an organization and what they may use together, by meter."""

    scope_id: str
    kind: ScopeKind
    teams: tuple[str, ...]
    caps: Mapping[str, Cap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScopeSettings:
    """What a person set for one organization, whole; the revision rises with each change.

    Attributes:
        scopes: limits of named teams and projects. A team is in one project at most.
        each_team: for each team by itself, where the team has no cap of its own on the meter.
    """

    revision: int = 0
    scopes: tuple[LimitScope, ...] = ()
    each_team: Mapping[str, Cap] = field(default_factory=dict)

    @property
    def has_money(self) -> bool:
        """Whether prices are needed to say what the caps are in units."""
        caps = [cap for scope in self.scopes for cap in scope.caps.values()]
        return any(cap.money_minor is not None for cap in (*caps, *self.each_team.values()))

    def document(self) -> dict[str, Any]:
        """As a person writes it, so that what was read can be changed and put back."""
        return {
            "revision": self.revision,
            "scopes": [
                {
                    "id": scope.scope_id,
                    "kind": scope.kind,
                    "teams": list(scope.teams),
                    "limits": {usage_key: cap.document() for usage_key, cap in scope.caps.items()},
                }
                for scope in self.scopes
            ],
            "each_team": {usage_key: cap.document() for usage_key, cap in self.each_team.items()},
        }

    def in_force(self, teams: Collection[str]) -> tuple[LimitScope, ...]:
        """Every scope that limits somebody, by id; ``teams`` are those that ``each_team`` speaks of."""
        scopes = {scope.scope_id: scope for scope in self.scopes}
        if self.each_team:
            for team in {*teams, *(scope.teams[0] for scope in self.scopes if scope.kind == "team")}:
                name = TEAM_PREFIX + team
                own = scopes[name].caps if name in scopes else {}
                scopes[name] = LimitScope(name, "team", (team,), {**self.each_team, **own})
        return tuple(scopes[name] for name in sorted(scopes))

    def named(self, name: str, teams: Collection[str]) -> LimitScope | None:
        """The scope of this name; a team is one too before anybody has set a limit for it."""
        found = next((scope for scope in self.in_force(teams) if scope.scope_id == name), None)
        if found is None and name.startswith(TEAM_PREFIX):
            return LimitScope(name, "team", (name.removeprefix(TEAM_PREFIX),))
        return found


def scopes_of_teams(scopes: Collection[LimitScope]) -> dict[str, tuple[str, ...]]:
    """For each team the scopes it is in, the project before the team itself: the wider one first."""
    found: dict[str, list[str]] = {}
    for scope in sorted(scopes, key=lambda scope: (scope.kind == "team", scope.scope_id)):
        for team in scope.teams:
            found.setdefault(team, []).append(scope.scope_id)
    return {team: tuple(found[team]) for team in sorted(found)}
