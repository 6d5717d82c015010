"""The clock: close what is over, rate it, write the invoice (L12, L13, L21)."""

from datetime import datetime
from itertools import groupby

import structlog

from quill_invoicing.domain.adjustments import Adjustment
from quill_invoicing.domain.closing import ClosedPeriod
from quill_invoicing.domain.completeness_gate import NOBODY_EXPECTED, ExpectedSources
from quill_invoicing.domain.credits import credit_line, entry_of_new
from quill_invoicing.domain.invoice import Invoice, invoice_id_of, invoice_number
from quill_invoicing.domain.invoice_lines import Statement, bill_period
from quill_invoicing.domain.period_close import Grace, period_from
from quill_invoicing.domain.terms import CustomerTerms
from quill_invoicing.ports import InvoicingStore, InvoicingTransaction, PlannedEffect
from quill_invoicing.usecases.hold_closing import record_waivers_used, usage_follows_terms, waivers_to_close_by

COLLECT = "collect"
HOLD_DRAFT = "hold_draft"

log = structlog.get_logger(__name__)


async def close_due_periods(
    *, store: InvoicingStore, grace: Grace, now: datetime, limit: int, expected: ExpectedSources = NOBODY_EXPECTED
) -> int:
    """Close the next period of up to ``limit`` customers, each in its own transaction; returns how many were closed.

    A customer that is several periods behind closes one per run, in order. One whose closing fails is logged and keeps
    its place; it does not stop the others. Neither does one that waits for a source.
    """
    async with store.begin() as tx:
        due = await tx.organizations_to_close(ended_before=grace.ended_before(now), limit=limit, now=now)
    closed = 0
    for organization in due:
        try:
            async with store.begin() as tx:
                closed += await close_period(organization, tx=tx, grace=grace, now=now, expected=expected)
        except Exception as error:
            log.exception("close.failed", organization=organization, error=repr(error))
    return closed


async def close_period(
    organization_id: str,
    *,
    tx: InvoicingTransaction,
    grace: Grace,
    now: datetime,
    expected: ExpectedSources = NOBODY_EXPECTED,
) -> bool:
    """Close a customer's open period if its time has come and all its usage is in; False when there is nothing to do.

    The closing itself is written first: the unique key on it decides between two closers, and everything else of the
    loser is undone with its transaction.
    """
    period = await tx.lock_open_period(organization_id)
    if period is None or not grace.may_close(period, now=now):
        return False
    history = await tx.terms_history(organization_id)
    waivers = await waivers_to_close_by(
        organization_id, period, expected=expected, license_id=history.license_id, tx=tx, now=now
    )
    if waivers is None:
        return False
    usage = await tx.known_usage(organization_id, period)
    if not await usage_follows_terms(organization_id, period, usage, history=history, tx=tx, now=now):
        return False
    statement = bill_period(history, usage, period)
    adjustments = await _adjustments(organization_id, currency=statement.currency, tx=tx)
    owner = history.owner_of(period)
    is_invoiced = bool(statement.is_billed or adjustments)
    closed = ClosedPeriod(
        organization_id=organization_id,
        period=period,
        closed_at=now,
        usage_revision=usage.revision,
        invoice_id=invoice_id_of(organization_id, period) if is_invoiced else None,
        billed=statement.billed,
        waivers=waivers,
    )
    is_first = await tx.close(closed)
    if is_first and closed.invoice_id is not None:
        draft = await _draft(closed, closed.invoice_id, statement, adjustments, owner=owner, tx=tx)
        await _issue(draft, adjustments, owner, tx=tx, now=now)
    await tx.move_open_period(organization_id, period_from(period.end, history.schedules))
    await tx.release_closing(organization_id, period.start)
    if is_first:
        await record_waivers_used(organization_id, period, waivers, tx=tx, now=now)
    return is_first


async def hold_drafts(*, store: InvoicingStore, now: datetime, limit: int) -> int:
    """Ask the rail to keep the drafts of periods that are over until we have closed them; returns how many.

    Stripe finalizes a draft an hour after it made it, long before our grace has passed.
    """
    async with store.begin() as tx:
        waiting = await tx.organizations_to_hold(now=now, limit=limit)
        for organization in waiting:
            period = await tx.open_period(organization)
            account = await tx.rail_account(organization)
            if period is None:
                continue
            await tx.mark_held(organization, period.start)
            if account is None or account.subscription is None:
                continue
            await tx.plan(
                PlannedEffect(
                    operation_id=f"{HOLD_DRAFT}:{organization}:{int(period.start.timestamp())}",
                    kind=HOLD_DRAFT,
                    subject=organization,
                    request={"period_start": period.start.isoformat(), "period_end": period.end.isoformat()},
                ),
                now=now,
            )
    return len(waiting)


async def _draft(
    closed: ClosedPeriod,
    invoice_id: str,
    statement: Statement,
    adjustments: tuple[Adjustment, ...],
    *,
    owner: CustomerTerms,
    tx: InvoicingTransaction,
) -> Invoice:
    """The invoice of a closed period: what it costs, what late usage changes, and the credit it keeps or uses."""
    currency = statement.currency or adjustments[0].currency
    lines = (*statement.lines, *(adjustment.line for adjustment in adjustments))
    balance = await tx.credit_balance(closed.organization_id, currency)
    credit = credit_line(lines, balance_minor=balance, currency=currency, period=closed.period)
    year = closed.closed_at.year
    return Invoice(
        invoice_id=invoice_id,
        number=invoice_number(year, await tx.next_invoice_sequence(year)),
        organization_id=closed.organization_id,
        customer_id=owner.customer_id,
        revision=1,
        status="draft",
        currency=currency,
        collection_mode=owner.collection_mode,
        period=closed.period,
        usage_revision=closed.usage_revision,
        lines=lines if credit is None else (*lines, credit),
        created_at=closed.closed_at,
    )


async def _issue(
    draft: Invoice,
    adjustments: tuple[Adjustment, ...],
    owner: CustomerTerms,
    *,
    tx: InvoicingTransaction,
    now: datetime,
) -> None:
    """Save the draft, freeze it, announce it, and plan its collection."""
    await tx.add_invoice(draft)
    entry = entry_of_new(draft, at=now)
    if entry is not None:
        await tx.add_credit_entry(entry)
    for adjustment in adjustments:
        await tx.settle_late_usage(adjustment.steps, invoice_id=draft.invoice_id)
    invoice = draft.finalized(at=now)
    if invoice.total_minor == 0 and not _is_made_by_rail(invoice, owner):
        await tx.save_invoice(invoice)
        await tx.save_invoice(invoice.settled("paid", at=now).reconciled("equal"))
        return
    await tx.save_invoice(invoice)
    for effect in (
        PlannedEffect(
            operation_id=f"ensure_customer:{invoice.organization_id}",
            kind="ensure_customer",
            subject=invoice.organization_id,
            request={"name": owner.organization_name, "email": owner.email},
        ),
        PlannedEffect(
            operation_id=f"{COLLECT}:{invoice.invoice_id}",
            kind=COLLECT,
            subject=invoice.organization_id,
            request={"invoice_id": invoice.invoice_id},
        ),
    ):
        await tx.plan(effect, now=now)


def _is_made_by_rail(invoice: Invoice, owner: CustomerTerms) -> bool:
    """Whether the rail makes an invoice for this period too, which must then be brought to an end there."""
    return invoice.collection_mode == "stripe-rates" and bool(owner.metered_items())


async def _adjustments(
    organization_id: str, *, currency: str | None, tx: InvoicingTransaction
) -> tuple[Adjustment, ...]:
    """What late usage changes, priced in the period it belongs to (L13).

    An invoice has one currency: that of what is billed, else that of the oldest adjustment. Others wait for an invoice
    in theirs.
    """
    steps = await tx.unsettled_late_usage(organization_id)
    found: list[Adjustment] = []
    for (period_start, product_key), group in groupby(steps, key=lambda step: (step.period_start, step.product_key)):
        closed = await tx.closed_period(organization_id, period_start)
        if closed is None:
            raise AssertionError("late usage refers to a closed period; the foreign key says so")
        found.append(Adjustment.of(closed, product_key, tuple(group)))
    wanted = currency or (found[0].currency if found else None)
    return tuple(each for each in found if each.currency == wanted)
