"""Apply a correction and take it back: one transaction, one revision, under the organization's row lock (L3, L20).

A preview is the same work in a transaction that is given up: it cannot say anything else than applying would.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

import msgspec

from quill_usage_ingest.domain.archived_month import refuse_archived
from quill_usage_ingest.domain.correction import (
    AppliedCorrection,
    CorrectionKind,
    CorrectionOrder,
    InvalidCorrection,
    Reversion,
    TakenOut,
)
from quill_usage_ingest.domain.correction_effects import PeriodEffect, UsageState, effects
from quill_usage_ingest.domain.cut_usage import cut_keys
from quill_usage_ingest.domain.meter_event import Moment
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.usage_book import Refusal, Verdict
from quill_usage_ingest.domain.usage_report import WindowKey
from quill_usage_ingest.ports import Arrival, ArrivedReport, Corrections, EventTransaction, KeptReport, UsageTransaction
from quill_usage_ingest.usecases.rebuild_windows import rebuild_windows
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.void_events import set_events_voided, usage_of_event_meters

INTAKE: Final = "correction"
_MICROSECOND: Final = timedelta(microseconds=1)


class UnknownOrganization(LookupError):
    """No customer snapshot of this organization has arrived."""


class UnknownCorrection(LookupError):
    """The organization has no correction of this id."""


class CorrectionConflict(Exception):
    """The correction id is known with another content."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """The correction as it stands now; ``is_repeat`` when it did before."""

    correction: AppliedCorrection
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class _Work:
    """What every correction works on."""

    organization: Organization
    known: Sequence[AppliedCorrection]
    at: datetime
    tx: UsageTransaction
    events: EventTransaction

    async def state(self) -> UsageState:
        """What was used so far, by all periods in force."""
        organization = self.organization
        keys = cut_keys(organization.organization_id, organization.schedules, organization.cuts)
        return UsageState(
            await self.tx.periods_in_force(organization.organization_id, newest=None),
            await usage_of_event_meters(organization.organization_id, self.events),
            await self.tx.cuts(keys),
        )

    async def effects_since(self, before: UsageState) -> tuple[PeriodEffect, ...]:
        """What changed, of counters and of meters that events feed."""
        meters = MeterMap.of(await self.tx.metered_products())
        customer = self.organization.customer
        return effects(before, await self.state(), meters=meters, customer=customer, now=self.at)


async def apply_correction(
    order: CorrectionOrder,
    *,
    tx: UsageTransaction,
    events: EventTransaction,
    corrections: Corrections,
    now: datetime,
) -> Corrected:
    """Do what a person ordered, or find that it was done.

    Raises:
        UnknownOrganization: nobody to correct.
        CorrectionConflict: the id is known with another content.
        InvalidCorrection: naming the field; nothing may be committed.
        MonthArchived: what it would touch is not here; nothing may be committed.
        TooManyCounters: a replaced counter's name found no slot; nothing may be committed.
    """
    work = await _begin(order.organization_id, tx=tx, events=events, corrections=corrections, now=now)
    for known in work.known:
        if known.order.correction_id == order.correction_id:
            if known.order.content_hash != order.content_hash:
                raise CorrectionConflict(f"correction_id: {order.correction_id} is known with another content")
            return Corrected(known, is_repeat=True)
    before = await work.state()
    taken_out: tuple[TakenOut, ...] = ()
    entered_ids: tuple[int, ...] = ()
    match order.kind:
        case CorrectionKind.VOID:
            taken_out = await _void(order, work)
        case CorrectionKind.REPLACE:
            entered_ids = await _replace(order, work)
        case CorrectionKind.VOID_EVENTS:
            await _void_events(order, work)
        case _:
            assert_never(order.kind)
    applied = AppliedCorrection(order, work.at, taken_out, entered_ids, await work.effects_since(before))
    await corrections.save(applied)
    return Corrected(applied, is_repeat=False)


async def revert_correction(
    organization_id: str,
    correction_id: str,
    *,
    actor: str,
    reason: str,
    tx: UsageTransaction,
    events: EventTransaction,
    corrections: Corrections,
    now: datetime,
) -> Corrected:
    """Take a correction back: what it voided counts again, what it entered does not. Repeating changes nothing.

    Raises:
        UnknownOrganization | UnknownCorrection: nothing to take back.
        InvalidCorrection: its events cannot be counted again now.
        MonthArchived: what it touched is not here.
    """
    work = await _begin(organization_id, tx=tx, events=events, corrections=corrections, now=now)
    found = next((each for each in work.known if each.order.correction_id == correction_id), None)
    if found is None:
        raise UnknownCorrection(correction_id)
    if not found.is_in_force:
        return Corrected(found, is_repeat=True)
    before = await work.state()
    others = [each for each in work.known if each.is_in_force and each is not found]
    if found.order.kind is CorrectionKind.VOID_EVENTS:
        await _let_events_count(found.order, others, work)
    else:
        await _let_reports_count(found, others, work)
    reverted = found.reverted(Reversion(actor, reason, work.at, await work.effects_since(before)))
    await corrections.save(reverted)
    return Corrected(reverted, is_repeat=False)


async def _begin(
    organization_id: str,
    *,
    tx: UsageTransaction,
    events: EventTransaction,
    corrections: Corrections,
    now: datetime,
) -> _Work:
    """Lock the organization: of two operators one waits and then sees what the other did."""
    await events.share_meters()
    organization = (await tx.lock_organizations({organization_id})).get(organization_id)
    if organization is None:
        raise UnknownOrganization(organization_id)
    known = await corrections.of_organization(organization_id)
    # Later than every earlier one, whatever the clocks of two machines say, since the newest replacement wins (L1).
    instants = [each.reversion.at if each.reversion else each.applied_at for each in known]
    at = max([now, *(instant + _MICROSECOND for instant in instants)])
    return _Work(organization, known, at, tx, events)


async def _void(order: CorrectionOrder, work: _Work) -> tuple[TakenOut, ...]:
    kept = await _kept(work, order.kept_ids)
    before = {taken.kept_id: taken.verdict for each in work.known if each.is_in_force for taken in each.taken_out}
    taken_out = []
    for position, kept_id in enumerate(order.kept_ids):
        report = kept.get(kept_id)
        attribute = f"report_ids__{position}"
        if report is None:
            detail = (
                f"{attribute}: no report {kept_id} is kept for this organization, or its month is archived; take ids"
                " from its reports"
            )
            raise InvalidCorrection("unknown_report", detail, attribute)
        if report.intake == INTAKE:
            detail = f"{attribute}: report {kept_id} is a correction's own; revert that correction instead"
            raise InvalidCorrection("is_a_correction", detail, attribute)
        verdict = Verdict(report.verdict)
        taken_out.append(TakenOut(kept_id, report.window_start, before.get(kept_id, verdict)))
    await _set_verdicts(work, {t.kept_id: Verdict.VOIDED for t in taken_out if t.kept_id not in before}, kept)
    return tuple(taken_out)


async def _let_reports_count(found: AppliedCorrection, others: Collection[AppliedCorrection], work: _Work) -> None:
    """What it voided counts again unless another correction voids it too; what it entered does not any more."""
    still_out = {taken.kept_id for each in others for taken in each.taken_out}
    archived = await work.tx.archived_months()
    for start in [taken.window_start for taken in found.taken_out] + [
        each.window.start for each in found.order.windows
    ]:
        refuse_archived(archived, start, start + _MICROSECOND)
    kept = await _kept(work, [*(taken.kept_id for taken in found.taken_out), *found.entered_ids])
    verdicts = {taken.kept_id: taken.verdict for taken in found.taken_out if taken.kept_id not in still_out}
    verdicts |= dict.fromkeys(found.entered_ids, Verdict.VOIDED)
    await _set_verdicts(work, {kept_id: verdict for kept_id, verdict in verdicts.items() if kept_id in kept}, kept)


async def _void_events(order: CorrectionOrder, work: _Work) -> None:
    voided = {moment for each in work.known if each.is_in_force for moment in each.order.moments}
    await _set_voided(order, voided, work, voided_at=work.at)


async def _let_events_count(order: CorrectionOrder, others: Collection[AppliedCorrection], work: _Work) -> None:
    still_voided = {moment for each in others for moment in each.order.moments}
    await _set_voided(order, still_voided, work, voided_at=None)


async def _set_voided(
    order: CorrectionOrder, voided_by_others: Collection[Moment], work: _Work, *, voided_at: datetime | None
) -> None:
    await set_events_voided(
        order,
        [moment for moment in order.moments if moment not in voided_by_others],
        work.organization,
        voided_at=voided_at,
        tx=work.tx,
        events=work.events,
    )


async def _replace(order: CorrectionOrder, work: _Work) -> tuple[int, ...]:
    if order.source is None or order.start is None or order.end is None:
        raise InvalidCorrection("required", "source, start and end: a replacement needs all three", "source")
    await _check_windows(order, order.start, order.end, work)
    arrived = [
        ArrivedReport(
            order.replacement_report(replacement, as_of=work.at),
            Arrival(INTAKE, msgspec.json.encode({"correction_id": order.correction_id, "replacement": replacement})),
        )
        for replacement in order.windows
    ]
    outcomes = await record_reports(arrived, tx=work.tx, now=work.at, is_publication_due=True)
    for position, outcome in enumerate(outcomes):
        if isinstance(outcome, Refusal):
            attribute = f"windows__{position}__{outcome.attribute}"
            raise InvalidCorrection(outcome.code, f"{attribute}: {outcome.detail}", attribute)
    names = {item.report.name for item in arrived}
    claims = await work.tx.kept_claims(order.organization_id, order.start, order.end, source=order.source)
    return tuple(claim.kept.id for claim in claims if claim.report.name in names)


async def _check_windows(order: CorrectionOrder, span_start: datetime, span_end: datetime, work: _Work) -> None:
    """The range is replaced as a whole: a window of the source in it that is not named would silently stay."""
    named = set()
    for position, replacement in enumerate(order.windows):
        start = replacement.window.start
        attribute = f"windows__{position}__window_start"
        if not span_start <= start < span_end:
            raise InvalidCorrection("invalid_input", f"{attribute}: must be within start and end", attribute)
        if start in named:
            raise InvalidCorrection("invalid_input", f"{attribute}: is given twice", attribute)
        named.add(start)
    held = await work.tx.windows_between(order.organization_id, span_start, span_end)
    left = [key.start for key, _ in held if key.source == order.source and key.start not in named]
    if left:
        detail = (
            f"windows: {order.source} also reported the window of {left[0].isoformat()} in this span"
            f"{f' and {len(left) - 1} more' if len(left) > 1 else ''}; name each, or give a shorter span"
        )
        raise InvalidCorrection("window_left_out", detail, "windows")


async def _kept(work: _Work, kept_ids: Collection[int]) -> Mapping[int, KeptReport]:
    """The kept reports of these ids that belong to the organization."""
    return await work.tx.kept_reports_of_ids(work.organization.organization_id, kept_ids)


async def _set_verdicts(work: _Work, verdicts: Mapping[int, Verdict], kept: Mapping[int, KeptReport]) -> None:
    """Change which reports count and make the cells of their windows again (L3)."""
    organization_id = work.organization.organization_id
    for verdict in sorted(set(verdicts.values())):
        await work.tx.set_verdict([kept_id for kept_id, each in verdicts.items() if each is verdict], verdict)
    keys = {WindowKey(organization_id, kept[kept_id].window_start, kept[kept_id].source) for kept_id in verdicts}
    await rebuild_windows(keys, tx=work.tx)
