"""How vectors of packed rows are written down: what the others tell already is left out (ADR 0026).

Ranks are mostly all alike, for one report holds all cells of a window; nothing of a day that has ended is partial; and
the maximum is what is counted unless usage went back. Written in full, a row of 150 counters is past the two kilobytes
from which Postgres compresses, and that costs more than all else the row does. Rows in full are read just as well.
"""

from collections.abc import Sequence
from operator import add

from quill_usage_ingest.store.array_text import array_text

NOTHING = "{}"


def ranks_text(ranks: Sequence[int]) -> str:
    """``{7}`` for ranks that are all 7."""
    if len(ranks) > 1 and ranks.count(ranks[0]) == len(ranks):
        return f"{{{ranks[0]}}}"
    return array_text(ranks)


def whole_ranks(stored: Sequence[int], quantities: Sequence[int]) -> Sequence[int]:
    """The ranks of a stored window."""
    return stored if len(stored) == len(quantities) else [stored[0]] * len(quantities)


def rank_in(window: str, slot: str) -> str:
    """The same of one slot in SQL; null where the window has no such slot."""
    return (
        f"case when cardinality({window}.ranks) = cardinality({window}.quantities) then {window}.ranks[{slot} + 1]"
        f" when {slot} < cardinality({window}.quantities) then {window}.ranks[1] end"
    )


def partial_text(partial: Sequence[int]) -> str:
    """Nothing at all when every number is 0."""
    return array_text(partial) if any(partial) else NOTHING


def maximum_text(complete: Sequence[int], partial: Sequence[int], maximum: Sequence[int]) -> str:
    """Nothing at all when every maximum is what is counted; never where a counter was not reported, which is -1."""
    counted = list(map(add, complete, partial)) if any(partial) else complete
    return NOTHING if maximum == counted else array_text(maximum)


def whole_period(
    complete: Sequence[int], partial: Sequence[int], maximum: Sequence[int]
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Complete, partial and maximum of a stored period."""
    counted = list(map(add, complete, partial)) if partial else complete
    return complete, partial or [0] * len(complete), maximum or counted


def partial_in(period: str, slot: str) -> str:
    """The same of one slot in SQL."""
    return f"coalesce({period}.partial[{slot} + 1], 0)"


def maximum_in(period: str, slot: str) -> str:
    """The same of one slot in SQL; null where the period has no such slot."""
    counted = f"{period}.complete[{slot} + 1] + {partial_in(period, slot)}"
    return f"case when cardinality({period}.maximum) = 0 then {counted} else {period}.maximum[{slot} + 1] end"
