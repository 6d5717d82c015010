"""What survives a kill: one line per request, appended before the request is answered."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class JournalDamaged(Exception):
    """A line other than the last cannot be read, so the state after it is unknown."""


class Journal:
    """An append-only file of JSON lines.

    Each line is one whole request's change, so a kill between two requests loses nothing and a kill inside a write
    leaves a torn last line, which belongs to a request nobody was answered for and is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yields every whole line.

        Raises:
            JournalDamaged: A line before the last is not JSON.
        """
        if not self._path.exists():
            return
        # Bytes and line feeds only: text mode would also break lines at characters that JSON allows inside a string.
        lines = self._path.read_bytes().rstrip(b"\n").split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                if number == len(lines):
                    return
                raise JournalDamaged(f"line {number} of {self._path.name} is not JSON") from error
            yield entry

    def restart(self, whole: dict[str, Any]) -> None:
        """Replaces the file by one line that holds everything, atomically, and opens it for appending."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".fresh")
        fresh.write_text(_line(whole), encoding="utf-8")
        fresh.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def append(self, entry: dict[str, Any]) -> None:
        """Hands one line to the operating system, which keeps it when this process is killed."""
        if self._file is None:
            raise RuntimeError("the journal is not open: restart() comes first")
        self._file.write(_line(entry))
        self._file.flush()

    def close(self) -> None:
        """Writes everything to the disk and lets go of the file."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n"
