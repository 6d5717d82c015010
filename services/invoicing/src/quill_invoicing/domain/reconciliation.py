"""Our invoice against the payment rail's, to the cent and line by line; every difference has a class (L16)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quill_invoicing.domain.collection import RailLine
from quill_invoicing.domain.invoice import InvoiceLine

DifferenceKind = Literal["missing_line", "extra_line", "amount", "quantity", "total"]
FLAT_FEE_QUANTITIES = (0, 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same.

    Attributes:
        kind: ``missing_line``: ours has no counterpart; ``extra_line``: theirs has none; ``amount``, ``quantity``: the
            pair differs; ``total``: the sums differ.
        ours: Minor units, or units for ``quantity``; None where we have nothing.
        theirs: The rail's figure likewise.
    """

    kind: DifferenceKind
    product_key: str | None
    description: str
    ours: int | None
    theirs: int | None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The comparison of one invoice; different ones stay open until a named person accepts them (L16)."""

    reconciliation_id: str
    organization_id: str
    invoice_id: str
    compared_at: datetime
    our_total_minor: int
    rail_total_minor: int
    differences: tuple[Difference, ...]
    accepted_by: str | None = None
    accepted_reason: str | None = None
    accepted_at: datetime | None = None

    @property
    def is_equal(self) -> bool:
        return not self.differences


class NothingToAccept(ValueError):
    """The comparison found no difference, or somebody else has accepted it already."""


def compare(
    ours: Sequence[InvoiceLine], theirs: Sequence[RailLine], *, rail_total_minor: int
) -> tuple[Difference, ...]:
    """Every difference; empty when the invoices say the same.

    Lines are paired within a product: first those that agree, then the others in their order. A line that bills nothing
    for nothing (amount 0 and quantity 0, or a flat fee of 0) says nothing. Stripe sometimes writes such a line and
    sometimes not, so neither its presence nor its absence is a difference.
    """
    differences: list[Difference] = []
    products = sorted({line.product_key for line in ours} | {line.product_key or "" for line in theirs})
    for product in products:
        mine = [line for line in ours if line.product_key == product]
        others = [line for line in theirs if (line.product_key or "") == product]
        differences.extend(_compare_product(product, mine, others))
    our_total = sum(line.amount_minor for line in ours)
    if our_total != rail_total_minor:
        differences.append(Difference("total", None, "invoice total", our_total, rail_total_minor))
    return tuple(differences)


def _compare_product(product: str, ours: list[InvoiceLine], theirs: list[RailLine]) -> Iterable[Difference]:
    unpaired = list(theirs)
    rest: list[InvoiceLine] = []
    # Flat fees pair last: they agree with a line of any quantity, so first they could take the twin of another line.
    for line in sorted(ours, key=lambda line: line.kind == "flat_fee"):
        twin = next((other for other in unpaired if _agree(line, other)), None)
        if twin is not None:
            unpaired.remove(twin)
        elif line.amount_minor or (line.quantity and line.kind != "flat_fee"):
            rest.append(line)
    unpaired = [other for other in unpaired if other.quantity or other.amount_minor]
    for line, other in zip(rest, unpaired, strict=False):
        if not _same_quantity(line, other):
            yield Difference("quantity", product, line.description, line.quantity, other.quantity)
        if line.amount_minor != other.amount_minor:
            yield Difference("amount", product, line.description, line.amount_minor, other.amount_minor)
    for line in rest[len(unpaired) :]:
        yield Difference("missing_line", product, line.description, line.amount_minor, None)
    for other in unpaired[len(rest) :]:
        yield Difference("extra_line", product or None, other.description, None, other.amount_minor)


def _agree(line: InvoiceLine, other: RailLine) -> bool:
    return line.amount_minor == other.amount_minor and _same_quantity(line, other)


def _same_quantity(line: InvoiceLine, other: RailLine) -> bool:
    """A flat fee has no quantity of its own; rails show 0 or 1."""
    return line.quantity == other.quantity or (line.kind == "flat_fee" and other.quantity in FLAT_FEE_QUANTITIES)
