"""The counters of one billing period as three vectors by slot (L2, L3, L6), for the reason given in `packed_cells`."""

from collections.abc import Iterator, Mapping, Sequence
from operator import add, sub
from typing import Final, Self

from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.packed_cells import Changes, RowChange
from quill_usage_ingest.domain.period_usage import CounterUsage
from quill_usage_ingest.domain.usage_cells import COMPLETE_BIT

NEVER_REPORTED_MAXIMUM: Final = -1
"""In ``maximum``: the counter has no usage in this period. A reported zero is a fact and is kept."""


class PackedCounters(Mapping[str, CounterUsage]):
    """Complete, partial and maximum by slot; to every reader a mapping of counter to `CounterUsage`."""

    __slots__ = ("complete", "layout", "maximum", "partial")

    def __init__(
        self,
        layout: CounterLayout,
        complete: Sequence[int] = (),
        partial: Sequence[int] = (),
        maximum: Sequence[int] = (),
    ) -> None:
        self.layout = layout
        self.complete = complete
        self.partial = partial
        self.maximum = maximum

    @classmethod
    def of(cls, counters: Mapping[str, CounterUsage], layout: CounterLayout) -> Self:
        """The same usage packed; the layout has a slot for each counter."""
        if isinstance(counters, cls) and layout.continues(counters.layout):
            return counters
        length = max(map(layout.slots.__getitem__, counters), default=-1) + 1
        complete, partial, maximum = [0] * length, [0] * length, [NEVER_REPORTED_MAXIMUM] * length
        for counter, usage in counters.items():
            slot = layout.slots[counter]
            complete[slot], partial[slot], maximum[slot] = usage
        return cls(layout, complete, partial, maximum)

    def __getitem__(self, counter: str) -> CounterUsage:
        slot = self.layout.slots[counter]
        if slot >= len(self.maximum) or self.maximum[slot] == NEVER_REPORTED_MAXIMUM:
            raise KeyError(counter)
        return CounterUsage(self.complete[slot], self.partial[slot], self.maximum[slot])

    def __iter__(self) -> Iterator[str]:
        return (
            name
            for name, maximum in zip(self.layout.names, self.maximum, strict=False)
            if maximum != NEVER_REPORTED_MAXIMUM
        )

    def __len__(self) -> int:
        return sum(1 for maximum in self.maximum if maximum != NEVER_REPORTED_MAXIMUM)

    def __repr__(self) -> str:
        return f"PackedCounters({dict(self)!r})"

    def moved(
        self, layout: CounterLayout, changes: Changes, *, rank: int, is_correction: bool
    ) -> tuple["PackedCounters", int]:
        """Each old contribution taken out, the new one put in, both on the side their claim belongs to (L6).

        The maximum is raised if passed; only an explicit correction brings it back to what is counted now (L3).

        Returns:
            The counters afterwards, and the largest period-to-date value among those that changed.
        """
        padding = len(layout) - len(self.maximum)
        complete = [*self.complete, *([0] * padding)]
        partial = [*self.partial, *([0] * padding)]
        maximum = [*self.maximum, *([NEVER_REPORTED_MAXIMUM] * padding)]
        gaining = complete if rank & COMPLETE_BIT else partial
        if isinstance(changes, RowChange) and changes.ranks_before.count(changes.ranks_before[0]) == len(changes):
            rank_before, count = changes.ranks_before[0], len(changes)
            losing = complete if rank_before & COMPLETE_BIT else partial
            losing[:count] = map(sub, losing, changes.quantities_before)
            gaining[:count] = map(add, gaining, changes.quantities)
            now = _to_date(complete, partial)[:count]
            # What stood at its maximum and only gained has a new one.
            is_new = rank_before == 0 and self.maximum == _to_date(self.complete, self.partial)
            maximum[:count] = now if is_correction or is_new else map(max, maximum, now)
            return PackedCounters(layout, complete, partial, maximum), max(now)
        largest = 0
        for slot, rank_before, quantity_before, quantity in changes:
            if quantity_before:
                if rank_before & COMPLETE_BIT:
                    complete[slot] -= quantity_before
                else:
                    partial[slot] -= quantity_before
            gaining[slot] += quantity
            to_date = complete[slot] + partial[slot]
            if is_correction or to_date > maximum[slot]:
                maximum[slot] = to_date
            if to_date > largest:  # noqa: PLR1730 - this loop is what a report costs
                largest = to_date
        return PackedCounters(layout, complete, partial, maximum), largest


def _to_date(complete: Sequence[int], partial: Sequence[int]) -> Sequence[int]:
    return list(map(add, complete, partial)) if any(partial) else complete
