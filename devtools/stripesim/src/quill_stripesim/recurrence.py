"""When periods begin and end: anchor + n x interval, without drift (L21).

Written apart from the product's own periods on purpose: a mistake shared by both would hide in every comparison.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A rhythm of boundaries.

    Attributes:
        anchor: Unix seconds of one boundary, the zeroth.
        day_of_month: Day to return to after a short month; the anchor's own day unless it was clamped itself.
        interval: `day`, `week`, `month` or `year`.
        interval_count: How many of them make one period, at least 1.
    """

    anchor: int
    day_of_month: int
    interval: str
    interval_count: int

    def boundary(self, number: int) -> int:
        """Returns boundary `number` (negative before the anchor) in unix seconds."""
        start = datetime.fromtimestamp(self.anchor, tz=UTC)
        if self.interval in _DAYS:
            return self.anchor + number * self.interval_count * _DAYS[self.interval] * 86_400
        months = start.year * 12 + start.month - 1 + number * self.interval_count * _MONTHS[self.interval]
        year, month = divmod(months, 12)
        day = min(self.day_of_month, calendar.monthrange(year, month + 1)[1])
        return int(start.replace(year=year, month=month + 1, day=day).timestamp())

    def period_at(self, instant: int) -> tuple[int, int]:
        """Returns the half-open period that contains an instant, in unix seconds."""
        number = self._guess(instant)
        while self.boundary(number) > instant:
            number -= 1
        while self.boundary(number + 1) <= instant:
            number += 1
        return self.boundary(number), self.boundary(number + 1)

    def _guess(self, instant: int) -> int:
        """A boundary within two of the right one, so that `period_at` takes a bounded number of steps."""
        if self.interval in _DAYS:
            return (instant - self.anchor) // (self.interval_count * _DAYS[self.interval] * 86_400)
        start, at = (datetime.fromtimestamp(moment, tz=UTC) for moment in (self.anchor, instant))
        months = (at.year - start.year) * 12 + at.month - start.month
        return months // (self.interval_count * _MONTHS[self.interval])


def next_day_of_month(after: int, *, day: int, hour: int, minute: int, second: int) -> int:
    """Returns the first instant after `after` at a day and time of a month, clamped to the month's end."""
    at = datetime.fromtimestamp(after, tz=UTC)
    for months_ahead in range(2):
        year, month = divmod(at.year * 12 + at.month - 1 + months_ahead, 12)
        last = calendar.monthrange(year, month + 1)[1]
        moment = datetime(year, month + 1, min(day, last), hour, minute, second, tzinfo=UTC)
        if moment.timestamp() > after:
            return int(moment.timestamp())
    raise AssertionError("every month has a last day")


def day_of_month(instant: int) -> int:
    """Returns the UTC day of the month of an instant."""
    return datetime.fromtimestamp(instant, tz=UTC).day


def days_before(instant: int, days: int) -> int:
    """Returns the instant a number of calendar days earlier (UTC has no other kind)."""
    return int((datetime.fromtimestamp(instant, tz=UTC) - timedelta(days=days)).timestamp())
