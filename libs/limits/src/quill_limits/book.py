"""What is known of limits, and the answers that follow from it. No network and no clock in here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Unknown = Literal["allow", "deny"]


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """``known`` false: nobody knows this organization, token or meter, and the policy for that answered."""

    limited: bool
    known: bool
    organization_id: str | None = None
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    revision: int
    limits: Mapping[str, Limit]


class LimitsBook:
    """Limits by organization, organizations by project token. Not to be changed from two threads at once.

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

    def check(self, usage_key: str, *, organization: str | None = None, token: str | None = None, at: float) -> Verdict:
        """The answer at an instant in epoch seconds, with what it follows from.

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
        is_limited = limit.limited_until is not None and at < limit.limited_until
        return Verdict(is_limited, known=True, organization_id=name, limit=limit)

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
                self._take_limits(content["organization_id"], content["revision"], content["meters"])
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

    def _take_limits(self, name: str, revision: int, meters: Mapping[str, Mapping[str, Any]]) -> None:
        if self._seen is not None:
            self._seen.add(name)
        known = self._organizations.get(name)
        if known is None or revision >= known.revision:
            self._organizations[name] = _Known(revision, {key: _limit(meter) for key, meter in meters.items()})

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
