"""A usage snapshot arrives: keep it, note what came too late, tell the rail the running quantity."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.closing import ClosedPeriod, LateUsage
from quill_invoicing.domain.collection import REPORT_STEP, report_instant
from quill_invoicing.domain.invoice_lines import billed_quantity_of
from quill_invoicing.domain.period_usage import PeriodUsage
from quill_invoicing.ports import InvoicingTransaction, PlannedEffect, SentReport

REPORT_USAGE = "report_usage"


async def record_snapshot(
    organization_id: str,
    periods: Sequence[PeriodUsage],
    *,
    revision: int,
    tx: InvoicingTransaction,
    now: datetime,
    report_every: timedelta,
) -> None:
    """Keep what a snapshot says of the newest periods, and forget periods that a changed schedule has moved away."""
    await tx.forget_other_periods(organization_id, periods, revision=revision)
    await record_usage(organization_id, periods, tx=tx, now=now, report_every=report_every)


async def record_usage(
    organization_id: str,
    periods: Sequence[PeriodUsage],
    *,
    tx: InvoicingTransaction,
    now: datetime,
    report_every: timedelta,
) -> None:
    """Keep what is newer than what is known of each period; a repeat changes nothing."""
    for usage in periods:
        if not await tx.save_usage(organization_id, usage):
            continue
        closed = await tx.closed_period(organization_id, usage.period.start)
        if closed is not None:
            await _note_late_usage(closed, revision=usage.revision, tx=tx, now=now)
        else:
            await report_running_usage(organization_id, usage.period, tx=tx, now=now, report_every=report_every)


async def report_running_usage(
    organization_id: str, period: BillingPeriod, *, tx: InvoicingTransaction, now: datetime, report_every: timedelta
) -> None:
    """Plan a report of each metered product whose billed quantity changed, at most one per ``report_every``.

    The rail bills the last report of a period, so each carries the whole quantity: one that is lost is healed by the
    next, and the closing sends a final one in any case.
    """
    if not period.start <= now < period.end:
        return
    account = await tx.rail_account(organization_id)
    if account is None or account.subscription is None:
        return
    known = await tx.sent_reports(organization_id, period.start)
    if known and all(sent.looked_at + report_every > now for sent in known.values()):
        return
    history = await tx.terms_history(organization_id)
    terms = history.at(now)
    if terms is None or terms.collection_mode != "stripe-rates":
        return
    usage = await tx.known_usage(organization_id, period)
    for item in terms.metered_items():
        sent = known.get(item.product_key, SentReport(0, period.start - REPORT_STEP, now))
        quantity = billed_quantity_of(item, history=history, usage=usage, period=period)
        stamp = report_instant(now=now, last=sent.stamped_at, period=period)
        if stamp is None or quantity == sent.quantity:
            unchanged = replace(sent, looked_at=now)
            await tx.save_sent_report(organization_id, item.product_key, period.start, unchanged)
            continue
        await tx.plan(
            PlannedEffect(
                operation_id=f"{REPORT_USAGE}:{organization_id}:{item.product_key}:{int(stamp.timestamp())}",
                kind=REPORT_USAGE,
                subject=organization_id,
                request={"product_key": item.product_key, "quantity": quantity, "timestamp": stamp.isoformat()},
            ),
            now=now,
        )
        await tx.save_sent_report(
            organization_id, item.product_key, period.start, SentReport(quantity, stamp, looked_at=now)
        )


async def _note_late_usage(closed: ClosedPeriod, *, revision: int, tx: InvoicingTransaction, now: datetime) -> None:
    """Record by how much each billed quantity differs now; the finalized invoice stays as it is (L13)."""
    organization = closed.organization_id
    usage = await tx.known_usage(organization, closed.period)
    if usage.current is None:
        return  # A changed schedule cuts the closed period otherwise; what was billed of it stays.
    history = await tx.terms_history(organization)
    items = {item.product_key: item for _, item in history.items_billed_in(closed.period)}
    for billed in closed.billed:
        item = items.get(billed.product_key)
        if item is None:
            continue
        quantity = billed_quantity_of(item, history=history, usage=usage, period=closed.period)
        last = await tx.late_usage_of(organization, closed.period.start, billed.product_key)
        before = last.quantity_after if last is not None else billed.quantity
        if quantity != before:
            await tx.add_late_usage(
                LateUsage(
                    organization_id=organization,
                    period_start=closed.period.start,
                    product_key=billed.product_key,
                    revision=revision,
                    quantity_before=before,
                    quantity_after=quantity,
                    recorded_at=now,
                )
            )
