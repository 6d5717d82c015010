"""Statements that name the months they are about, so that only those months' partitions take part.

The months stand in the text and not in a parameter. Postgres plans a repeated statement once for all parameters, and
such a plan names, locks and weighs every partition there is: what a batch costs would grow with the history. Few months
are about at a time, so few texts are planned.
"""

import functools
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlalchemy import TextClause, text

from quill_usage_ingest.domain.usage_month import month_of

RANGES_MAX: Final = 12
"""Spans of months in one statement; a batch that is about more of them names all in between."""
_PLACE: Final = re.compile(r"\{(\w+\.window_start)\}")


def of_months(template: str, instants: Iterable[datetime]) -> TextClause:
    """The statement about windows that start in the months of these instants.

    ``{alias.window_start}`` in the template becomes the condition on that column; there must be an instant.
    """
    return _about(template, tuple(sorted({month_of(instant) for instant in set(instants)})))


@functools.lru_cache(maxsize=256)
def _about(template: str, months: tuple[datetime, ...]) -> TextClause:
    numbers = [month.year * 12 + month.month - 1 for month in months]
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number:
            spans[-1] = (spans[-1][0], number + 1)
        else:
            spans.append((number, number + 1))
    if len(spans) > RANGES_MAX:
        spans = [(spans[0][0], spans[-1][1])]

    def condition(place: re.Match[str]) -> str:
        column = place[1]
        parts = [f"{column} >= {_literal(first)} and {column} < {_literal(after)}" for first, after in spans]
        return f"({' or '.join(parts)})"

    return text(_PLACE.sub(condition, template))


def _literal(number: int) -> str:
    """The month as Postgres writes it. Python has no year 10000; the end of the last month it has is there."""
    year, index = divmod(number, 12)
    return f"timestamptz '{year:04d}-{index + 1:02d}-01 UTC'"
