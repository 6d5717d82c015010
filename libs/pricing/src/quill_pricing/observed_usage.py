"""The billed quantity of a metered price: usage counts only as far as the limit in force allowed it (L12)."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from quill_pricing.quantity import check_quantity

StepValue = TypeVar("StepValue")


class InvalidObservation(ValueError):
    """The instant of an observation or of a limit is not aware UTC (L21)."""


@dataclass(frozen=True, slots=True)
class UsageObservation:
    """From ``at`` on, until the next observation, period usage is ``quantity``."""

    at: datetime
    quantity: int

    def __post_init__(self) -> None:
        _check_utc(self.at)
        check_quantity(self.quantity)


@dataclass(frozen=True, slots=True)
class LimitInForce:
    """From ``effective_at`` on, until the next entry, usage is limited to ``limit`` units; None is unlimited."""

    effective_at: datetime
    limit: int | None

    def __post_init__(self) -> None:
        _check_utc(self.effective_at)
        if self.limit is not None:
            check_quantity(self.limit)


def billed_quantity(usage: Sequence[UsageObservation], limits: Sequence[LimitInForce]) -> int:
    """The greatest value, over the period, of min(usage, limit in force at that time) (L12).

    So usage beyond a limit is not billed, a limit lowered later does not shrink what was already used, and a limit that
    is lifted while usage stands above it bills that usage. Usage and limits are step functions; both start at their
    instant. Usage is 0 before the first observation; there is no limit before the first entry.

    Args:
        usage: period usage as it was known over time, in any order. Of several at one instant the last given holds.
        limits: the limits in force over time, in any order. Of several at one instant the last given holds.

    Returns:
        Units to rate for the billing period.
    """
    usage_steps = _steps([(observation.at, observation.quantity) for observation in usage])
    limit_steps = _steps([(entry.effective_at, entry.limit) for entry in limits])
    usage_instants = [instant for instant, _ in usage_steps]
    limit_instants = [instant for instant, _ in limit_steps]
    greatest = 0
    # The minimum of two step functions changes only where one of them does.
    for instant in (*usage_instants, *limit_instants):
        used = _in_force(usage_steps, usage_instants, instant) or 0
        limit = _in_force(limit_steps, limit_instants, instant)
        greatest = max(greatest, used if limit is None else min(used, limit))
    return greatest


def _steps(entries: list[tuple[datetime, StepValue]]) -> list[tuple[datetime, StepValue]]:
    return sorted(dict(entries).items(), key=lambda entry: entry[0])


def _in_force(steps: list[tuple[datetime, StepValue]], instants: list[datetime], instant: datetime) -> StepValue | None:
    position = bisect_right(instants, instant)
    return steps[position - 1][1] if position else None


def _check_utc(instant: datetime) -> None:
    if instant.utcoffset() != timedelta(0):
        raise InvalidObservation(f"must be an aware instant in UTC, not {instant.isoformat()} (L21)")
