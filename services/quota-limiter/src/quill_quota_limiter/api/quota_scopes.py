"""Quota checks of teams, projects and tokens: which scopes bind who asked, and which places of a list they limit."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from quill_runtime.problems import Problem

from quill_quota_limiter.domain.quota_answer import OrganizationStanding
from quill_quota_limiter.ports import Reading

SCOPES_LISTED_MAX: Final = 20


def scopes_asked(standing: OrganizationStanding | None, name: str, by: str, part: str | None) -> tuple[str, ...] | None:
    """What binds who asked beside the organization; ``None``: the organization asked, or has no scopes.

    Raises:
        Problem: 404 when the organization is known and has no such scope.
    """
    if standing is None or by == "organization":
        return None
    scopes = standing.scopes
    if by == "token":
        return None if scopes is None else scopes.scopes_of_token(name)
    assert part is not None, "asked before anything was looked up"
    if by == "team":
        return () if scopes is None else scopes.teams.get(part, ())
    if scopes is None or part not in scopes.meters:
        known = ", ".join(sorted(scopes.meters if scopes else ())[:SCOPES_LISTED_MAX]) or "none"
        raise Problem(404, "unknown_scope", f"this organization has no scope {part!r}; known: {known}", attr="scope")
    return (part,)


def with_scopes(
    limited: list[int],
    *,
    tokens: Sequence[str],
    organizations: Sequence[str],
    usage_key: str,
    reading: Reading,
    now: datetime,
) -> list[int]:
    """The places that are limited, those of tokens whose team's or project's limit is reached too."""
    standings = reading.standings
    if reading.limits is not None:
        scoped = reading.limits.scoped
    else:
        scoped = {name for name, standing in standings.items() if standing.scopes is not None}
    if not scoped:
        return limited
    more = [
        place
        for place, name in enumerate(organizations)
        if name in scoped
        and (scopes := standings[name].scopes) is not None
        and usage_key in standings[name].meters
        and any(
            standing.is_limited(now)
            for _, standing in scopes.standings(usage_key, scopes.scopes_of_token(tokens[place]))
        )
    ]
    return sorted({*limited, *more}) if more else limited


def next_end(standing: OrganizationStanding, usage_key: str, scopes: Sequence[str], now: datetime) -> datetime | None:
    """When the first of the limits that make an answer ends, if one does."""
    meters = [meter for meter in (standing.meters.get(usage_key),) if meter is not None]
    if standing.scopes is not None:
        meters += [meter for _, meter in standing.scopes.standings(usage_key, scopes)]
    return min((m.limited_until for m in meters if m.limited_until is not None and now < m.limited_until), default=None)
