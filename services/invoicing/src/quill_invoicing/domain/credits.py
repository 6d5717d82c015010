"""What a customer is owed: credits that an invoice could not use are kept for later ones, per currency."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.invoice import Invoice, InvoiceLine

CreditKind = Literal["kept", "used", "returned"]
CREDIT_PRODUCT = "credit"
"""The product key of a credit line: it belongs to no product."""


@dataclass(frozen=True, slots=True)
class CreditEntry:
    """One change of a customer's balance; entries are only appended, and the balance is their sum.

    Attributes:
        entry_id: Derived from the invoice and the kind, so that a repeat changes nothing.
        kind: ``kept``: an invoice could not use it; ``used``: an invoice used it; ``returned``: the invoice that had
            used it was voided.
        amount_minor: Positive for ``kept`` and ``returned``, negative for ``used``.
    """

    entry_id: str
    organization_id: str
    currency: str
    kind: CreditKind
    amount_minor: int
    invoice_id: str
    recorded_at: datetime

    @classmethod
    def of(cls, invoice: Invoice, *, kind: CreditKind, amount_minor: int, at: datetime) -> "CreditEntry":
        return cls(
            entry_id=f"{invoice.invoice_id}:{kind}",
            organization_id=invoice.organization_id,
            currency=invoice.currency,
            kind=kind,
            amount_minor=amount_minor,
            invoice_id=invoice.invoice_id,
            recorded_at=at,
        )


@dataclass(frozen=True, slots=True)
class CreditBalance:
    """What a customer is owed in one currency; minor units."""

    organization_id: str
    currency: str
    balance_minor: int


def credit_line(
    lines: Iterable[InvoiceLine], *, balance_minor: int, currency: str, period: BillingPeriod
) -> InvoiceLine | None:
    """The line that brings an invoice to zero or above, and uses what the customer is owed as far as it goes.

    Args:
        lines: Every other line of the invoice, credits of late corrections included.
        balance_minor: What the customer is owed from earlier invoices, zero or above.
        currency: Of the invoice and the balance.
        period: The invoice's billing period.

    Returns:
        A positive line when the others come to less than zero: that much is kept. A negative one when the balance pays
        for some of them. None when there is nothing to keep or to use.
    """
    total = sum(line.amount_minor for line in lines)
    if total < 0:
        return _line("Credit kept for later invoices", -total, currency, period)
    used = min(total, balance_minor)
    return _line("Credit used", -used, currency, period) if used else None


def entry_of_new(invoice: Invoice, *, at: datetime) -> CreditEntry | None:
    """What a new invoice does to the balance; None when it has no credit line."""
    amount = sum(line.amount_minor for line in invoice.lines if line.kind == "credit")
    if amount == 0:
        return None
    return CreditEntry.of(invoice, kind="kept" if amount > 0 else "used", amount_minor=amount, at=at)


def entry_of_voided(invoice: Invoice, *, at: datetime) -> CreditEntry | None:
    """What goes back to the balance when an invoice is voided: every credit that it had given, used ones and new ones.

    Voiding takes back what the invoice charged. What the customer was owed for earlier periods is still owed.
    """
    given = -sum(
        line.amount_minor for line in invoice.lines if line.kind in ("credit", "adjustment") and line.amount_minor < 0
    )
    return CreditEntry.of(invoice, kind="returned", amount_minor=given, at=at) if given else None


def _line(description: str, amount_minor: int, currency: str, period: BillingPeriod) -> InvoiceLine:
    return InvoiceLine(
        kind="credit",
        product_key=CREDIT_PRODUCT,
        usage_key=None,
        description=description,
        quantity=1,
        unit_amount=Decimal(Money(amount_minor, currency).to_decimal_string()),
        amount_minor=amount_minor,
        service_period=period,
    )
