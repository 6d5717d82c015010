"""Schedules one after another: the billing periods of a customer whose schedule changed, also inside a period (L21)."""

from dataclasses import dataclass
from datetime import datetime

from quill_pricing.period import BillingPeriod, BillingSchedule


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """What a customer snapshot says of the schedule.

    Attributes:
        begins: The start of the period that the new schedule puts the customer in.
        effective_at: When it was agreed.
    """

    schedule: BillingSchedule
    begins: datetime
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class EndedSchedule:
    """An earlier schedule; ``until`` is the first instant that is no longer its own."""

    schedule: BillingSchedule
    until: datetime


@dataclass(frozen=True, slots=True)
class ScheduleHistory:
    """The schedule in force and those before it. Its periods follow one another without a hole or an overlap.

    Who counts usage and who bills it ask this class, so that both cut a period at the same instant.

    Attributes:
        ended: Oldest first, ``until`` rising; each begins where the one before ended, the first has no beginning.
    """

    schedule: BillingSchedule
    ended: tuple[EndedSchedule, ...] = ()

    def period_containing(self, instant: datetime) -> BillingPeriod:
        """The one period that contains an instant: its schedule's, as far as that schedule reaches.

        Raises:
            InvalidPeriod: the instant is not aware UTC.
            PeriodOutsideCalendar: the period does not lie within the years 1 to 9999.
        """
        begun: datetime | None = None
        for ended in self.ended:
            if instant < ended.until:
                whole = ended.schedule.period_containing(instant)
                return BillingPeriod(_later(whole.start, begun), min(whole.end, ended.until))
            begun = ended.until
        whole = self.schedule.period_containing(instant)
        return BillingPeriod(_later(whole.start, begun), whole.end)

    def changed(self, change: ScheduleChange) -> "ScheduleHistory":
        """With another schedule from the cut on; the same schedule again changes nothing.

        The cut is where the new schedule's period begins if that lies in the period in which it was agreed; otherwise
        that period is left whole and the new schedule follows it. What an earlier change meant to begin at the cut or
        later never comes into force.

        Raises:
            InvalidPeriod: an instant is not aware UTC.
            PeriodOutsideCalendar: the period agreed in does not lie within the years 1 to 9999.
        """
        if change.schedule == self.schedule:
            return self
        agreed_in = self.period_containing(change.effective_at)
        cut = change.begins if change.begins in agreed_in else agreed_in.end
        kept = [ended for ended in self.ended if ended.until < cut]
        last = next((ended.schedule for ended in self.ended if ended.until >= cut), self.schedule)
        if last == change.schedule and last.period_containing(cut).start == cut:
            return ScheduleHistory(change.schedule, tuple(kept))
        return ScheduleHistory(change.schedule, (*kept, EndedSchedule(last, cut)))


Schedules = BillingSchedule | ScheduleHistory
"""What makes a customer's periods. One schedule alone is most of them: shared by many, and cheaper to ask."""


def _later(start: datetime, begun: datetime | None) -> datetime:
    return start if begun is None else max(start, begun)
