"""What a correction changes, for people to look at before and after: totals, limits and money."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quill_pricing.billed_quantity import MeteredUsage, billed_quantity, quantity_against_limit
from quill_pricing.period import BillingPeriod
from quill_pricing.price import InvalidPrice, price_from_document
from quill_pricing.rating import amount_minor

from quill_usage_ingest.domain.cut_usage import CutKey, CutUsage
from quill_usage_ingest.domain.event_meter import Aggregation
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import CustomerFacts
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage, PeriodUsage

EventUsage = Mapping[tuple[BillingPeriod, str], CounterUsage]
"""Usage of event meters by period and meter."""


@dataclass(frozen=True, slots=True)
class UsageState:
    """What an organization used, in all periods in force and before their cuts."""

    periods: Sequence[PeriodUsage]
    events: EventUsage
    cuts: Mapping[CutKey, CutUsage]

    def of_counter(self, counter: str, period: BillingPeriod, maximum: int) -> MeteredUsage:
        """A counter's usage as billing takes it, with its total or maximum."""
        before = {key.at: cut.counters.get(counter, 0) for key, cut in self.cuts.items() if key.period == period}
        return MeteredUsage(maximum, before)

    def of_events(self, meter: str, period: BillingPeriod, maximum: int, *, is_last_value: bool) -> MeteredUsage:
        """The same of a meter that events feed."""
        before = {key.at: cut.events.get(meter, 0) for key, cut in self.cuts.items() if key.period == period}
        return MeteredUsage(maximum, before, is_last_value=is_last_value)


@dataclass(frozen=True, slots=True)
class Totals:
    """`CounterUsage` under names."""

    complete: int
    partial: int
    to_date: int
    maximum: int

    @classmethod
    def of(cls, usage: CounterUsage) -> "Totals":
        return cls(usage.complete, usage.partial, usage.to_date, usage.maximum)


@dataclass(frozen=True, slots=True)
class CounterEffect:
    """One counter of a report, or one meter that events feed, before and after; ``meters`` are those it feeds."""

    counter: str
    meters: tuple[str, ...]
    before: Totals
    after: Totals


@dataclass(frozen=True, slots=True)
class LimitEffect:
    """The quota of the customer's snapshot against what is used; without grace, which is the limiter's to give."""

    meter: str
    quota: int | None
    is_over_before: bool
    is_over_after: bool


@dataclass(frozen=True, slots=True)
class AmountEffect:
    """What the meter costs in the period at the customer's present price, in minor units (L11, L12).

    The billed quantity is the invoice's: usage counts where it was paid, as far as the limit then allowed. ``becomes``
    says where the difference goes: ``invoice`` while the period runs, ``adjustment`` once it has ended (L13).
    """

    meter: str
    currency: str
    before_minor: int
    after_minor: int
    becomes: str


@dataclass(frozen=True, slots=True)
class PeriodEffect:
    """Everything that changed in one billing period."""

    period_start: datetime
    period_end: datetime
    counters: tuple[CounterEffect, ...]
    limits: tuple[LimitEffect, ...]
    amounts: tuple[AmountEffect, ...]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The two states that a correction lies between, and what a bill needs beside."""

    before: UsageState
    after: UsageState
    meters: MeterMap
    customer: CustomerFacts
    now: datetime

    def metered(
        self, state: UsageState, change: CounterEffect, meter: str, period: BillingPeriod, total: int
    ) -> MeteredUsage:
        fed_by_events = self.meters.event_meters.get(meter)
        if fed_by_events is None:
            return state.of_counter(change.counter, period, total)
        return state.of_events(meter, period, total, is_last_value=fed_by_events.aggregation is Aggregation.LAST)


def effects(
    before: UsageState, after: UsageState, *, meters: MeterMap, customer: CustomerFacts, now: datetime
) -> tuple[PeriodEffect, ...]:
    """The periods that differ, oldest first: of counters, then of meters that events feed, under their own name.

    Limits are compared for the running period only: others are over.
    """
    compared = _Comparison(before, after, meters, customer, now)
    was = {usage.period: usage.counters for usage in before.periods}
    found = []
    for usage in sorted(after.periods, key=lambda held: held.period.start):
        changed = _changed(usage.period, was.get(usage.period, {}), usage.counters, meters)
        if changed:
            found.append(_effect(usage.period, changed, compared))
    fed = [*before.events, *after.events]
    for period in sorted({period for period, _ in fed}, key=lambda each: each.start):
        changed = tuple(
            CounterEffect(meter, (meter,), Totals.of(was_used), Totals.of(is_used))
            for meter in sorted({meter for held, meter in fed if held == period})
            for was_used in [before.events.get((period, meter), NOTHING_USED)]
            for is_used in [after.events.get((period, meter), NOTHING_USED)]
            if was_used != is_used
        )
        if changed:
            found.append(_effect(period, changed, compared))
    return tuple(found)


def _changed(
    period: BillingPeriod, before: Mapping[str, CounterUsage], after: Mapping[str, CounterUsage], meters: MeterMap
) -> tuple[CounterEffect, ...]:
    names = sorted({*before, *after})
    return tuple(
        CounterEffect(
            counter=name,
            meters=tuple(
                sorted(meter for meter in meters.counter_by_meter if meters.counter_in(meter, period) == name)
            ),
            before=Totals.of(before.get(name, NOTHING_USED)),
            after=Totals.of(after.get(name, NOTHING_USED)),
        )
        for name in names
        if before.get(name, NOTHING_USED) != after.get(name, NOTHING_USED)
    )


def _effect(period: BillingPeriod, changed: tuple[CounterEffect, ...], compared: _Comparison) -> PeriodEffect:
    metered = [(meter, change) for change in changed for meter in change.meters]
    quotas = compared.customer.quotas if compared.now in period else {}
    limits = [_limit(meter, change, quotas[meter], period, compared) for meter, change in metered if meter in quotas]
    amounts = [amount for meter, change in metered if (amount := _amount(meter, change, period, compared)) is not None]
    return PeriodEffect(period.start, period.end, changed, tuple(limits), tuple(amounts))


def _limit(
    meter: str, change: CounterEffect, quota: int | None, period: BillingPeriod, compared: _Comparison
) -> LimitEffect:
    def is_over(state: UsageState, to_date: int) -> bool:
        usage = compared.metered(state, change, meter, period, to_date)
        terms = compared.customer.billing_terms.get(meter, ())
        return quota is not None and quantity_against_limit(usage, terms, period, now=compared.now) >= quota

    return LimitEffect(
        meter=meter,
        quota=quota,
        is_over_before=is_over(compared.before, change.before.to_date),
        is_over_after=is_over(compared.after, change.after.to_date),
    )


def _amount(meter: str, change: CounterEffect, period: BillingPeriod, compared: _Comparison) -> AmountEffect | None:
    """None when nothing is known to be billed for the meter: never paid, or without a price by usage."""
    document = compared.customer.prices.get(meter)
    if document is None or document.get("model") == "flat":
        return None
    try:
        price = price_from_document(document)
    except InvalidPrice:
        return None

    def amount(state: UsageState, maximum: int) -> int:
        usage = compared.metered(state, change, meter, period, maximum)
        terms = compared.customer.billing_terms.get(meter, ())
        return amount_minor(price, billed_quantity(usage, terms, period))

    return AmountEffect(
        meter=meter,
        currency=price.currency,
        before_minor=amount(compared.before, change.before.maximum),
        after_minor=amount(compared.after, change.after.maximum),
        becomes="adjustment" if compared.now >= period.end else "invoice",
    )
