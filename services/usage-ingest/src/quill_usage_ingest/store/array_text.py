"""Columns and packed rows in Postgres' own text form of an array.

asyncpg asks of every element of a list whether it is a list itself, which costs more than all else that is done with
it. A text a column, or a packed row, is written by one C call.
A statement says ``cast(cast(:column as text) as bigint[])``, for else the driver would want the list.
"""

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

INSTANTS_REMEMBERED = 4_096
"""Windows and periods, which many rows share."""

_as_json: Final = msgspec.json.Encoder().encode


def array_text(numbers: Sequence[int]) -> str:
    """``[1, 2]`` as ``{1,2}``: a JSON array but for its brackets, and nobody writes those faster."""
    return f"{{{_as_json(numbers)[1:-1].decode()}}}"


def column_of_numbers(numbers: Sequence[int | None]) -> str:
    """``[1, None]`` as ``{1,NULL}``."""
    return "{" + ",".join(["NULL" if number is None else str(number) for number in numbers]) + "}"


def column_of_texts(texts: Sequence[str]) -> str:
    r"""``['a', 'b"c']`` as ``{"a","b\"c"}``; packed rows are such texts too."""
    if not texts:
        return "{}"
    joined = '","'.join(texts)
    if "\\" in joined or joined.count('"') != 2 * (len(texts) - 1):
        joined = '","'.join([_escaped(one) for one in texts])
    return '{"' + joined + '"}'


def column_of_optional_texts(texts: Sequence[str | None]) -> str:
    """The same, with ``NULL`` for None."""
    if texts.count(None) == len(texts):
        return "{" + ",".join(["NULL"] * len(texts)) + "}"
    return "{" + ",".join(["NULL" if one is None else f'"{_escaped(one)}"' for one in texts]) + "}"


def column_of_instants(instants: Sequence[datetime]) -> str:
    """Aware instants, to the microsecond; for those that many rows share."""
    return "{" + ",".join(map(_instant, instants)) + "}"


def _escaped(one: str) -> str:
    return one.replace("\\", "\\\\").replace('"', '\\"')


@functools.lru_cache(maxsize=INSTANTS_REMEMBERED)
def _instant(instant: datetime) -> str:
    return instant.isoformat()
