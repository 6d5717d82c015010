"""The standings of all organizations in this process: what quota checks are answered from.

It holds nothing of its own. It is loaded from the board, or from the store while the board is away, and follows the
board's changes; an older revision never replaces a newer one (L9), so the order in which both arrive does not matter.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

from quill_quota_limiter.domain.quota_answer import OrganizationStanding
from quill_quota_limiter.domain.scope_answer import ScopesStanding
from quill_quota_limiter.ports import LimitIndex

TOKENS_PER_ORGANIZATION: Final = 4

Listener = Callable[["MirrorChange"], None]


@dataclass(frozen=True, slots=True)
class MirrorChange:
    """What somebody who follows the limits must learn. ``place`` is where in the board's changes it stands, if known.

    ``standing`` none: the organization is no longer known. ``active`` and ``retired`` are project tokens.
    """

    organization_id: str
    standing: OrganizationStanding | None = None
    active: Collection[str] = ()
    retired: Collection[str] = ()
    place: str | None = None


class Mirror:
    """Standings by organization, organizations by project token, and an index of who is limited.

    At most ``organizations_max`` are held, and `TOKENS_PER_ORGANIZATION` times as many tokens; beyond that ``is_whole``
    turns false, and who is not here may still be known.
    """

    def __init__(self, *, organizations_max: int) -> None:
        self._organizations_max = organizations_max
        self.standings: dict[str, OrganizationStanding] = {}
        self.owners: dict[str, str] = {}
        self.limited: dict[str, dict[str, datetime]] = {}
        """Meter → organization → end of the limit."""
        self.holders: dict[str, set[str]] = {}
        """Meter → organizations that have it."""
        self.tokens: dict[str, set[str]] = {}
        """The same as ``owners``, by organization."""
        self.scoped: set[str] = set()
        """Organizations with limits of teams or projects."""
        self.index = LimitIndex(self.holders, self.limited, self.scoped)
        self.is_whole = True
        self.synced_at = -inf
        """Seconds of the event loop's clock: everything decided before that is here."""
        self.listeners: list[Listener] = []
        self._touched: set[str] | None = None
        self._touched_tokens: set[str] = set()

    @property
    def is_loaded(self) -> bool:
        return self.synced_at > -inf

    def put(
        self, organization_id: str, standing: OrganizationStanding, *, or_equal: bool = False, place: str | None = None
    ) -> bool:
        """Keep a standing that is newer; with ``or_equal`` one of the same revision too. Tells whether it was kept."""
        known = self.standings.get(organization_id)
        if self._touched is not None:
            self._touched.add(organization_id)
        if known is None:
            if len(self.standings) >= self._organizations_max:
                self.is_whole = False
                return False
        elif standing.revision < known.revision or (
            standing.revision == known.revision and (not or_equal or standing == known)
        ):
            return False
        self.standings[organization_id] = standing
        self._index(organization_id, known, standing)
        if known is None or not _same_limits(known, standing):
            self._tell(MirrorChange(organization_id, standing, place=place))
        return True

    def remove(self, organization_id: str) -> None:
        """Forget an organization that is no longer known."""
        known = self.standings.pop(organization_id, None)
        if known is None:
            return
        for usage_key in known.meters:
            self.holders[usage_key].discard(organization_id)
            self.limited.get(usage_key, {}).pop(organization_id, None)
        self.scoped.discard(organization_id)
        for token in self.tokens.pop(organization_id, ()):
            if self.owners.get(token) == organization_id:
                del self.owners[token]
        self._tell(MirrorChange(organization_id))

    def claim(
        self, organization_id: str, tokens: Iterable[str], *, is_loading: bool = False, place: str | None = None
    ) -> None:
        """These project tokens are the organization's now, whoever had them.

        ``is_loading``: this was read in a load, and a change that came meanwhile is newer.
        """
        new = []
        for token in tokens:
            if is_loading and token in self._touched_tokens:
                continue
            if self._touched is not None and not is_loading:
                self._touched_tokens.add(token)
            before = self.owners.get(token)
            if before == organization_id:
                continue
            if before is not None:
                self.tokens[before].discard(token)
            elif len(self.owners) >= self._organizations_max * TOKENS_PER_ORGANIZATION:
                self.is_whole = False
                continue
            self.owners[token] = organization_id
            self.tokens.setdefault(organization_id, set()).add(token)
            new.append(token)
        if new:
            self._tell(MirrorChange(organization_id, active=new, place=place))

    def retire(self, organization_id: str, tokens: Iterable[str], *, place: str | None = None) -> None:
        """These tokens are not the organization's any more; another's stay."""
        gone = []
        for token in tokens:
            if self._touched is not None:
                self._touched_tokens.add(token)
            if self.owners.get(token) == organization_id:
                del self.owners[token]
                self.tokens[organization_id].discard(token)
                gone.append(token)
        if gone:
            self._tell(MirrorChange(organization_id, retired=gone, place=place))

    def begin_load(self) -> None:
        """Remember what changes from now on, so that `end_load` does not take it for forgotten."""
        self._touched = set()
        self._touched_tokens = set()

    def end_load(self, seen: Collection[str], *, tokens: Collection[str], synced_at: float) -> None:
        """Everything was read: what was neither seen nor touched meanwhile is no longer known."""
        touched, self._touched = self._touched or set(), None
        for organization_id in self.standings.keys() - seen - touched:
            self.remove(organization_id)
        for token in self.owners.keys() - tokens - self._touched_tokens:
            self.retire(self.owners[token], [token])
        self._touched_tokens = set()
        self.synced_at = max(self.synced_at, synced_at)

    def _index(self, organization_id: str, known: OrganizationStanding | None, standing: OrganizationStanding) -> None:
        if known is not None:
            for usage_key in known.meters.keys() - standing.meters.keys():
                self.holders[usage_key].discard(organization_id)
                self.limited.get(usage_key, {}).pop(organization_id, None)
        for usage_key, meter in standing.meters.items():
            self.holders.setdefault(usage_key, set()).add(organization_id)
            if meter.limited_until is not None:
                self.limited.setdefault(usage_key, {})[organization_id] = meter.limited_until
            elif usage_key in self.limited:
                self.limited[usage_key].pop(organization_id, None)
        if standing.scopes is not None:
            self.scoped.add(organization_id)
        else:
            self.scoped.discard(organization_id)

    def _tell(self, change: MirrorChange) -> None:
        for listener in self.listeners:
            listener(change)


def _same_limits(one: OrganizationStanding, other: OrganizationStanding) -> bool:
    """Whether only usage differs, which changes no answer by itself."""
    return (
        one.license_id == other.license_id
        and _limits(one.meters) == _limits(other.meters)
        and _scope_limits(one.scopes) == _scope_limits(other.scopes)
    )


def _scope_limits(scopes: ScopesStanding | None) -> tuple[object, ...] | None:
    if scopes is None:
        return None
    return scopes.teams, scopes.tokens, {name: _limits(meters) for name, meters in scopes.meters.items()}


def _limits(meters: Mapping[str, object]) -> dict[str, tuple[object, ...]]:
    return {usage_key: tuple(getattr(meter, name) for name in _LIMIT_FIELDS) for usage_key, meter in meters.items()}


_LIMIT_FIELDS = ("state", "quota", "limited_until", "suspended_until")
