"""Says what is happening: a moving line for a person at a terminal, plain lines for a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

NOTEWORTHY_SECONDS = 0.5


class Progress:
    """Prints to standard error, so that standard output stays a program's answer."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one finished line."""
        self._console.print(text, markup=False)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show that ``text`` is under way; afterwards keep the line with its duration when it was long."""
        started = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self.say(f"{text} ...")
            yield
        took = time.monotonic() - started
        if took >= NOTEWORTHY_SECONDS:
            self.say(f"{text}: {took:.1f} s")
