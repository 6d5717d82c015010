"""Billing periods: half-open spans produced by an anchor and an interval (L21)."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Self, assert_never

IntervalUnit = Literal["day", "week", "month", "year"]

INTERVAL_COUNT_MAX = 1000
"""The most units one interval may span; more is a mistake."""

_UNITS: tuple[IntervalUnit, ...] = ("day", "week", "month", "year")
_MONTHS_PER_YEAR = 12
_INTERVAL = re.compile(r"(?:([1-9][0-9]{0,3}) )?(day|week|month|year)s?")


class InvalidPeriod(ValueError):
    """The span, the instant or the interval cannot make a billing period."""


class PeriodOutsideCalendar(ValueError):
    """The period asked for lies before year 1 or after year 9999, where no instant can be written."""


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """A half-open span: ``start`` belongs to it, ``end`` is the first instant of the next one.

    Raises:
        InvalidPeriod: an instant is not aware UTC, or the span is empty.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _utc(self.start, "start"))
        object.__setattr__(self, "end", _utc(self.end, "end"))
        if self.start >= self.end:
            raise InvalidPeriod(f"a period ends after it starts, not {self.start} to {self.end}")

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= _utc(instant, "instant") < self.end

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    def covers(self, part: "BillingPeriod") -> bool:
        """Whether every instant of ``part`` is in this period."""
        return self.start <= part.start and part.end <= self.end


@dataclass(frozen=True, slots=True)
class Interval:
    """How long a billing period is, in calendar units: ``Interval(3, "month")`` is a quarter."""

    count: int
    unit: IntervalUnit

    def __post_init__(self) -> None:
        if type(self.count) is not int or not 1 <= self.count <= INTERVAL_COUNT_MAX:
            raise InvalidPeriod(f"an interval counts from 1 to {INTERVAL_COUNT_MAX} units, not {self.count!r}")
        if self.unit not in _UNITS:
            raise InvalidPeriod(f"an interval is counted in {', '.join(_UNITS)}, not {self.unit!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"month"``, ``"1 month"`` or ``"3 months"``.

        Raises:
            InvalidPeriod: the text is none of these.
        """
        match = _INTERVAL.fullmatch(text)
        if match is None:
            raise InvalidPeriod(f"{text[:60]!r} is not an interval such as 'month' or '3 months'")
        unit = next(unit for unit in _UNITS if unit == match[2])
        return cls(int(match[1] or 1), unit)

    def __str__(self) -> str:
        return self.unit if self.count == 1 else f"{self.count} {self.unit}s"


@dataclass(frozen=True, slots=True)
class BillingSchedule:
    """All billing periods of a customer: period ``n`` runs from anchor + n x interval to anchor + (n+1) x interval.

    Every boundary is reckoned from the anchor itself and clamped to the end of a short month, so a period that starts
    on 28 February because the anchor is a 31st is followed by one that starts on 31 March: no drift (L21). Periods
    before the anchor have negative numbers.

    Raises:
        InvalidPeriod: the anchor is not aware UTC.
    """

    anchor: datetime
    interval: Interval

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchor", _utc(self.anchor, "anchor"))

    def period(self, number: int) -> BillingPeriod:
        """Period ``number``; 0 starts at the anchor.

        Raises:
            PeriodOutsideCalendar: it does not lie within the years 1 to 9999.
        """
        return BillingPeriod(self._boundary(number), self._boundary(number + 1))

    def number_of(self, instant: datetime) -> int:
        """The number of the period that contains an instant.

        Raises:
            InvalidPeriod: the instant is not aware UTC.
            PeriodOutsideCalendar: the period does not lie within the years 1 to 9999.
        """
        instant = _utc(instant, "instant")
        match self.interval.unit:
            case "day" | "week":
                return (instant - self.anchor) // self._fixed_length()
            case "month" | "year":
                months = _months_since_year_0(instant) - _months_since_year_0(self.anchor)
                number = months // self._length_months()
                # The interval may begin later within this very month than the instant: then it is the one before.
                return number if self._boundary(number) <= instant else number - 1
            case _:
                assert_never(self.interval.unit)

    def period_containing(self, instant: datetime) -> BillingPeriod:
        """The one period that contains an instant.

        Raises:
            InvalidPeriod: the instant is not aware UTC.
            PeriodOutsideCalendar: the period does not lie within the years 1 to 9999.
        """
        return self.period(self.number_of(instant))

    def next(self, period: BillingPeriod) -> BillingPeriod:
        """The period after one of this schedule's periods.

        Raises:
            InvalidPeriod: ``period`` is not one of this schedule's: after a change of schedule, ask by instant.
        """
        return self.period(self._number_of_own(period) + 1)

    def previous(self, period: BillingPeriod) -> BillingPeriod:
        """The period before one of this schedule's periods.

        Raises:
            InvalidPeriod: ``period`` is not one of this schedule's: after a change of schedule, ask by instant.
        """
        return self.period(self._number_of_own(period) - 1)

    def _number_of_own(self, period: BillingPeriod) -> int:
        number = self.number_of(period.start)
        if self.period(number) != period:
            raise InvalidPeriod(f"{period.start} to {period.end} is not a period of this schedule")
        return number

    def _boundary(self, number: int) -> datetime:
        try:
            if self.interval.unit in ("day", "week"):
                return self.anchor + number * self._fixed_length()
            year, month_index = divmod(
                _months_since_year_0(self.anchor) + number * self._length_months(), _MONTHS_PER_YEAR
            )
            day = min(self.anchor.day, monthrange(year, month_index + 1)[1])
            return self.anchor.replace(year=year, month=month_index + 1, day=day)
        except (ValueError, OverflowError) as error:
            raise PeriodOutsideCalendar(f"period {number} of every {self.interval} from {self.anchor}") from error

    def _fixed_length(self) -> timedelta:
        return timedelta(days=self.interval.count * (7 if self.interval.unit == "week" else 1))

    def _length_months(self) -> int:
        return self.interval.count * (_MONTHS_PER_YEAR if self.interval.unit == "year" else 1)


def _months_since_year_0(instant: datetime) -> int:
    return instant.year * _MONTHS_PER_YEAR + instant.month - 1


def _utc(instant: datetime, name: str) -> datetime:
    if instant.utcoffset() != timedelta(0):
        raise InvalidPeriod(f"{name} must be an aware instant in UTC, not {instant.isoformat()} (L21)")
    return instant.astimezone(UTC)
