"""Collect a finalized invoice and compare it with what the rail made of it (L15, L16)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from quill_invoicing.domain.collection import (
    Attempt,
    ChargedLine,
    MeterReport,
    RailInvoice,
    RailLine,
    final_report_instant,
)
from quill_invoicing.domain.credits import entry_of_voided
from quill_invoicing.domain.invoice import Invoice
from quill_invoicing.domain.reconciliation import Reconciliation, compare
from quill_invoicing.ports import InvoicingStore, InvoicingTransaction, PaymentRail, PlannedEffect, RailAccount
from quill_invoicing.usecases.rail_effects import NotReadyYet

END_SUBSCRIPTION = "end_subscription"
RATED_BY_RAIL = frozenset({"usage", "package", "flat_fee"})
UNCOUNTED_TRIES = 8
"""How often to wait for the rail to count the final reports; after that its invoice is taken as it is and compared."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """What is needed to collect one invoice."""

    invoice: Invoice
    account: RailAccount
    final_quantities: Mapping[str, int]
    """Billed quantity by product, of the products that the rail rates; empty when it rates none."""


async def collect_invoice(
    invoice_id: str, *, store: InvoicingStore, rail: PaymentRail, attempt: Attempt
) -> dict[str, Any]:
    """Bring the invoice to the rail, make it final there and try to collect it; safe to repeat at any point.

    stripe-rates: send the final quantities, wait until they are counted, take the draft that the rail made for the
    period, add the lines that it does not rate itself (licensed, adjustments), finalize, pay. Otherwise: make an
    invoice of our own lines.

    Raises:
        NotReadyYet: the customer, the draft or the counting is not there yet.
    """
    work = await _load(invoice_id, store=store)
    if work.final_quantities:
        collected = await _collect_rated_by_rail(work, rail=rail, attempt=attempt)
    else:
        collected = await _collect_own_lines(work, rail=rail, attempt=attempt)
    if collected is None:
        return {"reference": None, "status": "paid", "total_minor": 0, "problem": None, "lines": []}
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
            }
            for line in lines
        ],
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


async def _load(invoice_id: str, *, store: InvoicingStore) -> Collection:
    async with store.begin() as tx:
        invoice = await tx.invoice(invoice_id)
        if invoice is None:
            raise AssertionError(f"invoice {invoice_id} was planned for collection and is gone")
        account = await tx.rail_account(invoice.organization_id)
        closed = await tx.closed_period(invoice.organization_id, invoice.period.start)
        if account is None:
            raise NotReadyYet(f"{invoice.organization_id} has no customer at the rail yet")
        quantities: dict[str, int] = {}
        if invoice.collection_mode == "stripe-rates" and closed is not None:
            if closed.billed and account.subscription is None:
                raise NotReadyYet(f"{invoice.organization_id} has no subscription at the rail yet")
            if account.billed_from is not None and account.billed_from <= invoice.period.start:
                quantities = {billed.product_key: billed.quantity for billed in closed.billed}
    return Collection(invoice, account, quantities)


async def _collect_rated_by_rail(work: Collection, *, rail: PaymentRail, attempt: Attempt) -> RailInvoice | None:
    invoice, account = work.invoice, work.account
    if account.subscription is None:
        raise NotReadyYet(f"{invoice.organization_id} has no subscription at the rail yet")
    found = await rail.find_period_invoice(
        customer=account.customer, subscription=account.subscription, period=invoice.period
    )
    if found is None:
        if invoice.total_minor == 0:
            return None
        raise NotReadyYet(f"the rail has made no invoice for {invoice.number} yet")
    if found.status == "draft":
        await _send_final_quantities(work, rail=rail, attempt=attempt)
        await rail.hold_draft(found.reference, attempt=attempt.step("hold"))
        await rail.charge_lines(
            found.reference,
            [_charged(invoice, n) for n, line in enumerate(invoice.lines) if line.kind not in RATED_BY_RAIL],
            quill_invoice_id=invoice.invoice_id,
            attempt=attempt.step("lines"),
        )
        found = await rail.finalize(found.reference, attempt=attempt.step("finalize"))
    return await _pay(found, rail=rail, attempt=attempt)


async def _collect_own_lines(work: Collection, *, rail: PaymentRail, attempt: Attempt) -> RailInvoice | None:
    invoice = work.invoice
    if invoice.total_minor == 0:
        return None
    made = await rail.create_invoice(
        customer=work.account.customer,
        currency=invoice.currency,
        quill_invoice_id=invoice.invoice_id,
        lines=[_charged(invoice, number) for number in range(len(invoice.lines))],
        attempt=attempt.step("create"),
    )
    if made.status == "draft":
        made = await rail.finalize(made.reference, attempt=attempt.step("finalize"))
    return await _pay(made, rail=rail, attempt=attempt)


async def _pay(invoice: RailInvoice, *, rail: PaymentRail, attempt: Attempt) -> RailInvoice:
    """Zero is paid already; a refused card leaves the invoice open, for the rail's retries and the customer."""
    if invoice.status != "open":
        return invoice
    return await rail.pay(invoice.reference, attempt=attempt.step("pay"))


async def _send_final_quantities(work: Collection, *, rail: PaymentRail, attempt: Attempt) -> None:
    period = work.invoice.period
    for product_key, quantity in sorted(work.final_quantities.items()):
        counted = await rail.usage_seen(customer=work.account.customer, product_key=product_key, period=period)
        if counted == quantity:
            continue
        report = MeterReport(
            customer=work.account.customer,
            product_key=product_key,
            quantity=quantity,
            timestamp=final_report_instant(period),
        )
        await rail.report_usage(report, attempt=attempt.step(f"final:{product_key}"))
        counted = await rail.usage_seen(customer=work.account.customer, product_key=product_key, period=period)
        if counted not in (None, quantity) and attempt.number < UNCOUNTED_TRIES:
            raise NotReadyYet(f"the rail counts {counted} of {quantity} {product_key} so far")


def _charged(invoice: Invoice, number: int) -> ChargedLine:
    line = invoice.lines[number]
    return ChargedLine(
        product_key=line.product_key,
        description=line.description,
        quantity=line.quantity,
        amount_minor=line.amount_minor,
        service_period=line.service_period,
    )


async def _end_subscription_of_leaver(organization_id: str, *, tx: InvoicingTransaction, now: datetime) -> None:
    """Only after the last invoice: ending it earlier would drop the usage it has not billed yet."""
    account = await tx.rail_account(organization_id)
    history = await tx.terms_history(organization_id)
    if account is None or account.subscription is None or not history.versions:
        return
    if not history.versions[-1].metered_items():
        await tx.plan(
            PlannedEffect(
                operation_id=f"{END_SUBSCRIPTION}:{organization_id}:{account.subscription}",
                kind=END_SUBSCRIPTION,
                subject=organization_id,
                request={},
            ),
            now=now,
        )
