"""Usage cells: one quantity for (organization, counter, window, source), and how claims of it merge (L1).

A cell is the pair (rank, quantity) and merging is the larger pair. That is a maximum over a total order, hence
commutative, associative and idempotent: any permutation, repetition or re-send of reports gives the same cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow

_RANK_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
COMPLETE_BIT: Final = 1 << 60
"""Above every instant: microseconds from year 1 to year 9999 need 59 bits."""
CORRECTED_BIT: Final = 1 << 61
"""Beside the complete bit: a corrected window is a complete one."""
INSTANT_MASK: Final = COMPLETE_BIT - 1


def rank_of(completeness: Completeness, as_of: datetime) -> int:
    """Completeness, then as-of instant, as one integer that fits a bigint and orders the same way.

    Bit 61 says "corrected", bit 60 "complete"; below them stand the microseconds from year 1 to the as-of instant, plus
    one, so that 0 is free to mean "never reported".
    """
    since = (as_of - _RANK_EPOCH) // _MICROSECOND + 1
    match completeness:
        case Completeness.PARTIAL:
            return since
        case Completeness.COMPLETE:
            return since | COMPLETE_BIT
        case Completeness.CORRECTED:
            return since | COMPLETE_BIT | CORRECTED_BIT


def is_complete(rank: int) -> bool:
    """Whether the claim that won the cell called its window complete (L6)."""
    return bool(rank & COMPLETE_BIT)


def is_replaced(rank: int) -> bool:
    """Whether a person said what the window really held, so that what the source says of it does not count (L3)."""
    return bool(rank & CORRECTED_BIT)


def as_of_rank(rank: int) -> datetime:
    """The as-of instant inside a rank above 0."""
    return _RANK_EPOCH + ((rank & INSTANT_MASK) - 1) * _MICROSECOND


class Cell(NamedTuple):
    """The claim that holds a cell. Pairs compare by rank first; between equal ranks the larger quantity wins (L1)."""

    rank: int
    quantity: int


NEVER_REPORTED: Final = Cell(0, 0)
Cells = Mapping[str, Cell]
"""Cells of one window and source by counter. A counter that is absent was never reported."""


class CellChange(NamedTuple):
    """What one report did to one cell."""

    before: Cell
    after: Cell


@dataclass(frozen=True, slots=True)
class WindowCells:
    """All cells of one (organization, window, source): the packed row."""

    window: UsageWindow
    cells: Cells = field(default_factory=dict)


_new_tuple: Final = tuple.__new__
"""Makes a named tuple without the detour through its own constructor: cells are made by the million (performance 3)."""


def claimed_cells(report: UsageReport) -> dict[str, Cell]:
    """The cells as this report alone would have them."""
    rank = rank_of(report.completeness, report.as_of)
    return {counter: _new_tuple(Cell, (rank, quantity)) for counter, quantity in report.counters.items()}


def join(one: Cells, other: Cells) -> dict[str, Cell]:
    """The larger claim of each cell. A counter missing on one side keeps what the other has."""
    return {**one, **{counter: max(one.get(counter, cell), cell) for counter, cell in other.items()}}


def changes_by(claim: Cells, *, to: Cells) -> dict[str, CellChange]:
    """The cells of ``to`` that the claim wins, with their state before and after."""
    if not to:
        return {counter: _new_tuple(CellChange, (NEVER_REPORTED, cell)) for counter, cell in claim.items()}
    changes = {}
    for counter, cell in claim.items():
        before = to.get(counter, NEVER_REPORTED)
        if cell > before:
            changes[counter] = _new_tuple(CellChange, (before, cell))
    return changes
