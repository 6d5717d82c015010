"""Let watermarks count, but never before everything they speak for has been entered and published.

A watermark travels on another topic than its reports, so it may be read first. Its claim waits until this service's own
positions have passed the place where the logs of reports ended when the claim was there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from quill_usage_ingest.domain.usage_source import SourceEvent, UsageSource
from quill_usage_ingest.domain.watermark import LogEnds, WatermarkClaim
from quill_usage_ingest.ports import SourceTransaction

CLAIMS_PER_TURN: Final = 1_000


@dataclass(frozen=True, slots=True)
class Promoted:
    """Sources as they are now, of those that changed; ``claims`` counts what was worked off."""

    sources: tuple[UsageSource, ...]
    claims: int


async def promote_watermarks(
    settled: LogEnds, *, tx: SourceTransaction, now: datetime, is_recount_due: bool
) -> Promoted:
    """Work off claims that are entered, and count again what is parked.

    ``settled`` must have been read before the dead letters were: then none that was parked before a fence is missed.
    """
    ready = await tx.passed_claims(settled, limit=CLAIMS_PER_TURN)
    reentered = await tx.forget_reentered(settled, now=now)
    if not ready and not reentered and not is_recount_due:
        return Promoted((), 0)
    parked = await tx.parked_by_source()
    recounted = await tx.miscounted(parked)
    by_source: dict[str, list[WatermarkClaim]] = {}
    for _, claim in ready:
        by_source.setdefault(claim.source, []).append(claim)
    changed = []
    for name, before in (await tx.lock_sources(by_source.keys() | recounted)).items():
        after, events = _advanced(before, by_source.get(name, ()), now=now)
        after = replace(after, parked=parked.get(name, 0))
        if after != before:
            after = replace(after, revision=before.revision + 1)
            await tx.save_source(before, after, events, is_announced=True)
            changed.append(after)
    await tx.drop_claims([claim_id for claim_id, _ in ready])
    return Promoted(tuple(changed), len(ready))


def _advanced(
    source: UsageSource, claims: Sequence[WatermarkClaim], *, now: datetime
) -> tuple[UsageSource, list[SourceEvent]]:
    events: list[SourceEvent] = []
    for claim in claims:
        for event in source.advance(claim, now=now):
            source = source.evolved(event)
            events.append(event)
    return source, events
