"""Sources of usage in memory, with the behaviour of those on Postgres."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

from quill_invoicing.domain.completeness_gate import HeldClosing, SourceStanding


@dataclass(slots=True)
class SourceState:
    """Everything stored of sources."""

    standings: dict[str, SourceStanding] = field(default_factory=dict)
    sources: dict[str, frozenset[str]] = field(default_factory=dict)
    held: dict[tuple[str, datetime], tuple[HeldClosing, datetime]] = field(default_factory=dict)


class MemorySourceRows:
    """The part of a transaction in memory that knows sources."""

    _of_sources: SourceState

    async def save_standing(self, standing: SourceStanding) -> bool:
        known = self._of_sources.standings.get(standing.source)
        if known is not None and known.revision >= standing.revision:
            return False
        self._of_sources.standings[standing.source] = standing
        return True

    async def standings(self, *, expected_only: bool = False) -> dict[str, SourceStanding]:
        held = self._of_sources.standings
        return {name: standing for name, standing in held.items() if standing.is_expected or not expected_only}

    async def know_sources(self, organization_id: str, names: Collection[str]) -> None:
        if not self._of_sources.sources.get(organization_id, frozenset()) >= set(names):
            self._of_sources.sources[organization_id] = frozenset(names)

    async def sources_of(self, organization_id: str) -> frozenset[str]:
        return self._of_sources.sources.get(organization_id, frozenset())

    async def hold_closing(self, held: HeldClosing, *, look_again_at: datetime) -> bool:
        key = (held.organization_id, held.period.start)
        known, _ = self._of_sources.held.get(key, (None, None))
        since = held.since if known is None else known.since
        self._of_sources.held[key] = (replace(held, since=since), look_again_at)
        return known is None or known.missing != held.missing

    async def release_closing(self, organization_id: str, period_start: datetime) -> bool:
        return self._of_sources.held.pop((organization_id, period_start), None) is not None

    async def look_at_held_again(self, source: str, *, now: datetime) -> None:
        for key, (held, _) in self._of_sources.held.items():
            if source in held.missing:
                self._of_sources.held[key] = (held, now)

    async def held_closings(self, *, limit: int) -> list[HeldClosing]:
        held = sorted(
            (each for each, _ in self._of_sources.held.values()),
            key=lambda each: (each.since, each.organization_id, each.period.start),
        )
        return held[:limit]

    async def count_held(self) -> int:
        return len(self._of_sources.held)
