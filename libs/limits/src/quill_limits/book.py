"""What is known of limits, and the answers that follow from it. No network and no clock in here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Unknown = Literal["allow", "deny"]
ORGANIZATION = "organization"
_SEVERITIES = {"within": 0, "near": 1, "suspended": 2, "limited": 3}


class LimitsNotLoaded(RuntimeError):
    """Nothing was loaded yet, so nothing can be said; and nothing may be allowed by accident."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Where one meter of one organization stands; instants are epoch seconds, usage is as of the last change."""

    state: str
    usage: int
    quota: int | None
    limited_until: float | None
    suspended_until: float | None

    def is_limited(self, at: float) -> bool:
        """A limit whose end has passed is none any more; nobody has to say so."""
        return self.limited_until is not None and at < self.limited_until

    def tightness(self, at: float) -> tuple[int, float, bool, int]:
        """Larger is tighter: the most severe state, then what ends last, then the fewest units left."""
        is_over = self.state == "limited" and not self.is_limited(at)
        severity = 0 if is_over else _SEVERITIES.get(self.state, 0)
        end = self.limited_until or self.suspended_until
        quota = self.quota
        left = 0 if quota is None else self.usage - quota
        return severity, end if end is not None and not is_over else 0.0, quota is not None, left


@dataclass(frozen=True, slots=True)
class Scopes:
    """Limits of an organization's teams and projects.

    Attributes:
        limits: scope, then meter.
        teams: the scopes of each team that has any, the wider one first.
        tokens: the team of each project token whose team has a scope.
    """

    limits: Mapping[str, Mapping[str, Limit]]
    teams: Mapping[str, tuple[str, ...]]
    tokens: Mapping[str, str]

    def of_team(self, team: str, usage_key: str) -> list[tuple[str, Limit | None]]:
        """The team's scopes with their limits on a meter."""
        return [(scope, self.limits.get(scope, {}).get(usage_key)) for scope in self.teams.get(team, ())]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``known`` false: nobody knows this organization, token or meter, and the policy for that answered.

    ``scope`` says whose limit ``limit`` is: the organization's, or its team's or project's.
    """

    limited: bool
    known: bool
    organization_id: str | None = None
    limit: Limit | None = None
    scope: str = ORGANIZATION


@dataclass(frozen=True, slots=True)
class _Known:
    revision: int
    limits: Mapping[str, Limit]
    scopes: Scopes | None = None


class LimitsBook:
    """Limits by organization and scope, organizations by project token. Not to be changed from two threads at once.

    ``unknown`` answers about who is not known; ``None`` leaves that to the service.
    """

    def __init__(self, *, unknown: Unknown | None = None) -> None:
        self._unknown_asked = unknown
        self._unknown: Unknown = unknown or "deny"
        self._organizations: dict[str, _Known] = {}
        self._owners: dict[str, str] = {}
        self._tokens: dict[str, set[str]] = {}
        self._seen: set[str] | None = None
        self.is_loaded = False

    def check(
        self,
        usage_key: str,
        *,
        organization: str | None = None,
        token: str | None = None,
        team: str | None = None,
        at: float,
    ) -> Verdict:
        """The answer at an instant in epoch seconds, with what it follows from.

        By token, and with ``team`` for a team of the organization, it is the tightest of the limits of the
        organization, the project and the team.

        Raises:
            LimitsNotLoaded: before the first snapshot.
        """
        if not self.is_loaded:
            raise LimitsNotLoaded("no snapshot was received yet; wait_until_loaded() first")
        name = organization if organization is not None else self._owners.get(token or "")
        known = self._organizations.get(name) if name is not None else None
        limit = known.limits.get(usage_key) if known is not None else None
        if limit is None:
            return Verdict(self._unknown == "deny", known=False, organization_id=name)
        if known is not None and known.scopes is not None and (token is not None or team is not None):
            of = team if team is not None else known.scopes.tokens.get(token or "", "")
            whose, limit = _tightest(limit, known.scopes.of_team(of, usage_key), at)
            return Verdict(limit.is_limited(at), known=True, organization_id=name, limit=limit, scope=whose)
        return Verdict(limit.is_limited(at), known=True, organization_id=name, limit=limit)

    def __len__(self) -> int:
        return len(self._organizations)

    def take(self, kind: str, content: Mapping[str, Any]) -> None:
        """Apply one event of the stream. Kinds and members that are not known yet are passed over."""
        match kind:
            case "snapshot":
                self._seen = set() if content["kind"] == "whole" else None
                if self._unknown_asked is None:
                    self._unknown = content["unknown"]
            case "complete":
                self._complete()
            case "limits":
                self._take_limits(content)
            case "tokens":
                self._take_tokens(content)
            case "gone":
                self._forget(content["organization_id"])

    def interrupt(self) -> None:
        """The stream broke: a snapshot that was coming is not one, and forgets nobody."""
        self._seen = None

    def _complete(self) -> None:
        if self._seen is not None:
            for name in self._organizations.keys() - self._seen:
                self._forget(name)
        self._seen = None
        self.is_loaded = True

    def _take_limits(self, content: Mapping[str, Any]) -> None:
        name, revision = content["organization_id"], content["revision"]
        if self._seen is not None:
            self._seen.add(name)
        known = self._organizations.get(name)
        if known is None or revision >= known.revision:
            scopes = content.get("scopes")
            self._organizations[name] = _Known(
                revision, _limits(content["meters"]), None if scopes is None else _scopes(scopes)
            )

    def _take_tokens(self, content: Mapping[str, Any]) -> None:
        name: str = content["organization_id"]
        owned = self._tokens.setdefault(name, set())
        if content.get("replaces"):
            self._drop(name, owned - set(content["active"]))
        self._drop(name, content["retired"])
        for token in content["active"]:
            before = self._owners.get(token)
            if before is not None and before != name:
                self._tokens[before].discard(token)
            self._owners[token] = name
            owned.add(token)

    def _drop(self, name: str, tokens: Iterable[str]) -> None:
        for token in list(tokens):
            if self._owners.get(token) == name:
                del self._owners[token]
                self._tokens[name].discard(token)

    def _forget(self, name: str) -> None:
        self._organizations.pop(name, None)
        self._drop(name, self._tokens.get(name, ()))
        self._tokens.pop(name, None)


def _tightest(own: Limit, scopes: Iterable[tuple[str, Limit | None]], at: float) -> tuple[str, Limit]:
    """Whose limit holds, and the limit; between equals the wider scope's, which is the order they come in."""
    whose, best = ORGANIZATION, own
    for scope, limit in scopes:
        if limit is not None and limit.tightness(at) > best.tightness(at):
            whose, best = scope, limit
    return whose, best


def _scopes(content: Mapping[str, Any]) -> Scopes:
    return Scopes(
        limits={scope: _limits(meters) for scope, meters in content["meters"].items()},
        teams={team: tuple(scopes) for team, scopes in content["teams"].items()},
        tokens=content["tokens"],
    )


def _limits(meters: Mapping[str, Mapping[str, Any]]) -> dict[str, Limit]:
    return {key: _limit(meter) for key, meter in meters.items()}


def _limit(meter: Mapping[str, Any]) -> Limit:
    return Limit(
        state=meter["state"],
        usage=meter["usage"],
        quota=meter["quota"],
        limited_until=_epoch_seconds(meter.get("limited_until")),
        suspended_until=_epoch_seconds(meter.get("suspended_until")),
    )


def _epoch_seconds(instant: str | None) -> float | None:
    return None if instant is None else datetime.fromisoformat(instant).astimezone(UTC).timestamp()
