"""Load, decide, save: one use case, one transaction. Publishing follows the commit (see `publishing`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import PeriodSum, PeriodUsage, reconciled, sum_windows
from quill_usage_ingest.domain.usage_book import YEARS, PeriodKey, Refusal, UsageBook, Verdict
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.ports import ArrivedReport, UsageTransaction


async def record_reports(
    arrived: Sequence[ArrivedReport], *, tx: UsageTransaction, now: datetime, is_publication_due: bool
) -> list[Verdict | Refusal]:
    """Enter reports in the order given and save what they changed; one answer per report.

    Refused reports leave no trace here: the caller parks them (L4). ``is_publication_due`` says that the caller has no
    redelivery behind it, so the publishing job must see to the new revisions.

    Raises:
        TooManyCounters: a new counter name found no slot; nothing may be committed.
    """
    organizations = await tx.lock_organizations({item.report.organization_id for item in arrived})
    book = await _load_book(
        [item for item in arrived if item.report.organization_id in organizations], organizations, tx
    )
    outcomes = [book.enter(item.report, now=now) for item in arrived]
    await tx.save_windows({key: book.windows[key] for key in book.changed_windows})
    await tx.save_periods({key: book.periods[key] for key in book.changed_periods})
    await tx.save_revisions(book.new_revisions, is_publication_due=is_publication_due)
    kept = [(item, outcome) for item, outcome in zip(arrived, outcomes, strict=True) if isinstance(outcome, Verdict)]
    await tx.keep_reports(kept, now=now)
    return outcomes


async def _load_book(
    arrived: Sequence[ArrivedReport], organizations: dict[str, Organization], tx: UsageTransaction
) -> UsageBook:
    reports = [item.report for item in arrived]
    book = UsageBook(
        schedules={organization_id: known.schedule for organization_id, known in organizations.items()},
        revisions={organization_id: known.usage_revision for organization_id, known in organizations.items()},
        known_contents=await tx.known_contents({report.name for report in reports}),
    )
    book.know_windows(await tx.windows_of_days({report.day_key for report in reports}))
    book.periods |= await tx.periods({book.period_key(r) for r in reports if r.window.start.year in YEARS})
    return book


@dataclass(frozen=True, slots=True)
class CurrentUsage:
    """An organization with its present period and what it used in it; ``usage`` is None before the first report."""

    organization: Organization
    period: BillingPeriod
    usage: PeriodUsage | None
    meters: MeterMap


class NotYours(Exception):
    """The organization does not belong to this license, or nobody knows it: the same answer for both (L18)."""


async def record_daily_report(
    arrived: ArrivedReport, *, license_id: str, tx: UsageTransaction, now: datetime
) -> CurrentUsage | Refusal:
    """Enter a report that came over HTTP from the holder of a license, and read what its organization used.

    Raises:
        NotYours: the organization is unknown or belongs to another license.
        TooManyCounters: a new counter name found no slot.
    """
    organization_id = arrived.report.organization_id
    known = await tx.lock_organizations({organization_id})
    if organization_id not in known or known[organization_id].license_id != license_id:
        raise NotYours(organization_id)
    (outcome,) = await record_reports([arrived], tx=tx, now=now, is_publication_due=True)
    if isinstance(outcome, Refusal):
        return outcome
    organization = known[organization_id]
    key = PeriodKey(organization_id, organization.schedule.period_containing(now))
    return CurrentUsage(
        organization=organization,
        period=key.period,
        usage=(await tx.periods({key})).get(key),
        meters=MeterMap.of(await tx.metered_products()),
    )


@dataclass(frozen=True, slots=True)
class Projected:
    """What taking in customer snapshots meant: who is new here, and whose periods moved."""

    first_seen: tuple[str, ...] = ()
    rescheduled: tuple[str, ...] = ()


async def project_customers(snapshots: Sequence[Organization], *, tx: UsageTransaction) -> Projected:
    """Keep the newest revision of each customer; a changed schedule moves its windows to other periods at once."""
    newest: dict[str, Organization] = {}
    for snapshot in sorted(snapshots, key=attrgetter("customer_revision")):
        newest[snapshot.organization_id] = snapshot
    known = await tx.lock_organizations(newest.keys())
    first_seen: list[str] = []
    rescheduled: list[str] = []
    for organization_id, snapshot in sorted(newest.items()):
        stored = known.get(organization_id)
        if stored is not None and snapshot.customer_revision <= stored.customer_revision:
            continue
        await tx.save_customer(snapshot)
        if stored is None:
            first_seen.append(organization_id)
        elif stored.schedule != snapshot.schedule:
            await recompute_organization(organization_id, tx=tx)
            rescheduled.append(organization_id)
    return Projected(tuple(first_seen), tuple(rescheduled))


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Periods of one organization that did not agree with its cells and now do."""

    organization_id: str
    repaired: tuple[BillingPeriod, ...]
    retired: int


async def recompute_organization(organization_id: str, *, tx: UsageTransaction) -> Recomputed:
    """Add up all cells again under the present schedule: the audit, its repair, and what a changed schedule needs.

    Maxima already published for a period are kept (L3); a period that is no longer on the schedule goes out of force.
    An organization nobody knows has nothing to recompute.
    """
    known = (await tx.lock_organizations({organization_id})).get(organization_id)
    if known is None:
        return Recomputed(organization_id, (), 0)
    sums = _sums_by_period(organization_id, known, await tx.windows_between(organization_id, None, None))
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
    retired = await tx.retire_periods_except(organization_id, keep)
    if changed or retired:
        await tx.save_revisions({organization_id: revision}, is_publication_due=True)
    return Recomputed(organization_id, tuple(sorted((key.period for key in changed), key=attrgetter("start"))), retired)


def _sums_by_period(
    organization_id: str, organization: Organization, windows: Sequence[tuple[object, WindowCells]]
) -> dict[PeriodKey, PeriodSum]:
    by_period: dict[BillingPeriod, list[WindowCells]] = {}
    for _, window in windows:
        by_period.setdefault(organization.schedule.period_containing(window.window.start), []).append(window)
    sums = {}
    for period, held in by_period.items():
        period_sum = sum_windows(period, held)
        if period_sum is not None:
            sums[PeriodKey(organization_id, period)] = period_sum
    return sums


async def _empty_periods_on_schedule(
    organization_id: str, organization: Organization, tx: UsageTransaction
) -> set[PeriodKey]:
    """Periods that only reports without counters made: no cell speaks for them, and they are right as they are."""
    return {
        PeriodKey(organization_id, usage.period)
        for usage in await tx.periods_in_force(organization_id, newest=None)
        if not usage.counters and organization.schedule.period_containing(usage.period.start) == usage.period
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


async def project_products(products: Sequence[MeteredProduct], *, tx: UsageTransaction) -> int:
    """Keep the newest revision of each product. When the meters changed, everybody's usage gets a new revision.

    The counters were stored all along, so a meter that is new today is published with its whole history (L5).

    Returns:
        How many organizations are due for publication because of it.
    """
    known = {product.product_key: product for product in await tx.metered_products()}
    before = MeterMap.of(known.values())
    newer: dict[str, MeteredProduct] = {}
    for product in products:
        stored = known.get(product.product_key)
        if stored is None or product.revision > stored.revision:
            known[product.product_key] = newer[product.product_key] = product
    await tx.save_metered_products(newer.values())
    if MeterMap.of(known.values()) == before:
        return 0
    return await tx.raise_all_revisions()
