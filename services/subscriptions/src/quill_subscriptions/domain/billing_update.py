"""When a region is told of a customer anew: the marks that say so, and how long a failure waits."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

IN_FLIGHT: Final = timedelta(seconds=60)
"""How long a claimed update is left alone: longer than its sending can take with every timeout and retry."""
BACK_OFF: Final = tuple(timedelta(seconds=seconds) for seconds in (1, 5, 15, 60))

UpdateStatus = Literal["due", "failed"]


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """Which licenses stand for regions that are told, and how seldom usage alone is told (none: nothing is marked)."""

    license_ids: frozenset[str] = field(default_factory=frozenset)
    spacing: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ClaimedUpdate:
    """An update that one sender holds until ``held_until``; ``generation`` tells a mark made since from this one."""

    organization_id: str
    license_id: str
    generation: int
    attempts: int
    held_until: datetime


@dataclass(frozen=True, slots=True)
class UpdateStanding:
    """What is known of one organization's updates, for operators."""

    organization_id: str
    license_id: str
    due_at: datetime | None
    sent_at: datetime | None
    failed_at: datetime | None
    attempts: int
    error: str | None


def usage_due_at(*, now: datetime, told_at: datetime | None, spacing: timedelta) -> datetime:
    """When new usage alone is told: at once, but never sooner than ``spacing`` after the last time."""
    return now if told_at is None else max(now, told_at + spacing)


def back_off(attempts: int) -> timedelta:
    """How long to wait after so many attempts, from 1."""
    return BACK_OFF[min(max(attempts, 1), len(BACK_OFF)) - 1]
