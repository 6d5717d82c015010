"""The one reader of system time. Everything below an entry point takes ``now`` as an argument (L21)."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Tells the instant; read once per request, message batch or job run."""

    def now(self) -> datetime:
        """The current aware UTC instant."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SandboxClock:
    """The machine's clock plus an offset kept in a file, so that a sandbox can live through a month in minutes.

    The file holds one decimal number: seconds to add. A missing or empty file means no offset. Several processes that
    name the same file share one time. Meant for demos and stories; production leaves ``QUILL_CLOCK_FILE`` unset.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset()

    def _offset(self) -> timedelta:
        try:
            text = self._path.read_text("ascii").strip()
        except FileNotFoundError:
            return timedelta()
        return timedelta(seconds=float(text)) if text else timedelta()


def clock_from(clock_file: Path | None) -> Clock:
    """The sandbox clock when a file is named, the system clock otherwise."""
    return SystemClock() if clock_file is None else SandboxClock(clock_file)
