"""Our invoice against the payment rail's, to the cent and line by line; every difference has a class (L16)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quill_invoicing.domain.charged_lines import positions_of, reversed_product
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

    Lines that we charged carry labels and are compared by the positions that these name. A reversal is compared with
    what the rail rated of its product. The rail's own lines are paired within a product: first those that agree, then
    the others in their order. A line that bills nothing
    for nothing (amount 0 and quantity 0, or a flat fee of 0) says nothing. Stripe sometimes writes such a line and
    sometimes not, so neither its presence nor its absence is a difference.
    """
    labelled = [line for line in theirs if line.label is not None]
    rated = [line for line in theirs if line.label is None]
    charged, differences = _compare_charged(ours, labelled)
    reversed_products, found = _compare_reversals(labelled, rated)
    differences += found
    left = [line for position, line in enumerate(ours) if position not in charged]
    rated = [line for line in rated if line.product_key not in reversed_products]
    products = sorted({line.product_key for line in left} | {line.product_key or "" for line in rated})
    for product in products:
        mine = [line for line in left if line.product_key == product]
        others = [line for line in rated if (line.product_key or "") == product]
        differences.extend(_compare_product(product, mine, others))
    our_total = sum(line.amount_minor for line in ours)
    if our_total != rail_total_minor:
        differences.append(Difference("total", None, "invoice total", our_total, rail_total_minor))
    return tuple(differences)


def _compare_charged(ours: Sequence[InvoiceLine], labelled: Sequence[RailLine]) -> tuple[set[int], list[Difference]]:
    """Returns the positions of our lines that were charged by labelled ones, and where they differ."""
    groups: dict[tuple[int, ...], list[RailLine]] = {}
    differences: list[Difference] = []
    for line in labelled:
        positions = positions_of(line.label or "")
        if positions is not None:
            groups.setdefault(positions, []).append(line)
        elif reversed_product(line.label or "") is None:
            differences.append(Difference("extra_line", line.product_key, line.description, None, line.amount_minor))
    charged: set[int] = set()
    for positions, lines in groups.items():
        product, description = lines[0].product_key, lines[0].description
        theirs = sum(line.amount_minor for line in lines)
        if not charged.isdisjoint(positions) or positions[-1] >= len(ours):
            differences.append(Difference("extra_line", product, description, None, theirs))
            continue
        charged.update(positions)
        expected = sum(ours[position].amount_minor for position in positions)
        if theirs != expected:
            differences.append(Difference("amount", product, description, expected, theirs))
        single = ours[positions[0]]
        if len(positions) == 1 and not all(_same_quantity(single, line) for line in lines):
            differences.append(Difference("quantity", product, description, single.quantity, lines[0].quantity))
    return charged, differences


def _compare_reversals(labelled: Sequence[RailLine], rated: Sequence[RailLine]) -> tuple[set[str], list[Difference]]:
    """Returns the products whose rated lines were taken back, and where what was taken back differs."""
    taken_back: dict[str, int] = {}
    for line in labelled:
        product = reversed_product(line.label or "")
        if product is not None:
            taken_back[product] = taken_back.get(product, 0) + line.amount_minor
    differences: list[Difference] = []
    for product, amount in taken_back.items():
        theirs = sum(line.amount_minor for line in rated if line.product_key == product)
        if theirs + amount != 0:
            differences.append(Difference("amount", product, "rated and taken back", -amount, theirs))
    return set(taken_back), differences


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
