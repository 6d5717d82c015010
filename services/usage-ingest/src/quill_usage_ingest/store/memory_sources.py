"""Sources in memory: the same behaviour as Postgres, for unit tests and simulation."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from datetime import datetime

from quill_usage_ingest.domain.freshness import ParkedGroup
from quill_usage_ingest.domain.usage_source import CLOCKWORK, SourceEvent, UsageSource
from quill_usage_ingest.domain.watermark import LogEnds, WatermarkClaim, is_passed
from quill_usage_ingest.ports import Unfenced
from quill_usage_ingest.store.source_events import kind_of


@dataclass(slots=True)
class _Waiting:
    claim: WatermarkClaim
    fence: LogEnds | None = None


@dataclass(slots=True)
class MemoryParked:
    """A dead letter as far as freshness looks at it."""

    source: str | None
    organization_id: str | None
    window_start: datetime | None
    parked_at: datetime
    replayed_at: datetime | None = None
    fence: LogEnds | None = None
    gone_at: datetime | None = None


@dataclass(slots=True)
class MemorySources:
    """`SourceTransaction` on dictionaries. Tests look at ``announced`` and put rows into ``parked``."""

    held: dict[str, UsageSource] = field(default_factory=dict)
    events: dict[str, list[SourceEvent]] = field(default_factory=dict)
    announced: list[UsageSource] = field(default_factory=list)
    claims: dict[int, _Waiting] = field(default_factory=dict)
    parked: list[MemoryParked] = field(default_factory=list)
    claims_made: int = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["MemorySources"]:
        """A transaction: nothing of the block stays when it raises."""
        before = {held.name: deepcopy(getattr(self, held.name)) for held in fields(self)}
        try:
            yield self
        except BaseException:
            for name, content in before.items():
                setattr(self, name, content)
            raise

    async def lock_sources(self, names: Collection[str]) -> dict[str, UsageSource]:
        for name in names:
            self.held.setdefault(name, UsageSource(source=name))
        return {name: self.held[name] for name in sorted(names)}

    async def sources(self, names: Collection[str] | None = None) -> dict[str, UsageSource]:
        return {name: held for name, held in sorted(self.held.items()) if names is None or name in names}

    async def known_sources(self) -> int:
        return len(self.held)

    async def expected_sources(self) -> dict[str, UsageSource]:
        return {name: held for name, held in sorted(self.held.items()) if held.is_expected}

    async def save_source(
        self, before: UsageSource, after: UsageSource, events: Sequence[SourceEvent], *, is_announced: bool
    ) -> None:
        self.held[after.source] = after
        known = self.events.setdefault(after.source, [])
        if len(known) != before.version:
            raise AssertionError("events were decided on another version than the one locked")
        known.extend(events)
        if is_announced:
            self.announced.append(after)

    async def sources_as_of(self, names: Collection[str], at: datetime) -> dict[str, UsageSource]:
        found = {}
        for name in names:
            known = [each for each in self.events.get(name, []) if kind_of(each, otherwise=CLOCKWORK)[2] <= at]
            if known:
                found[name] = UsageSource(source=name)
            for event in known:
                found[name] = found[name].evolved(event)
        return found

    async def add_claims(self, claims: Sequence[WatermarkClaim], *, now: datetime) -> None:
        del now
        for claim in claims:
            self.claims_made += 1
            self.claims[self.claims_made] = _Waiting(claim)

    async def waiting_claims(self, source: str | None = None) -> list[WatermarkClaim]:
        return [waiting.claim for waiting in self.claims.values() if source in (None, waiting.claim.source)]

    async def unfenced(self) -> Unfenced:
        return Unfenced(
            tuple(number for number, waiting in self.claims.items() if waiting.fence is None),
            tuple(
                number
                for number, each in enumerate(self.parked)
                if each.replayed_at is not None and each.gone_at is None and each.fence is None
            ),
        )

    async def put_up_fences(self, waiting: Unfenced, ends: LogEnds) -> None:
        for number in waiting.claim_ids:
            self.claims[number].fence = dict(ends)
        for number in waiting.letter_ids:
            self.parked[number].fence = dict(ends)

    async def passed_claims(self, settled: LogEnds, *, limit: int) -> list[tuple[int, WatermarkClaim]]:
        passed = [
            (number, waiting.claim)
            for number, waiting in self.claims.items()
            if waiting.fence is not None and is_passed(waiting.fence, settled)
        ]
        return passed[:limit]

    async def drop_claims(self, claim_ids: Collection[int]) -> None:
        for claim_id in claim_ids:
            self.claims.pop(claim_id, None)

    async def forget_reentered(self, settled: LogEnds, *, now: datetime) -> int:
        passed = [
            each
            for each in self.parked
            if each.replayed_at is not None
            and each.gone_at is None
            and each.fence is not None
            and is_passed(each.fence, settled)
        ]
        for each in passed:
            each.gone_at = now
        return len(passed)

    async def parked_by_source(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for each in self.parked:
            if each.source is not None and each.gone_at is None:
                counts[each.source] = counts.get(each.source, 0) + 1
        return counts

    async def miscounted(self, parked: Mapping[str, int]) -> set[str]:
        return {name for name, held in self.held.items() if held.parked != parked.get(name, 0)}

    async def parked_groups(
        self, organization_id: str, sources: Collection[str], *, at: datetime | None = None
    ) -> list[ParkedGroup]:
        return [
            ParkedGroup(each.source, each.window_start, 1)
            for each in self.parked
            if _is_parked(each, at)
            and (each.organization_id == organization_id or (each.organization_id is None and each.source in sources))
        ]


def _is_parked(each: MemoryParked, at: datetime | None) -> bool:
    if at is None:
        return each.gone_at is None
    return each.parked_at <= at and (each.gone_at is None or each.gone_at > at)
