"""Messages and HTTP models to domain values and back."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from quill_contracts import invoices as wire_invoices
from quill_contracts import usage as wire_usage
from quill_contracts.sources import UsageSource
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot
from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.price import price_from_document

from quill_invoicing.domain.closing import ClosedPeriod
from quill_invoicing.domain.completeness_gate import HeldClosing, SourceStanding, Waiver
from quill_invoicing.domain.invoice import Invoice, InvoiceLine
from quill_invoicing.domain.period_usage import PeriodUsage
from quill_invoicing.domain.reconciliation import Reconciliation
from quill_invoicing.domain.terms import CustomerTerms, ItemChange, TermsItem


def from_wire_customer(snapshot: CustomerSnapshot) -> CustomerTerms:
    """The terms in a customer snapshot.

    Raises:
        quill_pricing.price.InvalidPrice: a subscribed item's price cannot be billed; better known now than at closing.
        quill_pricing.period.InvalidPeriod: the period is empty.
    """
    items = tuple(
        TermsItem(
            product_key=item.product_key,
            usage_key=item.usage_key,
            price_id=item.price_id,
            price_document=item.price.model_dump(mode="json", exclude_none=True),
            subscribed=item.subscribed,
            quota=item.quota,
            quantity=item.quantity,
            aggregation=item.aggregation,
            carried=item.carried,
            changes=tuple(
                ItemChange(change.at, paid=change.paid, quota=change.quota, quantity=change.quantity)
                for change in item.changes
            ),
        )
        for item in snapshot.items
    )
    for item in items:
        price_from_document(item.price_document)
    return CustomerTerms(
        organization_id=snapshot.organization_id,
        organization_name=snapshot.organization_name,
        email=snapshot.email,
        customer_id=snapshot.customer_id,
        license_id=snapshot.license_id,
        revision=snapshot.revision,
        effective_at=snapshot.effective_at,
        has_active_subscription=snapshot.has_active_subscription,
        subscription_id=snapshot.subscription_id,
        collection_mode=snapshot.collection_mode,
        anchor=snapshot.schedule.anchor,
        interval=snapshot.schedule.interval,
        period=BillingPeriod(snapshot.period.start, snapshot.period.end),
        items=items,
        free_trial_until=snapshot.free_trial_until,
    )


def from_wire_period_usage(snapshot: PeriodUsageSnapshot) -> list[PeriodUsage]:
    """Each period of a usage snapshot, at the snapshot's revision.

    Raises:
        quill_pricing.period.InvalidPeriod: a period is empty.
    """
    return [_from_wire_period(each, revision=snapshot.revision) for each in snapshot.periods]


def from_wire_late_usage(late: wire_usage.LateUsage) -> PeriodUsage:
    """The one period of a late-usage record.

    Raises:
        quill_pricing.period.InvalidPeriod: the period is empty.
    """
    return _from_wire_period(late.period, revision=late.revision)


def _from_wire_period(each: wire_usage.PeriodUsage, *, revision: int) -> PeriodUsage:
    return PeriodUsage(
        period=BillingPeriod(each.period_start, each.period_end),
        revision=revision,
        customer_revision=each.customer_revision,
        meters={key: meter.maximum for key, meter in each.meters.items()},
        cuts={cut.at: cut.used for cut in each.cuts},
    )


def from_wire_source(wire: UsageSource) -> SourceStanding:
    """What a source's snapshot says, as far as closing needs it."""
    return SourceStanding(
        source=wire.source,
        revision=wire.revision,
        is_expected=wire.is_expected,
        state=wire.state,
        complete_through=wire.complete_through,
        heard_at=wire.heard_at,
        waivers=tuple(
            Waiver(
                source=wire.source,
                waiver_id=waiver.waiver_id,
                through=waiver.through,
                actor=waiver.actor,
                reason=waiver.reason,
                at=waiver.at,
                organization_id=waiver.organization_id,
            )
            for waiver in wire.waivers
        ),
    )


def to_wire_invoice(invoice: Invoice) -> wire_invoices.Invoice:
    """The invoice as it travels."""
    return wire_invoices.Invoice(
        invoice_id=invoice.invoice_id,
        number=invoice.number,
        organization_id=invoice.organization_id,
        revision=invoice.revision,
        status=invoice.status,
        currency=invoice.currency,
        period_start=invoice.period.start,
        period_end=invoice.period.end,
        finalized_at=invoice.finalized_at,
        total_minor=invoice.total_minor,
        lines=[_to_wire_line(line) for line in invoice.lines],
        stripe_invoice_id=invoice.rail_invoice,
        reconciliation=invoice.reconciliation,
    )


def _to_wire_line(line: InvoiceLine) -> wire_invoices.InvoiceLine:
    return wire_invoices.InvoiceLine(
        product_key=line.product_key,
        usage_key=line.usage_key,
        description=line.description,
        quantity=line.quantity,
        unit_amount=format(line.unit_amount, "f"),
        amount_minor=line.amount_minor,
        service_period_start=line.service_period.start,
        service_period_end=line.service_period.end,
    )


class LineView(wire_invoices.InvoiceLine):
    """A line as the API shows it: also which tier it is, and the amount in major units."""

    kind: str
    tier: int | None
    amount: str


class DifferenceView(BaseModel):
    """One classified difference (L16)."""

    kind: str
    product_key: str | None
    description: str
    ours: int | None
    theirs: int | None


class ReconciliationView(BaseModel):
    """The comparison of one invoice with the payment rail's."""

    reconciliation_id: str
    organization_id: str
    invoice_id: str
    compared_at: datetime
    result: str
    our_total_minor: int
    stripe_total_minor: int
    differences: list[DifferenceView]
    accepted_by: str | None
    accepted_reason: str | None
    accepted_at: datetime | None


class InvoiceView(BaseModel):
    """An invoice as the API shows it."""

    invoice_id: str
    number: str
    organization_id: str
    customer_id: str
    status: str
    currency: str
    collection_mode: str
    period_start: datetime
    period_end: datetime
    usage_revision: int
    finalized_at: datetime | None
    settled_at: datetime | None
    total_minor: int
    total: str
    lines: list[LineView]
    stripe_invoice_id: str | None
    collection: str
    collection_problem: str | None
    reconciliation: str
    differences: list[DifferenceView]


class InvoiceList(BaseModel):
    """Invoices of one organization, newest period first."""

    results: list[InvoiceView]


class ReconciliationList(BaseModel):
    """Comparisons, newest first."""

    results: list[ReconciliationView]


class MissingSource(BaseModel):
    """A source that a closing waits for."""

    source: str
    state: str
    complete_through: datetime | None
    heard_at: datetime | None


class HeldClosingView(BaseModel):
    """A closing whose time has come and that waits; ``since`` is when it first had to."""

    organization_id: str
    period_start: datetime
    period_end: datetime
    since: datetime
    missing: list[MissingSource]


class HeldClosingList(BaseModel):
    """The longest waiting first; ``total`` counts all of them."""

    total: int
    results: list[HeldClosingView]


class UsedWaiver(BaseModel):
    """By whose word a period was closed without a source."""

    source: str
    waiver_id: str
    through: datetime
    actor: str
    reason: str
    at: datetime
    organization_id: str | None


class ClosingView(BaseModel):
    """A closed period with its cut-off."""

    organization_id: str
    period_start: datetime
    period_end: datetime
    closed_at: datetime
    usage_revision: int
    invoice_id: str | None
    waivers: list[UsedWaiver]


class ClosingList(BaseModel):
    """Closed periods of one organization, newest first."""

    results: list[ClosingView]


class Acceptance(BaseModel):
    """Who accepts a difference or resolves an alert, and why (L16, L20)."""

    model_config = ConfigDict(extra="forbid")

    actor: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


def to_view_invoice(invoice: Invoice, reconciliation: Reconciliation | None, *, has_rail: bool) -> InvoiceView:
    """An invoice for the API.

    Args:
        invoice: The invoice.
        reconciliation: Its comparison, if it was compared.
        has_rail: Whether a payment rail is configured; without one, collection waits.
    """
    return InvoiceView(
        invoice_id=invoice.invoice_id,
        number=invoice.number,
        organization_id=invoice.organization_id,
        customer_id=invoice.customer_id,
        status=invoice.status,
        currency=invoice.currency,
        collection_mode=invoice.collection_mode,
        period_start=invoice.period.start,
        period_end=invoice.period.end,
        usage_revision=invoice.usage_revision,
        finalized_at=invoice.finalized_at,
        settled_at=invoice.settled_at,
        total_minor=invoice.total_minor,
        total=_major(invoice.total_minor, invoice.currency),
        lines=[
            LineView(
                **_to_wire_line(line).model_dump(),
                kind=line.kind,
                tier=line.tier,
                amount=_major(line.amount_minor, invoice.currency),
            )
            for line in invoice.lines
        ],
        stripe_invoice_id=invoice.rail_invoice,
        collection=_collection(invoice, has_rail=has_rail),
        collection_problem=invoice.collection_problem,
        reconciliation=invoice.reconciliation,
        differences=[] if reconciliation is None else _differences(reconciliation),
    )


def to_view_held(held: HeldClosing, standings: Mapping[str, SourceStanding]) -> HeldClosingView:
    """A waiting closing, with what is known now of the sources it waits for."""
    known = [standings.get(name) or SourceStanding(name, 0, True, "catching up") for name in held.missing]
    return HeldClosingView(
        organization_id=held.organization_id,
        period_start=held.period.start,
        period_end=held.period.end,
        since=held.since,
        missing=[
            MissingSource(
                source=each.source, state=each.state, complete_through=each.complete_through, heard_at=each.heard_at
            )
            for each in known
        ],
    )


def to_view_closing(closed: ClosedPeriod) -> ClosingView:
    """A closing for the API."""
    return ClosingView(
        organization_id=closed.organization_id,
        period_start=closed.period.start,
        period_end=closed.period.end,
        closed_at=closed.closed_at,
        usage_revision=closed.usage_revision,
        invoice_id=closed.invoice_id,
        waivers=[UsedWaiver(**asdict(waiver)) for waiver in closed.waivers],
    )


def to_view_reconciliation(reconciliation: Reconciliation) -> ReconciliationView:
    """A comparison for the API."""
    return ReconciliationView(
        reconciliation_id=reconciliation.reconciliation_id,
        organization_id=reconciliation.organization_id,
        invoice_id=reconciliation.invoice_id,
        compared_at=reconciliation.compared_at,
        result="equal" if reconciliation.is_equal else "different",
        our_total_minor=reconciliation.our_total_minor,
        stripe_total_minor=reconciliation.rail_total_minor,
        differences=_differences(reconciliation),
        accepted_by=reconciliation.accepted_by,
        accepted_reason=reconciliation.accepted_reason,
        accepted_at=reconciliation.accepted_at,
    )


def _differences(reconciliation: Reconciliation) -> list[DifferenceView]:
    return [
        DifferenceView(
            kind=each.kind,
            product_key=each.product_key,
            description=each.description,
            ours=each.ours,
            theirs=each.theirs,
        )
        for each in reconciliation.differences
    ]


def _collection(invoice: Invoice, *, has_rail: bool) -> str:
    if invoice.status in ("paid", "void", "uncollectible"):
        return "done"
    if not has_rail:
        return "awaiting rail"
    return "payment failed" if invoice.collection_problem else "in progress"


def _major(amount_minor: int, currency: str) -> str:
    return Money(amount_minor, currency).to_decimal_string()
