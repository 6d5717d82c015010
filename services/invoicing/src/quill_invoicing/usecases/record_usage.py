"""A usage snapshot arrives: keep it, note what came too late, tell the rail the running quantity."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.closing import ClosedPeriod, LateUsage
from quill_invoicing.domain.collection import REPORT_STEP, report_instant
from quill_invoicing.domain.invoice_lines import billed_quantity_of
from quill_invoicing.domain.terms import TermsHistory
from quill_invoicing.domain.usage_history import ObservedPeriod, UsageHistory
from quill_invoicing.ports import InvoicingTransaction, PlannedEffect, SentReport

REPORT_USAGE = "report_usage"


async def record_usage(
    organization_id: str,
    observed: Sequence[ObservedPeriod],
    *,
    tx: InvoicingTransaction,
    now: datetime,
    report_every: timedelta,
) -> None:
    """Append what is newer than what is known of each period; a repeat changes nothing."""
    for each in observed:
        is_new = await tx.observe(
            organization_id, each.period, each.observation, corrected_revision=each.corrected_revision
        )
        if not is_new:
            continue
        closed = await tx.closed_period(organization_id, each.period.start)
        if closed is not None:
            await _note_late_usage(closed, revision=each.observation.revision, tx=tx, now=now)
        else:
            await report_running_usage(organization_id, each.period, tx=tx, now=now, report_every=report_every)


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
    usage = await tx.usage_history(organization_id, period)
    for item in terms.metered_items():
        if item.usage_key is None:
            continue
        sent = known.get(item.product_key, SentReport(0, period.start - REPORT_STEP, now))
        quantity = billed_quantity_of(item.product_key, item.usage_key, history=history, usage=usage, period=period)
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
    history = await tx.terms_history(organization)
    usage = await tx.usage_history(organization, closed.period)
    for billed in closed.billed:
        quantity = _quantity_now(billed.product_key, billed.usage_key, closed, history=history, usage=usage)
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


def _quantity_now(
    product_key: str, usage_key: str, closed: ClosedPeriod, *, history: TermsHistory, usage: UsageHistory
) -> int:
    return billed_quantity_of(product_key, usage_key, history=history, usage=usage, period=closed.period)
