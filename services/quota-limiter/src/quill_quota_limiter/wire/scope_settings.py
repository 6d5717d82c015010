"""Scope settings over HTTP and in events: what a person may set, and how it reads."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from quill_contracts.identifiers import Currency, Quantity, TeamId, UsageKey

from quill_quota_limiter.domain.scope import PROJECT_PREFIX, TEAM_PREFIX, Cap, LimitScope, ScopeSettings
from quill_quota_limiter.wire.rules import Actor, Reason

SCOPES_MAX: Final = 500
TEAMS_PER_PROJECT_MAX: Final = 500
METERS_PER_SCOPE_MAX: Final = 50
MONEY_MINOR_MAX: Final = 10**15 - 1

_PROJECT_ID: Final = r"project:[A-Za-z0-9_.-]{1,100}"
ScopeName = Annotated[str, Field(max_length=205, pattern=rf"^(team:[^\x00]{{1,200}}|{_PROJECT_ID})$")]


class MoneyAsked(BaseModel):
    """An amount in minor units (cents)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount_minor: Annotated[int, Field(ge=0, le=MONEY_MINOR_MAX, strict=True)]
    currency: Currency = "usd"


class CapAsked(BaseModel):
    """Either units or money, per billing period."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    units: Quantity | None = None
    money: MoneyAsked | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "CapAsked":
        if (self.units is None) == (self.money is None):
            raise ValueError(
                'give either units, e.g. {"units": 5000}, or money, e.g. {"money": {"amount_minor": 5000}}'
            )
        return self


Caps = Annotated[dict[UsageKey, CapAsked], Field(max_length=METERS_PER_SCOPE_MAX)]


class ScopeAsked(BaseModel):
    """One scope. ``teams`` may be left out for a team: its id says it. A team's null limit lifts ``each_team``'s."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: ScopeName
    kind: Literal["team", "project"]
    teams: Annotated[list[TeamId], Field(min_length=1, max_length=TEAMS_PER_PROJECT_MAX)] | None = None
    limits: Annotated[dict[UsageKey, CapAsked | None], Field(min_length=1, max_length=METERS_PER_SCOPE_MAX)]


class ScopesAsked(BaseModel):
    """The whole list, in place of the one with ``revision`` (0 when nothing was ever set)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: Annotated[int, Field(ge=0, strict=True)]
    scopes: Annotated[list[ScopeAsked], Field(max_length=SCOPES_MAX)]
    each_team: Caps = {}
    actor: Actor
    reason: Reason


class MeaninglessScope(ValueError):
    """A scope that contradicts itself or another; ``attr`` names the field."""

    def __init__(self, message: str, *, attr: str) -> None:
        super().__init__(message)
        self.attr = attr


def to_settings(asked: ScopesAsked) -> ScopeSettings:
    """The settings that were asked for, under the next revision.

    Raises:
        MeaninglessScope: naming the field and the fix.
    """
    places: dict[str, int] = {}
    pooled: dict[str, str] = {}
    scopes = []
    for number, each in enumerate(asked.scopes):
        at = f"scopes__{number}"
        prefix = TEAM_PREFIX if each.kind == "team" else PROJECT_PREFIX
        if not each.id.startswith(prefix):
            raise MeaninglessScope(f"{each.id}: the id of a {each.kind} begins with {prefix!r}", attr=f"{at}__id")
        if each.id in places:
            raise MeaninglessScope(f"{each.id}: is scope {places[each.id]} already; give it once", attr=f"{at}__id")
        places[each.id] = number
        teams = _teams(each, at)
        if each.kind == "project":
            for place, team in enumerate(teams):
                if team in pooled:
                    raise MeaninglessScope(
                        f"team {team} is in {pooled[team]} already; a team is in one project at most",
                        attr=f"{at}__teams__{place}",
                    )
                pooled[team] = each.id
            for usage_key, cap in each.limits.items():
                if cap is None:
                    raise MeaninglessScope(
                        "null lifts each_team's limit for a team; leave it out for a project",
                        attr=f"{at}__limits__{usage_key}",
                    )
        caps = {usage_key: _cap(cap) for usage_key, cap in sorted(each.limits.items())}
        scopes.append(LimitScope(each.id, each.kind, tuple(teams), caps))
    each_team = {usage_key: _cap(cap) for usage_key, cap in sorted(asked.each_team.items())}
    return ScopeSettings(asked.revision + 1, tuple(scopes), each_team)


def _teams(each: ScopeAsked, at: str) -> list[str]:
    if each.kind == "project":
        if each.teams is None:
            raise MeaninglessScope("a project names the teams that it pools", attr=f"{at}__teams")
        if len(set(each.teams)) < len(each.teams):
            raise MeaninglessScope("each team once", attr=f"{at}__teams")
        return each.teams
    team = each.id.removeprefix(TEAM_PREFIX)
    if each.teams not in (None, [team]):
        raise MeaninglessScope(f"a team limits itself alone: leave it out, or give [{team!r}]", attr=f"{at}__teams")
    return [team]


def _cap(asked: CapAsked | None) -> Cap:
    if asked is None:
        return Cap()
    if asked.money is not None:
        return Cap(money_minor=asked.money.amount_minor, currency=asked.money.currency)
    return Cap(units=asked.units)
