"""When a billing period may be closed, and which one comes after it (L21)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from quill_pricing.period import BillingPeriod
from quill_pricing.schedule_history import Schedules


@dataclass(frozen=True, slots=True)
class Grace:
    """How long a period stays open after its end, for reports that come late.

    Sources report complete days on the next day, so less than a day bills some of them a period late.
    """

    length: timedelta

    def may_close(self, period: BillingPeriod, *, now: datetime) -> bool:
        """Whether the period is over and its grace has passed; at that very instant it has."""
        return self.closes_at(period) <= now

    def closes_at(self, period: BillingPeriod) -> datetime:
        """The instant from which the period may be closed."""
        return period.end + self.length

    def ended_before(self, now: datetime) -> datetime:
        """A period that ended at or before this instant may be closed now."""
        return now - self.length


def period_from(start: datetime, schedules: Schedules) -> BillingPeriod:
    """The billing period that begins where everything before is closed, given the schedules known now.

    It ends early where another schedule cuts it, so that periods neither overlap nor leave a hole.
    """
    return BillingPeriod(start=start, end=schedules.period_containing(start).end)
