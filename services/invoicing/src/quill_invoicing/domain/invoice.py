"""An invoice: what is owed. Draft, finalized, then paid, void or uncollectible."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal
from uuid import UUID, uuid5

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.terms import CollectionMode

InvoiceStatus = Literal["draft", "finalized", "paid", "void", "uncollectible"]
LineKind = Literal["usage", "package", "flat_fee", "licensed", "adjustment", "credit"]
"""``usage`` and ``package`` are owed for a quantity, ``flat_fee`` for reaching a tier, ``licensed`` in any case.

``adjustment`` corrects an earlier period; ``credit`` keeps or uses what the customer is owed.
"""
ReconciliationResult = Literal["pending", "equal", "different"]

INVOICE_NAMESPACE: Final = UUID("5b0a8f0e-3d0a-5c38-9a52-6f1f4f5f2a11")
MOVES: Final[Mapping[InvoiceStatus, frozenset[InvoiceStatus]]] = MappingProxyType(
    {
        "draft": frozenset({"finalized"}),
        "finalized": frozenset({"paid", "void", "uncollectible"}),
        "uncollectible": frozenset({"paid", "void"}),
        "paid": frozenset(),
        "void": frozenset(),
    }
)
"""Every legal move; paid and void are ends. The table is the state machine."""


class IllegalMove(ValueError):
    """An invoice cannot go from its status to the one asked for."""


class NotADraft(ValueError):
    """The lines of an invoice are frozen once it is finalized (L13)."""


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One explained amount in minor units, rounded once (L11).

    Attributes:
        tier: Number of the tier from 1; None for a price without tiers.
        unit_amount: Major units per unit, exact.
        service_period: When the billed service was provided; an adjustment's lies before its invoice's.
    """

    kind: LineKind
    product_key: str
    usage_key: str | None
    description: str
    quantity: int
    unit_amount: Decimal
    amount_minor: int
    service_period: BillingPeriod
    tier: int | None = None


@dataclass(frozen=True, slots=True)
class Invoice:
    """One customer's invoice for one billing period.

    Attributes:
        revision: Rises with each state; readers keep the highest.
        usage_revision: The newest usage snapshot that was counted: the cut-off of the closing.
        rail_invoice: Its id at the payment rail, once collection has begun.
    """

    invoice_id: str
    number: str
    organization_id: str
    customer_id: str
    revision: int
    status: InvoiceStatus
    currency: str
    collection_mode: CollectionMode
    period: BillingPeriod
    usage_revision: int
    lines: tuple[InvoiceLine, ...]
    created_at: datetime
    finalized_at: datetime | None = None
    settled_at: datetime | None = None
    rail_invoice: str | None = None
    reconciliation: ReconciliationResult = "pending"
    collection_problem: str | None = None

    @property
    def total_minor(self) -> int:
        """The sum of the lines, nothing else (L11)."""
        return sum(line.amount_minor for line in self.lines)

    def with_lines(self, lines: tuple[InvoiceLine, ...]) -> "Invoice":
        """The draft with other lines.

        Raises:
            NotADraft: it is finalized (L13).
        """
        if self.status != "draft":
            raise NotADraft(f"invoice {self.number} is {self.status}; correct it with an adjustment on a later one")
        return replace(self, lines=lines, revision=self.revision + 1)

    def finalized(self, *, at: datetime) -> "Invoice":
        """Freeze it.

        Raises:
            IllegalMove: it is no draft.
        """
        return replace(self._moved("finalized"), finalized_at=at)

    def settled(self, status: Literal["paid", "void", "uncollectible"], *, at: datetime) -> "Invoice":
        """End it, or give it up for now; the same end again changes nothing.

        Raises:
            IllegalMove: it is a draft, or has another end already.
        """
        if status == self.status:
            return self
        return replace(self._moved(status), settled_at=at, collection_problem=None)

    def collected_as(self, rail_invoice: str, *, problem: str | None) -> "Invoice":
        """Remember its counterpart at the rail and what stands in the way of its payment."""
        if (self.rail_invoice, self.collection_problem) == (rail_invoice, problem):
            return self
        return replace(self, rail_invoice=rail_invoice, collection_problem=problem, revision=self.revision + 1)

    def reconciled(self, result: ReconciliationResult) -> "Invoice":
        """Remember how it compares with the rail's (L16)."""
        if self.reconciliation == result:
            return self
        return replace(self, reconciliation=result, revision=self.revision + 1)

    def _moved(self, status: InvoiceStatus) -> "Invoice":
        if status not in MOVES[self.status]:
            raise IllegalMove(f"invoice {self.number} cannot become {status}: it is {self.status}")
        return replace(self, status=status, revision=self.revision + 1)


def invoice_id_of(organization_id: str, period: BillingPeriod) -> str:
    """The id an organization's invoice of a period has, whoever makes it and however often."""
    return str(uuid5(INVOICE_NAMESPACE, f"{organization_id}|{period.start.isoformat()}"))


def invoice_number(year: int, sequence: int) -> str:
    """The number on the document: without a gap within a year."""
    return f"{year}-{sequence:06d}"
