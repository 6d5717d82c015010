"""Collect a finalized invoice and compare it with what the rail made of it (L15, L16)."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from quill_invoicing.domain.charged_lines import RATED_KINDS, charged_lines, positions_of
from quill_invoicing.domain.collection import (
    Attempt,
    MeterReport,
    RailInvoice,
    RailLine,
    final_report_instant,
    is_too_old,
)
from quill_invoicing.domain.credits import entry_of_voided
from quill_invoicing.domain.invoice import Invoice
from quill_invoicing.domain.operator_alert import RailNotice
from quill_invoicing.domain.reconciliation import Reconciliation, compare
from quill_invoicing.ports import (
    InvoicingStore,
    InvoicingTransaction,
    PaymentRail,
    PlannedEffect,
    RailAccount,
    RailRefused,
)
from quill_invoicing.usecases.operator_alerts import notice_documents, raise_noticed
from quill_invoicing.usecases.rail_effects import NotReadyYet

END_SUBSCRIPTION = "end_subscription"
UNSENT_LOOKED_AT = 24
AMOUNT_DIFFERS = "amount_differs"
PATIENT_TRIES = 8
"""How often to wait for the rail (to count the final reports, to make its draft); more than a day. After that we charge
our own lines."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """What is needed to collect one invoice.

    Attributes:
        final_quantities: Billed quantity by product, of the products that the rail rates.
        billed: Every metered product of the closing.
        has_draft: Whether the rail makes a draft for the period.
    """

    invoice: Invoice
    account: RailAccount
    final_quantities: Mapping[str, int]
    billed: frozenset[str]
    has_draft: bool


async def collect_invoice(
    invoice_id: str, *, store: InvoicingStore, rail: PaymentRail, attempt: Attempt, now: datetime
) -> dict[str, Any]:
    """Bring the invoice to the rail, make it final there and try to collect it; safe to repeat at any point.

    stripe-rates: send the final quantities, wait until they are counted, take the draft that the rail made for the
    period, add the lines that it does not rate itself, finalize, pay. Otherwise: make an invoice of our own lines.
    What the rail cannot rate is charged by our own lines; what it rated of that is taken back on the same draft.

    Raises:
        NotReadyYet: the customer, the draft or the counting is not there yet.
    """
    work = await _load(invoice_id, store=store, attempt=attempt)
    notices: list[RailNotice] = []
    draft = await _period_draft(work, rail=rail, attempt=attempt, notices=notices) if work.has_draft else None
    if draft is not None:
        collected = await _collect_on_draft(work, draft, rail=rail, attempt=attempt, now=now, notices=notices)
    elif work.invoice.total_minor == 0:
        return {"reference": None, "status": "paid", "total_minor": 0, "problem": None, "lines": [], "notices": []}
    else:
        collected = await _collect_own_lines(work, rail=rail, attempt=attempt)
    lines = await rail.lines(collected.reference)
    return {
        "reference": collected.reference,
        "status": collected.status,
        "total_minor": collected.total_minor,
        "problem": collected.problem,
        "lines": [
            {
                "product_key": line.product_key,
                "description": line.description,
                "quantity": line.quantity,
                "amount_minor": line.amount_minor,
                "label": line.label,
            }
            for line in lines
        ],
        "notices": notice_documents(notices),
    }


async def conclude_collection(
    invoice_id: str, result: Mapping[str, Any], *, tx: InvoicingTransaction, now: datetime
) -> None:
    """Store the comparison, the invoice's new state, and end the rail's subscription of a customer who left."""
    invoice = await tx.invoice(invoice_id, locked=True)
    if invoice is None:
        raise AssertionError(f"invoice {invoice_id} was planned for collection and is gone")
    theirs = [RailLine(**line) for line in result["lines"]]
    differences = compare(invoice.lines, theirs, rail_total_minor=result["total_minor"])
    await tx.save_reconciliation(
        Reconciliation(
            reconciliation_id=invoice.invoice_id,
            organization_id=invoice.organization_id,
            invoice_id=invoice.invoice_id,
            compared_at=now,
            our_total_minor=invoice.total_minor,
            rail_total_minor=result["total_minor"],
            differences=differences,
        )
    )
    if differences:
        log.warning("reconciliation.different", invoice=invoice.number, differences=len(differences))
    changed = invoice.reconciled("different" if differences else "equal")
    if result["reference"] is not None:
        changed = changed.collected_as(result["reference"], problem=result["problem"])
    changed = with_rail_status(changed, result["status"], at=now)
    await _save_change(invoice, changed, tx=tx, now=now)
    await raise_noticed(result, tx=tx, now=now)
    await _end_subscription_of_leaver(invoice.organization_id, tx=tx, now=now)


async def refresh_invoice(reference: str, *, store: InvoicingStore, rail: PaymentRail, now: datetime) -> str:
    """Take over an invoice's current state from the rail; says in a word what was done (L19)."""
    current = await rail.invoice(reference)
    async with store.begin() as tx:
        known = await tx.invoice_at_rail(reference)
        if known is None and current.quill_invoice_id is not None:
            known = await tx.invoice(current.quill_invoice_id)
        if known is None:
            return "unknown_invoice"
        invoice = await tx.invoice(known.invoice_id, locked=True)
        if invoice is None or invoice.status in ("paid", "void", "draft"):
            return "already_settled"
        problem = None if current.status == "paid" else current.problem or invoice.collection_problem
        changed = with_rail_status(invoice.collected_as(reference, problem=problem), current.status, at=now)
        if changed == invoice:
            return "unchanged"
        await _save_change(invoice, changed, tx=tx, now=now)
        return f"now_{changed.status}"


async def _save_change(before: Invoice, after: Invoice, *, tx: InvoicingTransaction, now: datetime) -> None:
    """Save a new state; the credits of an invoice that is voided go back to the customer's balance."""
    if after == before:
        return
    await tx.save_invoice(after)
    returned = entry_of_voided(after, at=now) if after.status == "void" and before.status != "void" else None
    if returned is not None:
        await tx.add_credit_entry(returned)


def with_rail_status(invoice: Invoice, status: str, *, at: datetime) -> Invoice:
    """The invoice in the state that the rail reports; draft and open there leave ours finalized."""
    match status:
        case "paid" | "void" | "uncollectible":
            return invoice.settled(status, at=at)
        case _:
            return invoice


async def _load(invoice_id: str, *, store: InvoicingStore, attempt: Attempt) -> Collection:
    async with store.begin() as tx:
        invoice = await tx.invoice(invoice_id)
        if invoice is None:
            raise AssertionError(f"invoice {invoice_id} was planned for collection and is gone")
        account = await tx.rail_account(invoice.organization_id)
        closed = await tx.closed_period(invoice.organization_id, invoice.period.start)
    if account is None:
        raise NotReadyYet(f"{invoice.organization_id} has no customer at the rail yet")
    quantities: dict[str, int] = {}
    billed = () if closed is None else closed.billed
    has_draft = False
    if invoice.collection_mode == "stripe-rates" and billed:
        if account.subscribed_revision is None and attempt.number < PATIENT_TRIES:
            raise NotReadyYet(f"{invoice.organization_id} has no subscription at the rail yet")
        start = invoice.period.start
        has_draft = account.subscription is not None and (account.billed_from is None or account.billed_from <= start)
        quantities = {
            each.product_key: each.quantity
            for each in billed
            if has_draft and each.product_key in account.rated_from and account.rated_from[each.product_key] <= start
        }
    return Collection(invoice, account, quantities, frozenset(each.product_key for each in billed), has_draft)


async def _period_draft(
    work: Collection, *, rail: PaymentRail, attempt: Attempt, notices: list[RailNotice]
) -> RailInvoice | None:
    """What the rail made for the period; None when it made nothing, so that we make an invoice.

    Raises:
        NotReadyYet: it may still make one.
    """
    invoice, account = work.invoice, work.account
    if account.subscription is None:
        return None
    found = await rail.find_period_invoice(
        customer=account.customer, subscription=account.subscription, period=invoice.period
    )
    if found is not None or not work.final_quantities or invoice.total_minor == 0:
        return found
    if attempt.number < PATIENT_TRIES:
        raise NotReadyYet(f"the rail has made no invoice for {invoice.number} yet")
    detail = f"invoice {invoice.number} is charged by own lines: the rail has made none for its period"
    notices.append(RailNotice("draft_missing", invoice.organization_id, detail))
    return None


async def _collect_on_draft(
    work: Collection,
    found: RailInvoice,
    *,
    rail: PaymentRail,
    attempt: Attempt,
    now: datetime,
    notices: list[RailNotice],
) -> RailInvoice:
    invoice = work.invoice
    if found.status == "draft":
        await rail.hold_draft(found.reference, attempt=attempt.step("hold"))
        before = _charged_already(invoice, await rail.lines(found.reference))
        rated = {
            product
            for product in sorted(work.final_quantities)
            if product not in before
            and await _is_counted(product, work, rail=rail, attempt=attempt, now=now, notices=notices)
        }
        reversals = _rated_amounts(await rail.lines(found.reference), work.billed - rated)
        charged = await rail.charge_lines(
            found.reference,
            charged_lines(invoice, rated=rated, reversals=reversals),
            quill_invoice_id=invoice.invoice_id,
            attempt=attempt.step("lines"),
        )
        if charged.total_minor < 0 and attempt.number < PATIENT_TRIES:
            # Final now, the rail would keep the difference as its own credit, beside ours.
            raise NotReadyYet(f"the rail's draft of {invoice.number} is below zero until it counts what was reported")
        found = await rail.finalize(found.reference, attempt=attempt.step("finalize"))
    is_above = found.status == "open" and found.total_minor > invoice.total_minor
    if is_above and _charged_already(invoice, await rail.lines(found.reference)):
        # It has counted after all what we charge by our own lines: nobody pays twice before a person has looked.
        detail = f"{found.reference} comes to {found.total_minor}, our invoice to {invoice.total_minor}: not collected"
        notices.append(RailNotice("amount_differs", invoice.number, detail))
        return replace(found, problem=AMOUNT_DIFFERS)
    return await _pay(found, rail=rail, attempt=attempt)


async def _collect_own_lines(work: Collection, *, rail: PaymentRail, attempt: Attempt) -> RailInvoice:
    invoice = work.invoice
    made = await rail.create_invoice(
        customer=work.account.customer,
        currency=invoice.currency,
        quill_invoice_id=invoice.invoice_id,
        lines=charged_lines(invoice, rated=(), reversals={}),
        attempt=attempt.step("create"),
    )
    if made.status == "draft":
        made = await rail.finalize(made.reference, attempt=attempt.step("finalize"))
    return await _pay(made, rail=rail, attempt=attempt)


def _charged_already(invoice: Invoice, lines: Iterable[RailLine]) -> set[str]:
    """Products whose usage an earlier try put on the draft as our own lines: they stay so."""
    positions = {position for line in lines for position in positions_of(line.label or "") or ()}
    return {
        line.product_key
        for position, line in enumerate(invoice.lines)
        if position in positions and line.kind in RATED_KINDS
    }


def _rated_amounts(lines: Iterable[RailLine], products: AbstractSet[str]) -> dict[str, int]:
    """What the rail rated of some products, by product; minor units, 0 for lines that cost nothing."""
    amounts: dict[str, int] = {}
    for line in lines:
        is_own = line.label is None and (line.quantity or line.amount_minor)
        if is_own and line.product_key is not None and line.product_key in products:
            amounts[line.product_key] = amounts.get(line.product_key, 0) + line.amount_minor
    return amounts


async def _pay(invoice: RailInvoice, *, rail: PaymentRail, attempt: Attempt) -> RailInvoice:
    """Zero is paid already; a refused card leaves the invoice open, for the rail's retries and the customer."""
    if invoice.status != "open":
        return invoice
    return await rail.pay(invoice.reference, attempt=attempt.step("pay"))


async def _is_counted(
    product_key: str,
    work: Collection,
    *,
    rail: PaymentRail,
    attempt: Attempt,
    now: datetime,
    notices: list[RailNotice],
) -> bool:
    """Whether the rail will rate the final quantity of a product, reporting it if need be; False: charge our own lines.

    Raises:
        NotReadyYet: it has taken the report and not counted it yet.
    """
    period, customer, quantity = work.invoice.period, work.account.customer, work.final_quantities[product_key]
    counted = await rail.usage_seen(customer=customer, product_key=product_key, period=period)
    if counted == quantity:
        return True
    number = work.invoice.number
    report = MeterReport(customer, product_key, quantity, final_report_instant(period))
    if is_too_old(report.timestamp, now=now):
        detail = f"invoice {number} is charged by own lines: the rail's meter takes nothing as old as its period"
        notices.append(RailNotice("usage_too_old", product_key, detail))
        return False
    try:
        await rail.report_usage(report, attempt=attempt.step(f"final:{product_key}"))
    except RailRefused as refusal:
        notices.append(RailNotice("usage_refused", product_key, f"invoice {number} is charged by own lines: {refusal}"))
        return False
    counted = await rail.usage_seen(customer=customer, product_key=product_key, period=period)
    if counted in (None, quantity):
        return True
    if attempt.number < PATIENT_TRIES:
        raise NotReadyYet(f"the rail counts {counted} of {quantity} {product_key} so far")
    detail = f"invoice {number} is charged by own lines: the rail counts {counted} of {quantity}"
    notices.append(RailNotice("usage_uncounted", product_key, detail))
    return False


async def _end_subscription_of_leaver(organization_id: str, *, tx: InvoicingTransaction, now: datetime) -> None:
    """Only after the last invoice: ending it earlier would drop the usage it has not billed yet."""
    account = await tx.rail_account(organization_id)
    history = await tx.terms_history(organization_id)
    if account is None or account.subscription is None or not history.versions:
        return
    unsent = any(
        each.status == "finalized" and each.rail_invoice is None and each.collection_mode == "stripe-rates"
        for each in await tx.invoices_of(organization_id, limit=UNSENT_LOOKED_AT)
    )
    if not unsent and not history.versions[-1].metered_items():
        await tx.plan(
            PlannedEffect(
                operation_id=f"{END_SUBSCRIPTION}:{organization_id}:{account.subscription}",
                kind=END_SUBSCRIPTION,
                subject=organization_id,
                request={},
            ),
            now=now,
        )
