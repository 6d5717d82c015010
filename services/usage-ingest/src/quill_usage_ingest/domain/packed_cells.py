"""The cells of one window as two vectors by counter slot: how they are stored, and how reports meet them (L1).

A report costs one pass over its counters. One object per cell would cost several times as much (performance 3), so
objects are made only when somebody looks: to every reader this is a mapping of counter to `Cell`.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Final, Self

from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.usage_cells import Cell, Cells

SlotChange = tuple[int, int, int, int]
"""What one claim did to one cell: its slot, rank and quantity before, and the quantity claimed. A plain tuple:
one is made per counter and report."""
SHAPES_REMEMBERED: Final = 1_000


class RowChange:
    """What a claim did that won every cell of the first slots: the same changes, as vectors.

    That is what a report does which is the first of its window or newer than all before it, and most are. Vectors are
    worked on by single calls; a change of its own for each counter is made only when somebody looks.
    """

    __slots__ = ("quantities", "quantities_before", "ranks_before")

    def __init__(
        self, ranks_before: Sequence[int], quantities_before: Sequence[int], quantities: Sequence[int]
    ) -> None:
        self.ranks_before = ranks_before
        self.quantities_before = quantities_before
        self.quantities = quantities

    def __len__(self) -> int:
        return len(self.quantities)

    def __iter__(self) -> Iterator[SlotChange]:
        return zip(range(len(self)), self.ranks_before, self.quantities_before, self.quantities, strict=True)


Changes = list[SlotChange] | RowChange
"""What a claim won."""


@functools.lru_cache(maxsize=SHAPES_REMEMBERED)
def _in_slot_order(slots: tuple[int, ...]) -> Callable[[Sequence[int]], Sequence[int]] | None:
    """Puts quantities in the order of their slots when those are the first ones without a gap, else None."""
    if len(slots) < 2 or sorted(slots) != list(range(len(slots))):  # noqa: PLR2004 - of one, itemgetter gives no tuple
        return None
    return itemgetter(*sorted(slots, key=slots.__getitem__))


class PackedCells(Mapping[str, Cell]):
    """Ranks and quantities by slot; rank 0 says that the counter was never reported."""

    __slots__ = ("layout", "quantities", "ranks")

    def __init__(self, layout: CounterLayout, quantities: Sequence[int] = (), ranks: Sequence[int] = ()) -> None:
        self.layout = layout
        self.quantities = quantities
        self.ranks = ranks

    @classmethod
    def of(cls, cells: Cells, layout: CounterLayout) -> Self:
        """The same cells packed; the layout has a slot for each of them."""
        if isinstance(cells, cls) and layout.continues(cells.layout):
            return cells
        length = max(map(layout.slots.__getitem__, cells), default=-1) + 1
        quantities, ranks = [0] * length, [0] * length
        for counter, (rank, quantity) in cells.items():
            slot = layout.slots[counter]
            ranks[slot], quantities[slot] = rank, quantity
        return cls(layout, quantities, ranks)

    def __getitem__(self, counter: str) -> Cell:
        slot = self.layout.slots[counter]
        if slot >= len(self.ranks) or not self.ranks[slot]:
            raise KeyError(counter)
        return Cell(self.ranks[slot], self.quantities[slot])

    def __iter__(self) -> Iterator[str]:
        return (name for name, rank in zip(self.layout.names, self.ranks, strict=False) if rank)

    def __len__(self) -> int:
        return sum(1 for rank in self.ranks if rank)

    def __repr__(self) -> str:
        return f"PackedCells({dict(self)!r})"

    def joined(
        self, layout: CounterLayout, slots: tuple[int, ...], claimed: Collection[int], *, rank: int
    ) -> tuple["PackedCells", Changes]:
        """Merge quantities that were all claimed with one rank; the larger (rank, quantity) holds each cell (L1).

        Args:
            layout: This layout or a later one.
            slots: Where the quantities belong.
            claimed: Absolute quantities, one per slot.
            rank: See `rank_of`.

        Returns:
            The cells afterwards (these very cells when nothing was won) and what the claim won.
        """
        held_ranks, held_quantities = self.ranks, self.quantities
        length = len(held_ranks)
        if len(slots) >= length and (not held_ranks or rank > max(held_ranks)):
            in_slot_order = _in_slot_order(slots)
            if in_slot_order is not None:
                return self._replaced(layout, in_slot_order(tuple(claimed)), rank=rank)
        won: list[SlotChange] = []
        for slot, quantity in zip(slots, claimed, strict=True):
            if slot >= length:
                won.append((slot, 0, 0, quantity))
            else:
                before = held_ranks[slot]
                if rank > before or (rank == before and quantity > held_quantities[slot]):
                    won.append((slot, before, held_quantities[slot], quantity))
        if not won:
            return self, won
        padding = [0] * (max(slots) + 1 - length)
        ranks, quantities = [*held_ranks, *padding], [*held_quantities, *padding]
        for slot, _, _, quantity in won:
            ranks[slot], quantities[slot] = rank, quantity
        return PackedCells(layout, quantities, ranks), won

    def _replaced(
        self, layout: CounterLayout, quantities: Sequence[int], *, rank: int
    ) -> tuple["PackedCells", RowChange]:
        """Merge a claim that has at least our slots, and a higher rank than any of our cells."""
        padding = [0] * (len(quantities) - len(self.ranks))
        change = RowChange([*self.ranks, *padding], [*self.quantities, *padding], quantities)
        return PackedCells(layout, quantities, [rank] * len(quantities)), change

    def holds(self, slots: Sequence[int], claimed: Collection[int], *, rank: int) -> bool:
        """Whether every cell is held by exactly this claim."""
        ranks, quantities, length = self.ranks, self.quantities, len(self.ranks)
        return all(
            slot < length and ranks[slot] == rank and quantities[slot] == quantity
            for slot, quantity in zip(slots, claimed, strict=True)
        )
