"""Make windows what their counting reports say: what voiding, replacing and taking back come down to (L1, L3)."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from quill_usage_ingest.domain.dated_counters import DatedCounters, dated_name
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.period_usage import NOTHING_USED, PeriodUsage, sum_windows
from quill_usage_ingest.domain.usage_book import PeriodKey, Verdict
from quill_usage_ingest.domain.usage_cells import Cells, WindowCells, claimed_cells, join
from quill_usage_ingest.domain.usage_report import DAY, WindowKey
from quill_usage_ingest.ports import KeptClaim, UsageTransaction

WITHOUT_EFFECT: Final = frozenset({Verdict.VOIDED.value, Verdict.SHADOWED.value})


class OverlappingWindows(Exception):
    """Reports of windows that overlap would count side by side; names the window."""

    def __init__(self, key: WindowKey) -> None:
        super().__init__(f"{key.source}: reports of windows that overlap {key.start.isoformat()} would both count")
        self.key = key


async def rebuild_windows(keys: Collection[WindowKey], *, tx: UsageTransaction) -> dict[str, int]:
    """Put the cells of these windows together again from the kept reports that count, and correct their periods.

    Maxima of the counters that changed come down to what is counted now (L3). A window that no report speaks for any
    more is gone, so that a report of another length may take its place.

    Returns:
        The new revision of every organization whose usage changed, due for publication.

    Raises:
        OverlappingWindows: a report taken back into count lies across another one; nothing may be committed.
    """
    revisions: dict[str, int] = {}
    organizations = await tx.lock_organizations({key.organization_id for key in keys})
    dated = MeterMap.of(await tx.metered_products()).dated
    for organization_id, organization in organizations.items():
        own = sorted(key for key in keys if key.organization_id == organization_id)
        schedules = organization.schedules
        changed: dict[PeriodKey, set[str]] = {}
        for key in own:
            counters = await _rebuild(key, tx)
            if counters:
                period = PeriodKey(organization_id, schedules.period_containing(key.start))
                changed.setdefault(period, set()).update(_with_dated(counters, key, period, dated))
        if changed:
            revision = organization.usage_revision + 1
            await tx.save_periods({key: await _corrected(key, changed[key], revision, dated, tx) for key in changed})
            revisions[organization_id] = revision
    await tx.save_revisions(revisions, is_publication_due=True)
    return revisions


def _with_dated(counters: set[str], key: WindowKey, period: PeriodKey, dated: DatedCounters) -> set[str]:
    """These counters, and what is kept of them from a date on that the window is not before."""
    starts = [(counter, start) for counter in counters for start in dated.inside(counter, period.period)]
    return counters | {dated_name(counter, start) for counter, start in starts if key.start >= start}


async def _rebuild(key: WindowKey, tx: UsageTransaction) -> set[str]:
    """Replace one window; returns the counters whose cells are other ones now."""
    held = dict(await tx.windows_between(key.organization_id, key.start, key.start + DAY)).get(key)
    before: Cells = held.cells if held else {}
    claims = [
        claim
        for claim in await tx.kept_claims(key.organization_id, key.start, key.start + DAY, source=key.source)
        if claim.report.window.start == key.start and counts(claim)
    ]
    after: Cells = {}
    for claim in claims:
        after = join(after, claimed_cells(claim.report))
    if claims and after:
        rebuilt = WindowCells(claims[0].report.window, after)
        await _refuse_overlap(key, rebuilt, claims, tx)
        await tx.save_windows({key: rebuilt})
    elif held is not None:
        await tx.delete_windows([key])
    return {counter for counter in {**before, **after} if before.get(counter) != after.get(counter)}


async def _refuse_overlap(
    key: WindowKey, rebuilt: WindowCells, claims: Collection[KeptClaim], tx: UsageTransaction
) -> None:
    window = rebuilt.window
    beside = [
        held.window
        for other, held in await tx.windows_between(key.organization_id, window.day, window.day + DAY)
        if other.source == key.source and other != key
    ]
    if any(claim.report.window != window for claim in claims) or any(window.overlaps(other) for other in beside):
        raise OverlappingWindows(key)


def counts(claim: KeptClaim) -> bool:
    """Whether a kept report has a say: neither voided nor shadowed."""
    return claim.kept.verdict not in WITHOUT_EFFECT


async def _corrected(
    key: PeriodKey, changed: set[str], revision: int, dated: DatedCounters, tx: UsageTransaction
) -> PeriodUsage:
    windows = await tx.windows_between(key.organization_id, key.period.start, key.period.end)
    period_sum = sum_windows(key.period, [held for _, held in windows], dated)
    stored = (await tx.periods({key})).get(key)
    if stored is None:
        if period_sum is None:
            raise AssertionError("a window that changed lies in a period that was counted")
        return PeriodUsage(
            period=key.period,
            as_of=period_sum.as_of,
            revision=revision,
            corrected_revision=revision,
            counters=period_sum.sums,
        )
    counters = {
        counter: usage
        if counter in changed
        else usage._replace(maximum=max(usage.maximum, stored.counters.get(counter, NOTHING_USED).maximum))
        for counter, usage in (period_sum.sums if period_sum else {}).items()
    }
    return replace(stored, counters=counters, revision=revision, corrected_revision=revision)
