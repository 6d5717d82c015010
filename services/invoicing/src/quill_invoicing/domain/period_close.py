"""When a billing period may be closed, and which one comes after it (L21)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from quill_pricing.period import BillingPeriod, BillingSchedule, Interval

from quill_invoicing.domain.terms import CustomerTerms


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


def period_after(period: BillingPeriod, terms: CustomerTerms) -> BillingPeriod:
    """The billing period that begins where one ended, on the schedule in force.

    After the anchor moved, the first period is the rest of the new schedule's, so that periods neither overlap nor
    leave a hole.
    """
    schedule = BillingSchedule(anchor=terms.anchor, interval=Interval.parse(terms.interval))
    following = schedule.period_containing(period.end)
    return BillingPeriod(start=period.end, end=following.end)


def open_period_given(open_period: BillingPeriod, terms: CustomerTerms) -> BillingPeriod:
    """The open period once newer terms are known.

    A moved anchor begins a new period inside the open one and so ends it early; terms written for a later period, or
    for an earlier one, change nothing.
    """
    begins = terms.period.start
    if begins == open_period.start:
        return terms.period
    if open_period.start < begins < open_period.end:
        return BillingPeriod(start=open_period.start, end=begins)
    return open_period
