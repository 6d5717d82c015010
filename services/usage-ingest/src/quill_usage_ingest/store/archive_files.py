"""Archives as files: one gzip of JSON lines per table, and a manifest, in a folder per month."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from quill_usage_ingest.domain.month_archive import FORMAT, Fingerprint, MonthArchive, TableArchive, refuse_other_rows
from quill_usage_ingest.domain.usage_month import month_name

MANIFEST: Final = "manifest.json"
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A kept report of the largest message Kafka takes is a quarter of it."""
_CHUNK: Final = 1024 * 1024
_LEVEL: Final = 6


class ArchiveDamaged(Exception):
    """An archive cannot be read or is not what its manifest says; names the file."""


class TableFile:
    """A file of rows being written. What it holds is known once it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fingerprint = Fingerprint()
        self._hash = hashlib.sha256()
        self._length = 0

    def __enter__(self) -> Self:
        self._raw = self.path.open("wb")
        # No name and no time in the header: the same rows make the same bytes.
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=self, mtime=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gzip.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()

    def add(self, row: bytes) -> None:
        """One row as one line of JSON."""
        self.fingerprint.add(row)
        self._gzip.write(row + b"\n")

    def write(self, data: bytes) -> int:
        """For gzip: bytes on their way to the file are counted and hashed."""
        self._hash.update(data)
        self._length += len(data)
        return self._raw.write(data)

    def flush(self) -> None:
        """For gzip."""
        self._raw.flush()

    @property
    def bytes(self) -> int:
        return self._length

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def write_manifest(folder: Path, archive: MonthArchive) -> None:
    """Write the manifest last: a folder without one is not an archive."""
    with (folder / MANIFEST).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(archive), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path, *, month_of_folder: str) -> MonthArchive:
    """The manifest of an archive.

    Raises:
        ArchiveDamaged: it is not there, not readable, or of another month.
    """
    path = folder / MANIFEST
    try:
        archive = msgspec.json.decode(path.read_bytes(), type=MonthArchive)
    except FileNotFoundError as error:
        raise ArchiveDamaged(f"{path}: there is no archive; make one with `archive {month_of_folder}`") from error
    except (OSError, ValueError) as error:
        raise ArchiveDamaged(f"{path}: cannot be read: {error}") from error
    if archive.format != FORMAT:
        raise ArchiveDamaged(f"{path}: has format {archive.format}; this version reads {FORMAT}")
    if month_name(archive.month) != month_of_folder:
        raise ArchiveDamaged(f"{path}: is of {month_name(archive.month)}, not of {month_of_folder}")
    return archive


def check_file(folder: Path, archive: MonthArchive, table: TableArchive) -> None:
    """Read a file whole and compare it with the manifest, byte for byte and row for row.

    Raises:
        ArchiveDamaged: the file is missing, changed or broken.
        ArchiveMismatch: its rows are not those promised.
    """
    path = folder / Path(table.file).name
    hashed = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hashed.update(chunk)
    except OSError as error:
        raise ArchiveDamaged(f"{path}: cannot be read: {error}") from error
    if hashed.hexdigest() != table.sha256:
        raise ArchiveDamaged(f"{path}: is not the file that its manifest describes; do not use this archive")
    found = Fingerprint()
    for row in rows_of(path):
        found.add(row)
    fix = "do not use this archive"
    refuse_other_rows(table, found, where=str(path), month=archive.month, fix=fix)


def rows_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, one at a time.

    Raises:
        ArchiveDamaged: not gzip, cut off, or a line without end.
    """
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                if not line.endswith(b"\n"):
                    raise ArchiveDamaged(f"{path}: a line has no end")
                yield line[:-1]
    except (OSError, EOFError, zlib.error) as error:
        raise ArchiveDamaged(f"{path}: cannot be read: {error}") from error
