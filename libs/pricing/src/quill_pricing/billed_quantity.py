"""The billed quantity of a metered price: usage counts when it happened, as far as the limit then allowed it (L12).

The words of this module:

* ``used(t)`` is the usage of a billing period before the instant ``t``.
* A *paid span* is a time in which the meter is subscribed and no trial runs.
* ``chargeable(t)`` is the part of ``used(t)`` that lies inside paid spans.
* A *cut* is an instant at which a paid span begins or ends, or a limit falls. Usage only grows, so ``used`` at the cuts
  and at the end of the period is all that a bill depends on.

Invoices, the billing page, previews and the limiter call these functions, so they cannot disagree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from quill_pricing.period import BillingPeriod
from quill_pricing.quantity import check_quantity


class InvalidTerms(ValueError):
    """The instant of terms or of a cut is not aware UTC (L21)."""


@dataclass(frozen=True, slots=True)
class BillingTerms:
    """From ``effective_at`` on, until the next entry: whether usage is charged, and up to which period quantity.

    Attributes:
        is_paid: the meter is subscribed and no trial runs.
        limit: units per billing period; None is unlimited.
    """

    effective_at: datetime
    is_paid: bool
    limit: int | None = None

    def __post_init__(self) -> None:
        _check_utc(self.effective_at)
        if self.limit is not None:
            check_quantity(self.limit)


@dataclass(frozen=True, slots=True)
class MeteredUsage:
    """What is known of one meter in one billing period, in units of the meter.

    Attributes:
        total: used in the period so far.
        before: used before each cut, by instant. A cut that is not known here yet is younger than what was counted:
            all that is known lies before it.
        is_last_value: the meter is a gauge that bills its last value, not a flow that adds up.
    """

    total: int
    before: Mapping[datetime, int] = field(default_factory=dict)
    is_last_value: bool = False

    def __post_init__(self) -> None:
        check_quantity(self.total)
        for instant, quantity in self.before.items():
            _check_utc(instant)
            check_quantity(quantity)

    def used_before(self, instant: datetime, period: BillingPeriod) -> int:
        """``used(t)``: 0 at the period's start, ``total`` from its end on; never more than at a later instant."""
        if instant <= period.start and not self.is_last_value:
            return 0
        if instant >= period.end:
            return self.total
        if self.is_last_value:
            return self.before.get(instant, self.total)
        # Usage only grows: what a later cut says bounds an earlier one that no report told apart.
        return min([self.total, *(known for at, known in self.before.items() if at >= instant)])


def billed_quantity(usage: MeteredUsage, terms: Sequence[BillingTerms], period: BillingPeriod) -> int:
    """The quantity to rate for a billing period (L12).

    For a flow: the greatest min(chargeable(t), limit in force at t) over all instants t of the paid spans, by time of
    use. So usage beyond a limit is not billed, a limit lowered later does not shrink what was used before it, and a
    limit that is lifted while usage stands above it bills that usage. For a gauge: its last value in the last paid
    span, as far as the limit in force then allowed.

    Args:
        usage: what was used, also before each cut.
        terms: in any order; of several at one instant the last given holds. Before the first nothing is paid.
        period: the billing period.

    Raises:
        InvalidTerms: an instant is not aware UTC.
        InvalidQuantity: a quantity or limit is none.
    """
    greatest = chargeable = 0
    for start, end, in_force in _segments(terms, period):
        if not in_force.is_paid:
            continue
        used = usage.used_before(end, period)
        if usage.is_last_value:
            greatest = _up_to(in_force.limit, used)
            continue
        chargeable += max(0, used - usage.used_before(start, period))
        greatest = max(greatest, _up_to(in_force.limit, chargeable))
    return greatest


def chargeable_quantity(usage: MeteredUsage, terms: Sequence[BillingTerms], period: BillingPeriod) -> int:
    """The part of the period's usage that lies inside paid spans, whatever the limits. A gauge: its value, once paid.

    Raises:
        InvalidTerms: an instant is not aware UTC.
    """
    paid = [(start, end) for start, end, in_force in _segments(terms, period) if in_force.is_paid]
    if usage.is_last_value:
        return usage.used_before(paid[-1][1], period) if paid else 0
    return sum(max(0, usage.used_before(end, period) - usage.used_before(start, period)) for start, end in paid)


def is_paid_in(terms: Sequence[BillingTerms], period: BillingPeriod) -> bool:
    """Whether the meter is paid at any instant of the period: then the period is billed, also for 0 units (K3).

    Raises:
        InvalidTerms: an instant is not aware UTC.
    """
    return any(in_force.is_paid for _, _, in_force in _segments(terms, period))


def quantity_against_limit(
    usage: MeteredUsage, terms: Sequence[BillingTerms], period: BillingPeriod, *, now: datetime
) -> int:
    """What a limit is compared with at ``now``: chargeable usage while the meter is paid, all usage otherwise.

    Raises:
        InvalidTerms: an instant is not aware UTC.
    """
    is_paid = False
    for start, _, in_force in _segments(terms, period):
        if start <= max(now, period.start):
            is_paid = in_force.is_paid
    return chargeable_quantity(usage, terms, period) if is_paid and not usage.is_last_value else usage.total


def cuts_between(terms: Sequence[BillingTerms], period: BillingPeriod) -> tuple[datetime, ...]:
    """The instants inside a period at which a paid span begins or ends, or a limit of one falls; rising.

    Raises:
        InvalidTerms: an instant is not aware UTC.
    """
    return tuple(start for start, _, _ in _segments(terms, period))[1:]


def is_cut(before: BillingTerms, after: BillingTerms) -> bool:
    """Whether a bill depends on what was used before ``after`` took over."""
    if before.is_paid != after.is_paid:
        return True
    return after.is_paid and after.limit is not None and (before.limit is None or after.limit < before.limit)


def _segments(
    terms: Sequence[BillingTerms], period: BillingPeriod
) -> Iterator[tuple[datetime, datetime, BillingTerms]]:
    """The period divided at its cuts: start, end, and the last terms in force between them. Together the period.

    Between two cuts a limit can only rise, so the last terms let the most through.
    """
    in_force = BillingTerms(period.start, is_paid=False)
    start = period.start
    for each in sorted({each.effective_at: each for each in terms}.values(), key=lambda each: each.effective_at):
        if period.start < each.effective_at < period.end and is_cut(in_force, each):
            yield start, each.effective_at, in_force
            start = each.effective_at
        if each.effective_at < period.end:
            in_force = each
    yield start, period.end, in_force


def _up_to(limit: int | None, quantity: int) -> int:
    return quantity if limit is None else min(quantity, limit)


def _check_utc(instant: datetime) -> None:
    if instant.utcoffset() != timedelta(0):
        raise InvalidTerms(f"must be an aware instant in UTC, not {instant.isoformat()} (L21)")
