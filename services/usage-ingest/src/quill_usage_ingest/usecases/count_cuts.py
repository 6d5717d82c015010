"""Keep what was used before each cut up to date, for organizations that have cuts (L12, D4)."""

from collections.abc import Collection, Iterable, Mapping

from quill_usage_ingest.domain.archived_month import first_archived
from quill_usage_ingest.domain.cut_usage import NOTHING_BEFORE, CutKey, CutUsage, cut_keys, used_before
from quill_usage_ingest.domain.dated_counters import DatedCounters
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization, UsageStanding
from quill_usage_ingest.domain.period_maximum import PeriodMaximum
from quill_usage_ingest.domain.usage_book import PeriodKey
from quill_usage_ingest.domain.usage_report import DAY, UsageReport
from quill_usage_ingest.ports import UsageTransaction
from quill_usage_ingest.usecases.replay_reports import counts, replay


async def count_cuts_after(
    reports: Iterable[UsageReport], standings: Mapping[str, UsageStanding], *, tx: UsageTransaction
) -> set[CutKey]:
    """Count the cuts that entered reports may say something about; returns those that changed.

    No number falls, unless a report is a correction: then the counters it names are made again (L3).
    """
    touched = _touched(reports, standings)
    if not touched:
        return set()
    dated = MeterMap.of(await tx.metered_products()).dated
    archived = await tx.archived_months()
    stored = await tx.cuts(touched.keys())
    changed: dict[CutKey, CutUsage] = {}
    for key, corrected in sorted(touched.items(), key=lambda item: (item[0].organization_id, item[0].at)):
        if first_archived(archived, key.period.start, key.at) is not None:
            continue  # Its cells are not all here; what was counted stays.
        before = stored.get(key)
        after = await _replayed(key, dated, tx) if before is None else before.raised(await _counted(key, dated, tx))
        if before is not None and corrected:
            replayed = await _replayed(key, dated, tx)
            after = after.corrected(_with_dated(corrected, key, dated), replayed.counters)
        if after != before:
            changed[key] = after
    await tx.save_cuts(changed)
    return set(changed)


def _touched(reports: Iterable[UsageReport], standings: Mapping[str, UsageStanding]) -> dict[CutKey, set[str]]:
    """The cuts of the reports' periods after their windows began, each with the counters that a correction names."""
    touched: dict[CutKey, set[str]] = {}
    for report in reports:
        standing = standings[report.organization_id]
        if not standing.cuts:
            continue
        period = standing.schedules.period_containing(report.window.start)
        for at in standing.cuts:
            if report.window.start < at and period.start < at < period.end:
                counters = touched.setdefault(CutKey(report.organization_id, period, at), set())
                if report.correction is not None:
                    counters.update(report.counters)
    return touched


def _with_dated(counters: Iterable[str], key: CutKey, dated: DatedCounters) -> set[str]:
    return {name for counter in counters for name in (counter, *dated.names(counter, key.period))}


async def count_new_cuts(organization: Organization, *, tx: UsageTransaction) -> bool:
    """Count the cuts that have no number yet, or lack a counter that counts from a date; True when there were any.

    For cuts that a customer snapshot names for the first time, and for periods that a changed schedule cut otherwise.
    """
    keys = cut_keys(organization.organization_id, organization.schedules, organization.cuts)
    return await count_missing_cuts(keys, tx=tx)


async def count_missing_cuts(keys: Collection[CutKey], *, tx: UsageTransaction) -> bool:
    """Count those of these cuts that have no number yet; True when there were any."""
    if not keys:
        return False
    dated = MeterMap.of(await tx.metered_products()).dated
    archived = await tx.archived_months()
    stored = await tx.cuts(keys)
    changed = {
        key: await _replayed(key, dated, tx, events=stored.get(key, NOTHING_BEFORE).events)
        for key in keys
        if first_archived(archived, key.period.start, key.at) is None and _is_missing(stored.get(key), key, dated)
    }
    await tx.save_cuts(changed)
    return bool(changed)


def _is_missing(stored: CutUsage | None, key: CutKey, dated: DatedCounters) -> bool:
    if stored is None:
        return True
    names = {name for counter in stored.counters for name in dated.names(counter, key.period)}
    return not names <= stored.counters.keys()


async def _counted(key: CutKey, dated: DatedCounters, tx: UsageTransaction) -> dict[str, int]:
    windows = await tx.windows_between(key.organization_id, key.period.start, key.at)
    split = [window for window_key, window in windows if window.window.end > key.at]
    reports: list[UsageReport] = []
    if split:
        day = min(window.window.start for window in split)
        kept = await tx.kept_claims(key.organization_id, day, min(day + DAY, key.at))
        reports = [claim.report for claim in kept if counts(claim) and claim.report.window.end > key.at]
    return used_before(key, windows, reports, dated)


async def _replayed(
    key: CutKey, dated: DatedCounters, tx: UsageTransaction, *, events: Mapping[str, int] | None = None
) -> CutUsage:
    maximum = PeriodMaximum(key.period, dated, before=key.at)
    await replay(PeriodKey(key.organization_id, key.period), [maximum], tx=tx)
    return CutUsage(maximum.maxima, events or {})
