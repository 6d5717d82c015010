"""Metrics noted as plain numbers and handed to Prometheus in bulk, for paths where its own work would show.

One observation among other work costs five times what it costs in a row of them, since nothing of it is in the
processor's cache: a tenth of a quota check. A scrape hands over everything first.
"""

from typing import Final

from prometheus_client import Counter, Histogram

OBSERVATIONS_AT_ONCE: Final = 200


class ObservationTally:
    """Observations of one histogram, made together. One thread only."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._waiting: list[float] = []
        _tallies.append(self)

    def add(self, value: float) -> None:
        """Observe a value."""
        self._waiting.append(value)
        if len(self._waiting) >= OBSERVATIONS_AT_ONCE:
            self.hand_over()

    def hand_over(self) -> None:
        """Give Prometheus what was noted."""
        waiting, self._waiting = self._waiting, []
        for value in waiting:
            self._histogram.observe(value)


class CountTally:
    """Increments of one counter, made together. One thread only."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._waiting = 0
        _tallies.append(self)

    def add(self, amount: int) -> None:
        """Count further things."""
        self._waiting += amount

    def hand_over(self) -> None:
        """Give Prometheus what was noted."""
        waiting, self._waiting = self._waiting, 0
        if waiting:
            self._counter.inc(waiting)


_tallies: Final[list[ObservationTally | CountTally]] = []


def hand_over_all() -> None:
    """Give Prometheus all that was noted in this process: before every scrape."""
    for tally in _tallies:
        tally.hand_over()
