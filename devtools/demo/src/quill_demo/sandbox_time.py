"""The demo's hand on the clock: every process of the sandbox reads the same file (see quill_runtime.clock)."""

from datetime import UTC, datetime
from pathlib import Path


class SandboxTime:
    """Sets the instant at which the whole sandbox lives; it then runs on at the machine's pace."""

    def __init__(self, clock_file: Path) -> None:
        self._clock_file = clock_file

    def now(self) -> datetime:
        offset = float(self._clock_file.read_text("ascii"))
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + offset, UTC)

    def set(self, instant: datetime) -> None:
        """Move to ``instant`` in one step that no reader sees half done."""
        offset = instant.timestamp() - datetime.now(UTC).timestamp()
        fresh = self._clock_file.with_suffix(".new")
        fresh.write_text(f"{offset:.6f}", "ascii")
        fresh.replace(self._clock_file)

    def reach(self, instant: datetime) -> None:
        """Move to ``instant`` unless it is past already: sandbox time never goes back."""
        if instant > self.now():
            self.set(instant)
