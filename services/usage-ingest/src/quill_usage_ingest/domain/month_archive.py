"""What an archived month holds, table by table, told exactly enough that a row more, less or other is noticed."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from quill_usage_ingest.domain.usage_month import month_name

FORMAT: Final = 1
_MODULUS: Final = 1 << 256


class Fingerprint:
    """Of many rows in whatever order: how many, and the sum of their SHA-256 modulo 2^256.

    Two tables have the same one when they hold the same rows as often; the order in which a database or a collation
    hands them out does not matter.
    """

    __slots__ = ("_sum", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: bytes) -> None:
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(row).digest(), "big")) % _MODULUS

    @property
    def content(self) -> str:
        """64 hexadecimal digits."""
        return f"{self._sum:064x}"


@dataclass(frozen=True, slots=True)
class TableArchive:
    """The rows of one table in one month, as written to a file.

    Attributes:
        columns: those written, in this order; a table may have got others since.
        content: `Fingerprint` of the rows.
        bytes: length of the file.
        sha256: of the file.
        first, last: the first and the last window start among the rows; None when there are none.
    """

    table: str
    file: str
    columns: tuple[str, ...]
    rows: int
    content: str
    bytes: int
    sha256: str
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class MonthArchive:
    """The manifest of an archive. ``counters`` are the names by slot, without which packed rows mean nothing."""

    month: datetime
    made_at: datetime
    counters: tuple[str, ...]
    tables: tuple[TableArchive, ...]
    format: int = FORMAT

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def bytes(self) -> int:
        return sum(table.bytes for table in self.tables)


class ArchiveMismatch(Exception):
    """Files and database do not hold the same; names the table and what to do."""


def refuse_other_rows(archived: TableArchive, found: Fingerprint, *, where: str, month: datetime, fix: str) -> None:
    """Compare what a manifest promises of a table with what was read.

    Raises:
        ArchiveMismatch: with both counts, or saying that equally many rows differ.
    """
    if found.rows != archived.rows:
        counts = f"{found.rows:,} rows in {where}, {archived.rows:,} in its archive"
        raise ArchiveMismatch(f"{month_name(month)}: {archived.table} has {counts}; {fix}")
    if found.content != archived.content:
        differs = f"has as many rows in {where} as in its archive, but other ones"
        raise ArchiveMismatch(f"{month_name(month)}: {archived.table} {differs}; {fix}")
