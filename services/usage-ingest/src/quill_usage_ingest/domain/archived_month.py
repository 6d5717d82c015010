"""Months whose reports and cells have left the database: what is about them is refused in plain words."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.usage_month import month_after, month_name

KEEP_MONTHS: Final = 14
"""How long after a billing period has ended its reports and cells stay at hand, unless an operator says otherwise."""
_MICROSECOND: Final = timedelta(microseconds=1)


class MonthArchived(Exception):
    """Usage of this month cannot be read or changed: its cells are in an archive. Names the way back (L4, L5)."""

    def __init__(self, month: datetime) -> None:
        name = month_name(month)
        super().__init__(
            f"{name} is archived: its reports and cells are not in the database; bring them back with"
            f" `python -m quill_usage_ingest attach {name}`, or `restore {name} --from FOLDER` once they were dropped"
        )
        self.month = month


class MonthStillNeeded(Exception):
    """A month may not leave the database yet; says who needs it, and until when."""


def refuse_archived(archived: Collection[datetime], start: datetime, end: datetime) -> None:
    """Refuse to answer for a span of which a part is not there: a smaller number must never pass for the whole one.

    Raises:
        MonthArchived: the first archived month that [``start``, ``end``) overlaps.
    """
    month = first_archived(archived, start, end)
    if month is not None:
        raise MonthArchived(month)


def first_archived(archived: Collection[datetime], start: datetime, end: datetime) -> datetime | None:
    """The first archived month that [``start``, ``end``) overlaps."""
    return min((month for month in archived if month < end and start < month_after(month)), default=None)


def refuse_needed(
    month: datetime, schedules: Iterable[tuple[str, Schedules]], *, keep_months: int, now: datetime
) -> None:
    """Refuse to let a month go while a billing period that overlaps it is open or ended less than ``keep_months`` ago.

    ``schedules`` are those of all organizations: whoever reported nothing may still report late.

    Raises:
        MonthStillNeeded: naming the organization and its period.
    """
    last = month_after(month) - _MICROSECOND
    for organization_id, schedule in schedules:
        period = schedule.period_containing(last)
        if now < period.end:
            raise MonthStillNeeded(f"{month_name(month)}: {_of(organization_id, period)} is still open")
        kept_until = BillingSchedule(period.end, Interval(1, "month")).period(keep_months).start
        if now < kept_until:
            raise MonthStillNeeded(
                f"{month_name(month)}: {_of(organization_id, period)} ended less than {keep_months} months ago;"
                f" from {kept_until.date()} on it may go"
            )


def _of(organization_id: str, period: BillingPeriod) -> str:
    return f"the billing period {period.start.date()} to {period.end.date()} of {organization_id}"
