"""The cells of one window as two vectors by counter slot: how they are stored, and how reports meet them (L1).

A report costs one pass over its counters. One object per cell would cost several times as much (performance 3), so
objects are made only when somebody looks: to every reader this is a mapping of counter to `Cell`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.usage_cells import Cell, Cells

SlotChange = tuple[int, int, int, int]
"""What one claim did to one cell: its slot, rank and quantity before, and the quantity claimed. A plain tuple:
one is made per counter and report."""


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
        self, layout: CounterLayout, slots: Sequence[int], claimed: Iterable[int], *, rank: int
    ) -> tuple["PackedCells", list[SlotChange]]:
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

    def holds(self, slots: Sequence[int], claimed: Iterable[int], *, rank: int) -> bool:
        """Whether every cell is held by exactly this claim."""
        ranks, quantities, length = self.ranks, self.quantities, len(self.ranks)
        return all(
            slot < length and ranks[slot] == rank and quantities[slot] == quantity
            for slot, quantity in zip(slots, claimed, strict=True)
        )
