"""What a capture service did with what it was told: how much it let through and how much it dropped."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class DropReport:
    """One source's count of one meter over a window. ``report_id`` names it in its organization for ever."""

    report_id: str
    organization_id: str
    usage_key: str
    source: str
    window_start: datetime
    window_end: datetime
    allowed: int
    dropped: int


@dataclass(frozen=True, slots=True)
class DropTotals:
    """Sums over reports whose window starts in a billing period, of all sources."""

    allowed: int
    dropped: int
    reports: int
