"""Rows of a month on their way to and from archives, a page at a time: JSON that Postgres writes and reads itself."""

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Final

from quill_runtime.database import Transaction
from sqlalchemy import text

from quill_usage_ingest.domain.month_archive import Fingerprint
from quill_usage_ingest.store.tables import usage_metadata

ROWS_PER_PAGE: Final = 1_000

Progress = Callable[[str, int, int], None]
"""Called with the table, the rows done, and about how many there are."""


def columns_of(table: str) -> tuple[str, ...]:
    """The columns that the code knows, in its order."""
    return tuple(str(column.name) for column in usage_metadata.tables[table].columns)


async def read_rows(
    transaction: Transaction, relation: str, table: str, columns: Iterable[str]
) -> AsyncIterator[tuple[bytes, datetime]]:
    """Every row of a relation that has the columns of ``table``: as JSON, with its window start, in key order."""
    named = ", ".join(f'r."{column}"' for column in columns)
    key = ", ".join(f'r."{column.name}"' for column in usage_metadata.tables[table].primary_key.columns)
    result = await transaction.connection.stream(
        text(
            f"select row_to_json(named)::text as line, r.window_start from {relation} as r,"  # noqa: S608
            f" lateral (select {named}) as named order by {key}"
        ),
        execution_options={"yield_per": ROWS_PER_PAGE},
    )
    async for row in result:
        yield row.line.encode(), row.window_start


async def fingerprint_of(
    transaction: Transaction,
    relation: str,
    table: str,
    columns: Iterable[str],
    *,
    progress: Progress,
    expected: int,
) -> Fingerprint:
    """What a relation holds now."""
    found = Fingerprint()
    async for line, _ in read_rows(transaction, relation, table, columns):
        found.add(line)
        if found.rows % ROWS_PER_PAGE == 0:
            progress(table, found.rows, expected)
    progress(table, found.rows, expected)
    return found


async def insert_rows(
    transaction: Transaction, relation: str, table: str, columns: Iterable[str], rows: Iterable[bytes]
) -> AsyncIterator[int]:
    """Put archived rows into a relation; yields how many so far, after each page."""
    named = ", ".join(f'"{column}"' for column in columns)
    read = ", ".join(f'r."{column}"' for column in columns)
    statement = text(
        f"insert into {relation} ({named}) select {read} from unnest(cast(:lines as text[])) as line,"  # noqa: S608
        f" json_populate_record(cast(null as {table}), cast(line as json)) as r"
    )
    done, left = 0, iter(rows)
    while page := [row.decode() for row in islice(left, ROWS_PER_PAGE)]:
        await transaction.connection.execute(statement, {"lines": page})
        done += len(page)
        yield done
