"""How far a source has told everything: watermarks and complete days, in any order and however often (L1)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

HOLES_MAX: Final = 1_000
"""Stretches kept beyond a hole; a source that leaves more has the latest forgotten, which only claims less."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Windows in [``start``, ``end``)."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse an empty span.

        Raises:
            ValueError: it does not end after its start.
        """
        if not self.start < self.end:
            raise ValueError("a span must end after its start")


@dataclass(frozen=True, slots=True)
class CompleteThrough:
    """Everything before ``through`` was told; ``ahead`` are later stretches that were told beyond a hole.

    A watermark speaks for all that lies before it, so the largest counts. A complete day speaks for that day alone: it
    counts once nothing is missing before it. The first day ever told is the beginning. Once there is a beginning,
    order and repetition do not matter, and ``through`` never falls.
    """

    through: datetime | None = None
    ahead: tuple[Span, ...] = ()

    def told_before(self, through: datetime) -> "CompleteThrough":
        """With a watermark: all windows that end at or before it were told."""
        largest = through if self.through is None else max(self.through, through)
        return CompleteThrough(*_attached(largest, self.ahead))

    def told(self, span: Span) -> "CompleteThrough":
        """With one complete stretch."""
        begin = span.start if self.through is None else self.through
        return CompleteThrough(*_attached(begin, (*self.ahead, span)))

    def covers(self, instant: datetime) -> bool:
        """Whether everything before this instant was told."""
        return self.through is not None and instant <= self.through


NOTHING_TOLD: Final = CompleteThrough()


def _attached(through: datetime, spans: Iterable[Span]) -> tuple[datetime, tuple[Span, ...]]:
    """Stretches joined: those that touch what is complete move it on, the others stay, merged, in order."""
    ahead: list[Span] = []
    for span in sorted(spans):
        if span.start <= through:
            through = max(through, span.end)
        elif ahead and span.start <= ahead[-1].end:
            ahead[-1] = Span(ahead[-1].start, max(ahead[-1].end, span.end))
        else:
            ahead.append(span)
    return through, tuple(ahead[:HOLES_MAX])
