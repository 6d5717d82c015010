"""Where each counter stands in packed rows: append-only, so a place once given is never another one's."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, Self

SHAPES_REMEMBERED: Final = 1_000
"""Sets of counters that reports name; a source names the same ones all day."""


class CounterLayout:
    """Slots of counter names, counted from 0 without a gap. Never changed: more counters make another layout."""

    __slots__ = ("_places", "names", "slots")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: Final = tuple(names)
        self.slots: Final[Mapping[str, int]] = {name: slot for slot, name in enumerate(self.names)}
        self._places: dict[tuple[str, ...], tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def missing(self, counters: Iterable[str]) -> list[str]:
        """Those that have no slot, each once, in order of their names."""
        return sorted({counter for counter in counters if counter not in self.slots})

    def extended(self, counters: Collection[str]) -> Self:
        """With slots for these counters too, behind all others."""
        missing = self.missing(counters) if counters else []
        return type(self)((*self.names, *missing)) if missing else self

    def continues(self, other: "CounterLayout") -> bool:
        """Whether every slot of the other layout is the same counter's here, so that its rows can be read as ours."""
        return self is other or self.names[: len(other)] == other.names

    def places(self, counters: Iterable[str]) -> tuple[int, ...]:
        """The slots of these counters, in the order given.

        Raises:
            KeyError: one has none.
        """
        shape = tuple(counters)
        found = self._places.get(shape)
        if found is None:
            found = tuple(map(self.slots.__getitem__, shape))
            if len(self._places) < SHAPES_REMEMBERED:
                self._places[shape] = found
        return found
