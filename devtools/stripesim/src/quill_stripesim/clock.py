"""The one reader of time: the system clock moved by a file and by the control API."""

import time
from decimal import Decimal, InvalidOperation
from pathlib import Path

from quill_stripesim.world import World

_KIND = "_clock"
_ID = "_clock"


class ClockFileUnreadable(Exception):
    """The clock file holds something other than one decimal number of seconds."""


class SimulatedClock:
    """Simulated unix seconds.

    The clock file holds one decimal number: seconds to add to the system clock. An absent or empty file adds nothing,
    so a demo that moves every service by rewriting one file moves Stripe with them.
    """

    def __init__(self, world: World, *, file: Path | None) -> None:
        self._world = world
        self._file = file

    def now(self) -> int:
        """Returns simulated unix seconds.

        Raises:
            ClockFileUnreadable: The clock file does not hold a number.
        """
        return self.shared_now() + self._own_offset()

    def shared_now(self) -> int:
        """Unix seconds as everybody reads them who shares the clock file: what a receiver checks a signature against.

        Raises:
            ClockFileUnreadable: The clock file does not hold a number.
        """
        return int(Decimal(str(time.time())) + self._file_offset())

    def move(self, seconds: int) -> None:
        """Moves the simulator's own clock, on top of the file, and remembers it."""
        self._world.put({"id": _ID, "object": _KIND, "offset_seconds": self._own_offset() + seconds})

    def _own_offset(self) -> int:
        stored = self._world.get(_KIND, _ID)
        return 0 if stored is None else int(stored["offset_seconds"])

    def _file_offset(self) -> Decimal:
        if self._file is None:
            return Decimal(0)
        try:
            text = self._file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return Decimal(0)
        try:
            return Decimal(text or "0")
        except InvalidOperation as error:
            raise ClockFileUnreadable(f"{self._file.name} holds {text!r}, not a number of seconds") from error
