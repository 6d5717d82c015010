"""Schedules as they are stored: the one in force in columns, the ended ones as one JSON document, or none."""

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime

from quill_pricing.period import BillingSchedule, Interval
from quill_pricing.schedule_history import EndedSchedule, ScheduleHistory, Schedules

Documents = Sequence[Mapping[str, str]] | None


@functools.lru_cache(maxsize=4_096)
def schedule_of(anchor: datetime, interval: str) -> BillingSchedule:
    """The schedule in force, one object for all customers who share it."""
    return BillingSchedule(anchor, Interval.parse(interval))


def schedules_of(anchor: datetime, interval: str, ended: Documents) -> Schedules:
    """What makes a customer's periods; its schedule alone if it never had another."""
    return _history(anchor, interval, _rows(ended)) if ended else schedule_of(anchor, interval)


def ended_schedules_of(ended: Documents) -> tuple[EndedSchedule, ...]:
    """The ended schedules, oldest first."""
    return _ended(_rows(ended)) if ended else ()


def documents_of(ended: Sequence[EndedSchedule]) -> list[dict[str, str]] | None:
    """Ended schedules as plain JSON values; None when there are none."""
    return [
        {
            "anchor": each.schedule.anchor.isoformat(),
            "interval": str(each.schedule.interval),
            "until": each.until.isoformat(),
        }
        for each in ended
    ] or None


def _rows(ended: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str, str], ...]:
    return tuple((each["anchor"], each["interval"], each["until"]) for each in ended)


@functools.lru_cache(maxsize=4_096)
def _history(anchor: datetime, interval: str, ended: tuple[tuple[str, str, str], ...]) -> ScheduleHistory:
    return ScheduleHistory(schedule_of(anchor, interval), _ended(ended))


@functools.lru_cache(maxsize=4_096)
def _ended(rows: tuple[tuple[str, str, str], ...]) -> tuple[EndedSchedule, ...]:
    return tuple(
        EndedSchedule(schedule_of(datetime.fromisoformat(anchor), interval), datetime.fromisoformat(until))
        for anchor, interval, until in rows
    )
