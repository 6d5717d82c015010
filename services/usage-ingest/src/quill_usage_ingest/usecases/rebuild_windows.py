"""Make windows what their counting reports say: what voiding, replacing and taking back come down to (L1, L3)."""

from collections.abc import Collection
from dataclasses import replace

from quill_usage_ingest.domain.cut_usage import NOTHING_BEFORE, cut_keys
from quill_usage_ingest.domain.dated_counters import DatedCounters, dated_name
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_maximum import PeriodMaximum
from quill_usage_ingest.domain.period_usage import NOTHING_USED, PeriodSum, PeriodUsage, sum_windows
from quill_usage_ingest.domain.usage_book import PeriodKey
from quill_usage_ingest.domain.usage_cells import Cells, WindowCells, claimed_cells, join
from quill_usage_ingest.domain.usage_report import DAY, WindowKey
from quill_usage_ingest.ports import KeptClaim, UsageTransaction
from quill_usage_ingest.usecases.late_usage import publish_late_usage
from quill_usage_ingest.usecases.replay_reports import counts, replay


class OverlappingWindows(Exception):
    """Reports of windows that overlap would count side by side; names the window."""

    def __init__(self, key: WindowKey) -> None:
        super().__init__(f"{key.source}: reports of windows that overlap {key.start.isoformat()} would both count")
        self.key = key


async def rebuild_windows(keys: Collection[WindowKey], *, tx: UsageTransaction) -> dict[str, int]:
    """Put the cells of these windows together again from the kept reports that count, and correct their periods.

    The maxima of the counters that changed become what they had been without the reports that do not count (L3); no
    other number moves. A window without a counting report is deleted, so that a report of another length may take its
    place.

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
        concerned: dict[PeriodKey, set[str]] = {}
        for key in own:
            period = PeriodKey(organization_id, organization.schedules.period_containing(key.start))
            counters = await _rebuild(key, tx)
            concerned.setdefault(period, set()).update(_with_dated(counters, key, period, dated))
        revision = organization.usage_revision + 1
        has_changed = [
            await _make_again(key, counters, organization, revision, dated=dated, tx=tx)
            for key, counters in concerned.items()
        ]
        if any(has_changed):
            revisions[organization_id] = revision
            await publish_late_usage(concerned.keys(), tx=tx)
    await tx.save_revisions(revisions, is_publication_due=True)
    return revisions


def _with_dated(counters: set[str], key: WindowKey, period: PeriodKey, dated: DatedCounters) -> set[str]:
    """These counters, and what is kept of them from a date on that the window is not before."""
    starts = [(counter, start) for counter in counters for start in dated.inside(counter, period.period)]
    return counters | {dated_name(counter, start) for counter, start in starts if key.start >= start}


async def _rebuild(key: WindowKey, tx: UsageTransaction) -> set[str]:
    """Replace one window; returns the counters that any report of it ever named."""
    held = dict(await tx.windows_between(key.organization_id, key.start, key.start + DAY)).get(key)
    kept = [
        claim
        for claim in await tx.kept_claims(key.organization_id, key.start, key.start + DAY, source=key.source)
        if claim.report.window.start == key.start
    ]
    claims = [claim for claim in kept if counts(claim)]
    after: Cells = {}
    for claim in claims:
        after = join(after, claimed_cells(claim.report))
    if claims and after:
        rebuilt = WindowCells(claims[0].report.window, after)
        await _refuse_overlap(key, rebuilt, claims, tx)
        await tx.save_windows({key: rebuilt})
    elif held is not None:
        await tx.delete_windows([key])
    return {counter for claim in kept for counter in claim.report.counters}


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


async def _make_again(
    key: PeriodKey,
    concerned: set[str],
    organization: Organization,
    revision: int,
    *,
    dated: DatedCounters,
    tx: UsageTransaction,
) -> bool:
    """Make the counters concerned again, in the period and before its cuts; False when no number differs."""
    cuts = [cut for cut in cut_keys(key.organization_id, organization.schedules, organization.cuts) if cut[:2] == key]
    replayed = PeriodMaximum(key.period, dated)
    before = {cut: PeriodMaximum(key.period, dated, before=cut.at) for cut in cuts}
    await replay(key, [replayed, *before.values()], tx=tx)
    known_cuts = await tx.cuts(cuts)
    cuts_after = {
        cut: known_cuts.get(cut, NOTHING_BEFORE).corrected(concerned, replayed_cut.maxima)
        for cut, replayed_cut in before.items()
    }
    changed_cuts = {cut: after for cut, after in cuts_after.items() if after != known_cuts.get(cut)}
    await tx.save_cuts(changed_cuts)
    stored = (await tx.periods({key})).get(key)
    windows = await tx.windows_between(key.organization_id, key.period.start, key.period.end)
    after = _corrected(key, stored, sum_windows(key.period, [held for _, held in windows], dated), concerned, replayed)
    if after is not None:
        await tx.save_periods({key: replace(after, revision=revision)})
    return after is not None or bool(changed_cuts)


def _corrected(
    key: PeriodKey,
    stored: PeriodUsage | None,
    period_sum: PeriodSum | None,
    concerned: set[str],
    replayed: PeriodMaximum,
) -> PeriodUsage | None:
    known = stored.counters if stored else {}
    counters = {
        counter: usage._replace(
            maximum=replayed.maxima.get(counter, usage.maximum)
            if counter in concerned
            else max(usage.maximum, known.get(counter, NOTHING_USED).maximum)
        )
        for counter, usage in (period_sum.sums if period_sum else {}).items()
    }
    if stored is not None:
        return None if counters == dict(known) else replace(stored, counters=counters)
    return None if period_sum is None else PeriodUsage(key.period, period_sum.as_of, 0, counters)
