"""Reading whose report each dead letter is, so that a hole can be told from silence (L4)."""

from collections.abc import Collection
from typing import Final

from quill_runtime.database import Database, Transaction
from quill_runtime.tables import dead_letters
from sqlalchemy import bindparam, delete, exists, func, select, update

from quill_usage_ingest.store.source_tables import parked_reports
from quill_usage_ingest.wire.parked_reports import read_parked_report

BATCH: Final = 50
"""Letters read under one transaction; each may be megabytes."""
BATCHES_MAX: Final = 1_000
"""In one look; the next goes on."""


async def read_parked(database: Database, *, groups: Collection[str]) -> tuple[int, bool]:
    """Read every letter that is not read yet; those of other consumer groups are not reports of ours.

    Returns:
        How many were read, and whether all are read now. Another replica may still hold some.
    """
    read = 0
    for _ in range(BATCHES_MAX):
        async with database.begin() as transaction:
            found = await _read_some(transaction, groups)
        read += found
        if found < BATCH:
            break
    async with database.begin() as transaction:
        is_left = await transaction.connection.scalar(select(exists().where(parked_reports.c.is_read.is_(False))))
    return read, not is_left


async def _read_some(transaction: Transaction, groups: Collection[str]) -> int:
    connection = transaction.connection
    rows = (
        await connection.execute(
            select(
                parked_reports.c.letter_id,
                dead_letters.c.consumer_group,
                dead_letters.c.topic,
                dead_letters.c.key,
                dead_letters.c.value,
            )
            .join(dead_letters, dead_letters.c.id == parked_reports.c.letter_id)
            .where(parked_reports.c.is_read.is_(False))
            .order_by(parked_reports.c.letter_id)
            .limit(BATCH)
            .with_for_update(of=parked_reports, skip_locked=True)
        )
    ).all()
    others = [row.letter_id for row in rows if row.consumer_group not in groups]
    if others:
        await connection.execute(delete(parked_reports).where(parked_reports.c.letter_id == func.any(others)))
    values = []
    for row in rows:
        if row.consumer_group in groups:
            report = read_parked_report(row.topic, row.key, row.value)
            values.append(
                {
                    "letter": row.letter_id,
                    "source_read": report.source,
                    "organization_read": report.organization_id,
                    "window_read": report.window_start,
                }
            )
    if values:
        await connection.execute(
            update(parked_reports)
            .where(parked_reports.c.letter_id == bindparam("letter"))
            .values(
                is_read=True,
                source=bindparam("source_read"),
                organization_id=bindparam("organization_read"),
                window_start=bindparam("window_read"),
            ),
            values,
        )
    return len(rows)
