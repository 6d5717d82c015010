"""Postgres reads back from a column's text what was put into it, whatever the texts hold."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_runtime.database import Database
from quill_usage_ingest.store.array_text import (
    array_text,
    column_of_instants,
    column_of_numbers,
    column_of_optional_texts,
    column_of_texts,
)
from sqlalchemy import text

SAMPLES = [
    "",
    "NULL",
    "null",
    "a,b",
    "{x}",
    '"',
    "\\",
    '\\"',
    'x"',
    '","',
    "tab\there",
    "line\nbreak",
    " spaced ",
    "ü😀",
    "it's",
]
storable = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20)
bigint = st.integers(-(2**63), 2**63 - 1)


async def read_back(database: Database, column: str, kind: str) -> list[object]:
    async with database.begin() as transaction:
        statement = text(f"select cast(cast(:column as text) as {kind}[])")
        return list(await transaction.connection.scalar(statement, {"column": column}))


@pytest.mark.integration
async def test_columns_read_back(database: Database):
    early, late = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    elsewhere = datetime(2026, 3, 1, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert await read_back(database, column_of_texts(SAMPLES), "text") == SAMPLES
    assert await read_back(database, column_of_texts([]), "text") == []
    assert await read_back(database, column_of_optional_texts([None, *SAMPLES, None]), "text") == [None, *SAMPLES, None]
    assert await read_back(database, column_of_optional_texts([None, None]), "text") == [None, None]
    assert await read_back(database, column_of_numbers([1, None, -(2**63)]), "bigint") == [1, None, -(2**63)]
    assert await read_back(database, column_of_instants([early, late, elsewhere]), "timestamptz") == [
        early,
        late,
        elsewhere,
    ]
    rows = column_of_texts([array_text([1, 2]), array_text([]), array_text([7, 7])])
    assert await read_back(database, rows, "text") == ["{1,2}", "{}", "{7,7}"]


@pytest.mark.integration
async def test_any_texts_and_numbers_read_back(database: Database):
    """One connection for all examples: Hypothesis runs them inside this one."""
    columns: list[tuple[str, str, list[object]]] = []

    @settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.lists(storable), st.lists(storable | st.none()), st.lists(bigint | st.none()), st.lists(bigint))
    def collect(texts, optional, numbers, packed):
        columns.append((column_of_texts(texts), "text", texts))
        columns.append((column_of_optional_texts(optional), "text", optional))
        columns.append((column_of_numbers(numbers), "bigint", numbers))
        columns.append((array_text(packed), "bigint", packed))

    collect()
    async with database.begin() as transaction:
        for column, kind, wanted in columns:
            statement = text(f"select cast(cast(:column as text) as {kind}[])")
            assert list(await transaction.connection.scalar(statement, {"column": column})) == wanted
