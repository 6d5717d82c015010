"""Add up all cells again: the audit and its repair (L2, L3)."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Final

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.archived_month import first_archived
from quill_usage_ingest.domain.dated_counters import DatedCounters
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import PeriodSum, PeriodUsage, reconciled, sum_windows
from quill_usage_ingest.domain.usage_book import PeriodKey
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_report import WindowKey
from quill_usage_ingest.ports import UsageTransaction
from quill_usage_ingest.usecases.count_cuts import count_new_cuts
from quill_usage_ingest.usecases.late_usage import publish_late_usage

WINDOWS_PER_PAGE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Periods of one organization that did not agree with its cells and now do."""

    organization_id: str
    repaired: tuple[BillingPeriod, ...]
    retired: int


async def recompute_organization(organization_id: str, *, tx: UsageTransaction) -> Recomputed:
    """Add up all cells again under the schedules kept: the audit, its repair, and what a changed schedule needs.

    Maxima already published for a period are kept (L3); a period that is no longer on the schedule goes out of force.
    Periods of which a month is archived stay as they are: their cells are not all here, and adding up the rest would
    make them smaller. An organization nobody knows has nothing to recompute.
    """
    known = (await tx.lock_organizations({organization_id})).get(organization_id)
    if known is None:
        return Recomputed(organization_id, (), 0)
    archived = await tx.archived_months()
    dated = MeterMap.of(await tx.metered_products()).dated
    sums = await _sums_by_period(known, archived, dated, tx)
    stored = await tx.periods(set(sums))
    in_force = {usage.period for usage in await tx.periods_in_force(organization_id, newest=None)}
    revision = known.usage_revision + 1
    changed: dict[PeriodKey, PeriodUsage] = {}
    for key, period_sum in sums.items():
        usage = reconciled(period_sum, stored.get(key), revision=revision)
        if usage is not stored.get(key) or key.period not in in_force:
            changed[key] = usage
    await tx.save_periods(changed)
    keep = set(sums) | await _empty_periods_on_schedule(organization_id, known, tx)
    keep |= {PeriodKey(organization_id, period) for period in in_force if _is_archived(period, archived)}
    retired = await tx.retire_periods_except(organization_id, keep)
    has_new_cuts = await count_new_cuts(known, tx=tx)
    if changed or retired or has_new_cuts:
        await tx.save_revisions({organization_id: revision}, is_publication_due=True)
        await publish_late_usage(changed.keys(), tx=tx)
    return Recomputed(organization_id, tuple(sorted((key.period for key in changed), key=attrgetter("start"))), retired)


async def _sums_by_period(
    organization: Organization, archived: Collection[datetime], dated: DatedCounters, tx: UsageTransaction
) -> dict[PeriodKey, PeriodSum]:
    """What the cells add up to in each period that is wholly here. Holds the windows of one period and one page."""
    organization_id = organization.organization_id
    sums: dict[PeriodKey, PeriodSum] = {}
    period: BillingPeriod | None = None
    held: list[WindowCells] = []

    def add_up() -> None:
        if period is not None and not _is_archived(period, archived):
            period_sum = sum_windows(period, held, dated)
            if period_sum is not None:
                sums[PeriodKey(organization_id, period)] = period_sum

    after: WindowKey | None = None
    while True:
        page = await tx.windows_after(organization_id, after, limit=WINDOWS_PER_PAGE)
        for key, window in page:
            if period is None or key.start not in period:
                add_up()
                period, held = organization.schedules.period_containing(key.start), []
            held.append(window)
        if len(page) < WINDOWS_PER_PAGE:
            add_up()
            return sums
        after = page[-1][0]


def _is_archived(period: BillingPeriod, archived: Collection[datetime]) -> bool:
    return first_archived(archived, period.start, period.end) is not None


async def _empty_periods_on_schedule(
    organization_id: str, organization: Organization, tx: UsageTransaction
) -> set[PeriodKey]:
    """Periods that only reports without counters made: no cell speaks for them, and they are right as they are."""
    return {
        PeriodKey(organization_id, usage.period)
        for usage in await tx.periods_in_force(organization_id, newest=None)
        if not usage.counters and organization.schedules.period_containing(usage.period.start) == usage.period
    }


async def audit_organizations(*, tx: UsageTransaction, after: str, limit: int) -> tuple[str, list[Recomputed]]:
    """Recompute the next ``limit`` organizations; the second part holds those that did not agree.

    Returns:
        Where to go on, empty at the end, and what was repaired.
    """
    organization_ids = await tx.organizations_after(after, limit=limit)
    results = [await recompute_organization(organization_id, tx=tx) for organization_id in organization_ids]
    cursor = organization_ids[-1] if len(organization_ids) == limit else ""
    return cursor, [result for result in results if result.repaired or result.retired]
