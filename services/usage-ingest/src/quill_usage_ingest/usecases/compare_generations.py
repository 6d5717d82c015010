"""Compare what two generations of reports say, a few marked days at a time, and accept a difference (L5, L20)."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from quill_usage_ingest.domain.generation import Generation
from quill_usage_ingest.domain.generation_comparison import Comparison, GenerationClaim, compare
from quill_usage_ingest.domain.usage_month import month_of
from quill_usage_ingest.domain.usage_report import DayKey


class GenerationTransaction(Protocol):
    """What comparing needs of a store."""

    async def take_marks(self, *, limit: int) -> tuple[list[DayKey], int]: ...

    async def archived_months(self) -> frozenset[datetime]: ...

    async def newest_claims(self, keys: Sequence[DayKey]) -> Mapping[DayKey, Mapping[Generation, GenerationClaim]]: ...

    async def save(self, comparisons: Collection[Comparison], *, now: datetime) -> None: ...

    async def forget(self, keys: Collection[DayKey]) -> None: ...


async def compare_generations(*, tx: GenerationTransaction, limit: int, now: datetime) -> int:
    """Compare the days marked longest ago; returns how many marks were worked off.

    Whatever is said of a day after this read it marks the day again, so the last comparison is of the last words. A day
    of an archived month stays as it was compared: what was said of it is not here.
    """
    archived = await tx.archived_months()
    marked, marks = await tx.take_marks(limit=limit)
    keys = [key for key in marked if month_of(key.day) not in archived]
    if not keys:
        return marks
    claims = await tx.newest_claims(keys)
    compared: dict[DayKey, Comparison | None] = {}
    for key in keys:
        sides = claims.get(key, {})
        compared[key] = compare(key, sides.get(Generation.V1), sides.get(Generation.V2))
    await tx.save([each for each in compared.values() if each is not None], now=now)
    await tx.forget([key for key, each in compared.items() if each is None])
    return marks
