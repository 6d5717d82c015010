"""Our lines in the form that the rail takes: within its bounds, each labelled with what it stands for.

A line's label names the positions of our invoice's lines that it charges: ``4`` for one line, ``4-9,12`` for several
that were folded, ``4#2`` for the second part of an amount too large for one line. ``reversal:<product>`` takes back
what the rail rated of a product that we charge by our own lines. The comparison reads the labels (L16).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.collection import ChargedLine
from quill_invoicing.domain.invoice import Invoice, InvoiceLine, LineKind

RATED_KINDS: Final[frozenset[LineKind]] = frozenset({"usage", "package", "flat_fee"})
"""Kinds of lines that the rail makes itself when it rates a product."""
LINES_MAX: Final = 250
"""Own lines that the rail takes on one invoice."""
AMOUNT_MAX: Final = 99_999_999
"""Greatest amount of one line, either way: eight digits of minor units."""
REVERSAL: Final = "reversal:"
POSITION_DIGITS_MAX: Final = 5
SEVERAL: Final = "several"
"""The product key of a folded line that stands for several products."""


def charged_lines(invoice: Invoice, *, rated: Iterable[str], reversals: Mapping[str, int]) -> list[ChargedLine]:
    """Everything on an invoice that the rail does not rate itself, at most 250 lines; their sum stays exact.

    Args:
        invoice: Our invoice.
        rated: Products whose usage the rail rates; their usage lines are left to it.
        reversals: What the rail rated of products that it should not have: minor units by product, 0 where it made
            lines that cost nothing.
    """
    by_rail = frozenset(rated)
    chosen = [
        (position, line)
        for position, line in enumerate(invoice.lines)
        if line.kind not in RATED_KINDS or line.product_key not in by_rail
    ]
    taken_back = [
        part
        for product, amount in sorted(reversals.items())
        for part in _parts(_reversal(product, amount, invoice.period))
    ]
    most = LINES_MAX - len(taken_back)
    while True:
        lines = [part for line in _folded(chosen, most, invoice.number) for part in _parts(line)]
        excess = len(lines) + len(taken_back) - LINES_MAX
        if excess <= 0 or most <= 1:
            return [*taken_back, *lines]
        most = max(1, most - excess)


def positions_of(label: str) -> tuple[int, ...] | None:
    """The positions that a label names; None for a reversal or a label that is not ours."""
    ranges, _, _ = label.partition("#")
    positions: list[int] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if not _is_position(first) or not _is_position(last or first):
            return None
        positions += range(int(first), int(last or first) + 1)
    return tuple(positions) or None


def reversed_product(label: str) -> str | None:
    """The product that a reversal takes back; None for another label."""
    return label.removeprefix(REVERSAL).partition("#")[0] if label.startswith(REVERSAL) else None


def _is_position(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= POSITION_DIGITS_MAX


def _folded(chosen: Sequence[tuple[int, InvoiceLine]], most: int, number: str) -> list[ChargedLine]:
    """The lines one by one; those beyond ``most`` together in the last one, which says so."""
    single = chosen if len(chosen) <= most else chosen[: most - 1]
    lines = [
        ChargedLine(
            product_key=line.product_key,
            description=line.description,
            quantity=line.quantity,
            amount_minor=line.amount_minor,
            service_period=line.service_period,
            label=str(position),
        )
        for position, line in single
    ]
    rest = chosen[len(single) :]
    if not rest:
        return lines
    products = {line.product_key for _, line in rest}
    span = BillingPeriod(
        start=min(line.service_period.start for _, line in rest), end=max(line.service_period.end for _, line in rest)
    )
    folded = ChargedLine(
        product_key=products.pop() if len(products) == 1 else SEVERAL,
        description=f"{len(rest):,} further lines, listed on invoice {number}",
        quantity=1,
        amount_minor=sum(line.amount_minor for _, line in rest),
        service_period=span,
        label=_ranges([position for position, _ in rest]),
    )
    return [*lines, folded]


def _parts(line: ChargedLine) -> list[ChargedLine]:
    """The line, or several of at most the greatest amount that add up to it."""
    if abs(line.amount_minor) <= AMOUNT_MAX:
        return [line]
    sign = 1 if line.amount_minor > 0 else -1
    whole, rest = divmod(abs(line.amount_minor), AMOUNT_MAX)
    amounts = [sign * AMOUNT_MAX] * whole + ([sign * rest] if rest else [])
    return [
        replace(
            line,
            amount_minor=amount,
            description=f"{line.description} (part {number} of {len(amounts)})",
            label=f"{line.label}#{number}",
        )
        for number, amount in enumerate(amounts, start=1)
    ]


def _reversal(product: str, amount_minor: int, period: BillingPeriod) -> ChargedLine:
    return ChargedLine(
        product_key=product,
        description=f"{product.replace('_', ' ')}: replaced by the lines below",
        quantity=1,
        amount_minor=-amount_minor,
        service_period=period,
        label=f"{REVERSAL}{product}",
    )


def _ranges(positions: Sequence[int]) -> str:
    """``[4, 5, 6, 9]`` as ``4-6,9``."""
    starts = [positions[0], *(later for earlier, later in pairwise(positions) if later != earlier + 1)]
    ends = [*(earlier for earlier, later in pairwise(positions) if later != earlier + 1), positions[-1]]
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True)
    )
