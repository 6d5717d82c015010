"""What there is of every month: rows, bytes, and whether it was archived."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from quill_runtime.database import Transaction
from sqlalchemy import select, text

from quill_usage_ingest.domain.usage_month import InvalidMonth, month_name, month_named
from quill_usage_ingest.store.archive_tables import ArchiveState, archived_months
from quill_usage_ingest.store.partitions import ARCHIVED, PARTITIONED, partition_name

# Postgres keeps count of rows roughly: exactly would mean reading everything there is.
_RELATIONS: Final = text(
    """
    select c.relname as name, pg_total_relation_size(c.oid) as bytes,
           greatest(c.reltuples::bigint, s.n_live_tup, 0) as rows
    from pg_inherits as i
    join pg_class as p on p.oid = i.inhparent
    join pg_class as c on c.oid = i.inhrelid
    left join pg_stat_user_tables as s on s.relid = c.oid
    where p.relname = any(:tables) and c.relkind = 'r'
    """
)


@dataclass(frozen=True, slots=True)
class MonthOfTable:
    """One table in one month; ``month`` is None for the default partition.

    ``state`` is ``attached``, or how the month left: ``detaching``, ``detached``, ``dropped``. ``rows`` is about how
    many; of a month that has left, exactly how many its archive holds.
    """

    month: datetime | None
    table: str
    rows: int
    bytes: int
    state: str
    archived_at: datetime | None

    @property
    def month_text(self) -> str:
        return month_name(self.month) if self.month else "other"


async def months_of_tables(transaction: Transaction) -> list[MonthOfTable]:
    """Every month of every partitioned table that is here or was archived, oldest first; the rest at the end."""
    connection = transaction.connection
    relations = {row.name: row for row in await connection.execute(_RELATIONS, {"tables": list(PARTITIONED)})}
    records = {row.month: row for row in await connection.execute(select(archived_months))}
    named = {}
    for name in relations:
        table = next(each for each in PARTITIONED if name.startswith(f"{each}_"))
        named[name] = (table, _month_in(name.removeprefix(f"{table}_")))
    months = sorted({month for _, month in named.values() if month} | records.keys())
    found = []
    for month in months:
        for table in PARTITIONED:
            record = records.get(month) if table in ARCHIVED else None
            held = relations.get(partition_name(table, month))
            if held is not None:
                state = record.state if record and record.state == ArchiveState.DETACHING else "attached"
                archived_at = record.archived_at if record else None
                found.append(MonthOfTable(month, table, held.rows, held.bytes, state, archived_at))
            elif record is not None:
                rows = next(each["rows"] for each in record.manifest["tables"] if each["table"] == table)
                found.append(MonthOfTable(month, table, rows, 0, record.state, record.archived_at))
    for name, (table, month) in sorted(named.items()):
        if month is None:
            found.append(MonthOfTable(None, table, relations[name].rows, relations[name].bytes, "attached", None))
    return found


def _month_in(suffix: str) -> datetime | None:
    """The month of ``2025_03``; None for the default partition."""
    try:
        return month_named(suffix.replace("_", "-"))
    except InvalidMonth:
        return None
