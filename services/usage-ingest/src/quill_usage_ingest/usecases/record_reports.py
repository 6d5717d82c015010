"""Enter reports, from wherever they came, and save what they changed (L1, L4)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from quill_usage_ingest.domain.current_usage import CurrentUsage
from quill_usage_ingest.domain.cut_usage import cut_keys
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import UsageStanding
from quill_usage_ingest.domain.usage_book import YEARS, PeriodKey, Refusal, UsageBook, Verdict
from quill_usage_ingest.ports import ArrivedReport, UsageTransaction
from quill_usage_ingest.usecases.accounts import find_account
from quill_usage_ingest.usecases.count_cuts import count_cuts_after
from quill_usage_ingest.usecases.late_usage import may_be_late, publish_late_usage
from quill_usage_ingest.usecases.new_sources import new_sources


async def record_reports(
    arrived: Sequence[ArrivedReport], *, tx: UsageTransaction, now: datetime, is_publication_due: bool
) -> list[Verdict | Refusal]:
    """Enter reports in the order given and save what they changed; one answer per report.

    Refused reports leave no trace here: the caller parks them (L4). ``is_publication_due`` says that the caller has no
    redelivery behind it, so the publishing job must see to the new revisions.

    Raises:
        TooManyCounters: a new counter name found no slot; nothing may be committed.
    """
    standings = await tx.lock_standings({item.report.organization_id for item in arrived})
    book = await _load_book([item for item in arrived if item.report.organization_id in standings], standings, tx)
    outcomes = [book.enter(item.report, now=now) for item in arrived]
    await tx.save_windows({key: book.windows[key] for key in book.changed_windows})
    await tx.save_periods({key: book.periods[key] for key in book.changed_periods})
    kept = [(item, outcome) for item, outcome in zip(arrived, outcomes, strict=True) if isinstance(outcome, Verdict)]
    added = new_sources(((item.report.organization_id, item.report.source) for item, _ in kept), standings)
    await tx.add_sources(added)
    await tx.keep_reports(kept, now=now)
    moved = await count_cuts_after((item.report for item, _ in kept), standings, tx=tx)
    # Snapshots name the sources, so a new one is a new revision even if its report changed no number.
    named = {name: standings[name].usage_revision + 1 for name in {*added, *(cut.organization_id for cut in moved)}}
    await tx.save_revisions(named | book.new_revisions, is_publication_due=is_publication_due)
    changed = {*book.changed_periods, *(PeriodKey(cut.organization_id, cut.period) for cut in moved)}
    await publish_late_usage(may_be_late(changed, now=now), tx=tx)
    return outcomes


async def _load_book(
    arrived: Sequence[ArrivedReport], standings: Mapping[str, UsageStanding], tx: UsageTransaction
) -> UsageBook:
    """Load what the reports touch. One whose content is kept already changes nothing, so nothing is read for it."""
    archived = await tx.archived_months()
    known = await tx.known_contents({item.report.name for item in arrived})
    reports = [item.report for item in arrived if item.report.content_hash not in known.get(item.report.name, ())]
    dated = MeterMap.of(await tx.metered_products()).dated
    book = UsageBook(
        schedules={organization_id: standing.schedules for organization_id, standing in standings.items()},
        revisions={organization_id: standing.usage_revision for organization_id, standing in standings.items()},
        known_contents=known,
        dated=dated,
        archived=archived,
    )
    book.layout = await tx.counter_layout(
        set().union(*(report.counters for report in reports), *(book.dated_names(report) for report in reports))
    )
    if reports:
        book.know_windows(await tx.windows_of_days({report.day_key for report in reports}))
        book.periods |= await tx.periods({book.period_key(r) for r in reports if r.window.start.year in YEARS})
    return book


class NotYours(Exception):
    """The organization does not belong to this license (L18)."""


class OrganizationUnknown(Exception):
    """Nobody knows the organization yet. It may turn out to be the license's, so its report is kept (L4)."""


async def record_daily_report(
    arrived: ArrivedReport, *, license_id: str, is_of_region: bool, tx: UsageTransaction, now: datetime
) -> CurrentUsage | Refusal:
    """Enter a report that came over HTTP from the holder of a license, and read what its organization used.

    A further license reports on the account that names it, under its own source, so that instances add up (O3). A
    region's license has many organizations, every other one has one (L17).

    Raises:
        OrganizationUnknown: it may become this license's; whether it did is decided when the report enters.
        NotYours: the organization belongs to another license, or this license already has another one.
        TooManyCounters: a new counter name found no slot.
    """
    named = arrived.report.organization_id
    account = await find_account(license_id=license_id, organization_id=named, tx=tx)
    if account is None:
        if await _may_become_its_own(named, license_id=license_id, is_of_region=is_of_region, tx=tx):
            raise OrganizationUnknown(named)
        raise NotYours(named)
    organization_id = account.organization_id
    known = await tx.lock_organizations({organization_id})
    if organization_id not in known or not known[organization_id].is_spoken_for_by(license_id):
        raise NotYours(named)
    if organization_id != named:
        arrived = on_account(arrived, organization_id)
    (outcome,) = await record_reports([arrived], tx=tx, now=now, is_publication_due=True)
    if isinstance(outcome, Refusal):
        return outcome
    organization = known[organization_id]
    key = PeriodKey(organization_id, organization.schedules.period_containing(now))
    cuts = [cut for cut in cut_keys(organization_id, organization.schedules, organization.cuts) if cut[:2] == key]
    return CurrentUsage(
        organization=organization,
        period=key.period,
        usage=(await tx.periods({key})).get(key),
        meters=MeterMap.of(await tx.metered_products()),
        cuts={cut.at: used for cut, used in (await tx.cuts(cuts)).items()},
    )


async def _may_become_its_own(named: str, *, license_id: str, is_of_region: bool, tx: UsageTransaction) -> bool:
    """Whether nobody has the organization, and the license has no account that tells it does not belong there."""
    if await tx.organization(named) is not None or await tx.accounts_of_further_license(license_id):
        return False
    return is_of_region or not await tx.has_organization(license_id)


def on_account(arrived: ArrivedReport, organization_id: str) -> ArrivedReport:
    """The report as a claim on the account; the name it came under stays in the note (L5)."""
    note = {**(arrived.arrival.note or {}), "named_organization_id": arrived.report.organization_id}
    return ArrivedReport(replace(arrived.report, organization_id=organization_id), replace(arrived.arrival, note=note))
