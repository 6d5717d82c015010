"""What invoicing publishes: each state an invoice passes through."""

from typing import Literal

from quill_contracts.identifiers import (
    Currency,
    DecimalString,
    Instant,
    OrganizationId,
    PeriodTotal,
    ProductKey,
    Revision,
    UsageKey,
)
from quill_contracts.message import Message, WireModel

InvoiceStatus = Literal["draft", "finalized", "paid", "void", "uncollectible"]
ReconciliationResult = Literal["pending", "equal", "different"]


class InvoiceLine(WireModel):
    """One explained amount; minor units (L11)."""

    product_key: ProductKey
    usage_key: UsageKey | None
    description: str
    quantity: PeriodTotal
    unit_amount: DecimalString
    amount_minor: int
    service_period_start: Instant
    service_period_end: Instant


class Invoice(Message):
    """An invoice as it stands; once finalized its lines never change (L13) (``invoicing.invoices.v1``)."""

    invoice_id: str
    number: str
    organization_id: OrganizationId
    revision: Revision
    status: InvoiceStatus
    currency: Currency
    period_start: Instant
    period_end: Instant
    finalized_at: Instant | None
    total_minor: int
    lines: list[InvoiceLine]
    stripe_invoice_id: str | None = None
    reconciliation: ReconciliationResult = "pending"


class CreditBalance(Message):
    """What a customer has left of its credit grants (``invoicing.credits.v1``)."""

    organization_id: OrganizationId
    revision: Revision
    currency: Currency
    balance_minor: int
