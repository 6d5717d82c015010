"""Whether a source is still counting a window (L6)."""

from datetime import datetime
from enum import StrEnum


class Completeness(StrEnum):
    """What a source says of the window it reports."""

    PARTIAL = "partial"
    COMPLETE = "complete"
    CORRECTED = "corrected"
    """Said by a named person of ours: holds against whatever the source still says, until it is taken back (L3)."""


def completeness_of_window(*, window_end: datetime, now: datetime) -> Completeness:
    """For a report that does not say: its window is complete once it lies in the past."""
    return Completeness.COMPLETE if window_end <= now else Completeness.PARTIAL
