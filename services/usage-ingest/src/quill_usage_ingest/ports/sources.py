"""Sources, watermarks and freshness: what the use cases need of a store of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from quill_usage_ingest.domain.freshness import ParkedGroup
from quill_usage_ingest.domain.usage_source import SourceEvent, UsageSource
from quill_usage_ingest.domain.watermark import LogEnds, WatermarkClaim


@dataclass(frozen=True, slots=True)
class Unfenced:
    """What waits to learn where the logs of reports end."""

    claim_ids: tuple[int, ...] = ()
    letter_ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.claim_ids or self.letter_ids)


class SourceViews(Protocol):
    """Reading sources, the claims that wait and what is parked."""

    async def sources(self, names: Collection[str] | None = None) -> dict[str, UsageSource]:
        """The known ones among these, or all."""
        ...

    async def sources_as_of(self, names: Collection[str], at: datetime) -> dict[str, UsageSource]:
        """What was known of them at an instant, folded from their events."""
        ...

    async def waiting_claims(self, source: str | None = None) -> list[WatermarkClaim]:
        """Claims of a source, or of all, that do not count yet, oldest first."""
        ...

    async def parked_groups(
        self, organization_id: str, sources: Collection[str], *, at: datetime | None = None
    ) -> list[ParkedGroup]:
        """What is parked, or was at an instant, that may be of this organization."""
        ...


class SourceTransaction(SourceViews, Protocol):
    """Reads and writes of sources, their watermarks and what of them is parked, in one transaction."""

    async def lock_sources(self, names: Collection[str]) -> dict[str, UsageSource]:
        """All of these, locked in the order of their names until the end; one not known yet is there, unheard."""
        ...

    async def known_sources(self) -> int: ...

    async def expected_sources(self) -> dict[str, UsageSource]: ...

    async def save_source(
        self, before: UsageSource, after: UsageSource, events: Sequence[SourceEvent], *, is_announced: bool
    ) -> None:
        """Save the state with its events; ``is_announced`` sends the snapshot with it, under ``after.revision``."""
        ...

    async def add_claims(self, claims: Sequence[WatermarkClaim], *, now: datetime) -> None:
        """Keep claims until what they speak for has been entered."""
        ...

    async def unfenced(self) -> Unfenced:
        """What waits for a fence: claims, and parked reports that were sent again and have left the outbox."""
        ...

    async def put_up_fences(self, waiting: Unfenced, ends: LogEnds) -> None:
        """Note for these where the logs ended. ``ends`` must have been read after ``waiting`` was."""
        ...

    async def passed_claims(self, settled: LogEnds, *, limit: int) -> list[tuple[int, WatermarkClaim]]:
        """Claims whose fence is passed, oldest first, held by this transaction alone."""
        ...

    async def drop_claims(self, claim_ids: Collection[int]) -> None: ...

    async def forget_reentered(self, settled: LogEnds, *, now: datetime) -> int:
        """Parked reports that were sent again and have been read again are parked no longer; returns how many."""
        ...

    async def parked_by_source(self) -> dict[str, int]: ...

    async def miscounted(self, parked: Mapping[str, int]) -> set[str]:
        """Known sources that have another number of parked reports than these."""
        ...
