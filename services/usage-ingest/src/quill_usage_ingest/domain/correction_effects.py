"""What a correction changes, for people to look at before and after: totals, limits and money."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quill_pricing.period import BillingPeriod
from quill_pricing.price import InvalidPrice, price_from_document
from quill_pricing.rating import amount_minor

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import CustomerFacts
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage, PeriodUsage

EventUsage = Mapping[tuple[BillingPeriod, str], CounterUsage]
"""Usage of event meters by period and meter."""


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

    The billed quantity is the period's maximum as far as the present quota lets it through. ``becomes`` says where the
    difference goes: ``invoice`` while the period runs, ``adjustment`` once it has ended (L13).
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


def effects(
    before: Sequence[PeriodUsage],
    after: Sequence[PeriodUsage],
    *,
    meters: MeterMap,
    customer: CustomerFacts,
    now: datetime,
) -> tuple[PeriodEffect, ...]:
    """The periods that differ, oldest first. Limits are compared for the running period only: others are over."""
    was = {usage.period: usage for usage in before}
    found = []
    for usage in sorted(after, key=lambda held: held.period.start):
        known = was.get(usage.period)
        changed = _changed(usage.period, known.counters if known else {}, usage.counters, meters)
        if changed:
            found.append(_effect(usage.period, changed, customer=customer, now=now))
    return tuple(found)


def event_effects(
    before: EventUsage, after: EventUsage, *, customer: CustomerFacts, now: datetime
) -> tuple[PeriodEffect, ...]:
    """The same of meters that events feed, which have no counter: they stand under their own name."""
    found = []
    for period in sorted({period for period, _ in [*before, *after]}, key=lambda each: each.start):
        meters = sorted({meter for held, meter in [*before, *after] if held == period})
        changed = tuple(
            CounterEffect(meter, (meter,), Totals.of(was), Totals.of(now_is))
            for meter in meters
            for was, now_is in [(before.get((period, meter), NOTHING_USED), after.get((period, meter), NOTHING_USED))]
            if was != now_is
        )
        if changed:
            found.append(_effect(period, changed, customer=customer, now=now))
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


def _effect(
    period: BillingPeriod, changed: tuple[CounterEffect, ...], *, customer: CustomerFacts, now: datetime
) -> PeriodEffect:
    metered = [(meter, change) for change in changed for meter in change.meters]
    limits = [
        LimitEffect(
            meter=meter,
            quota=quota,
            is_over_before=quota is not None and change.before.to_date >= quota,
            is_over_after=quota is not None and change.after.to_date >= quota,
        )
        for meter, change in metered
        if now in period and meter in customer.quotas
        for quota in (customer.quotas[meter],)
    ]
    amounts = [
        amount
        for meter, change in metered
        if (amount := _amount(meter, change, customer=customer, has_ended=now >= period.end)) is not None
    ]
    return PeriodEffect(period.start, period.end, changed, tuple(limits), tuple(amounts))


def _amount(meter: str, change: CounterEffect, *, customer: CustomerFacts, has_ended: bool) -> AmountEffect | None:
    """None when nothing is known to be billed for the meter: not subscribed, or without a price by usage."""
    document = customer.prices.get(meter)
    if document is None or document.get("model") == "flat":
        return None
    try:
        price = price_from_document(document)
    except InvalidPrice:
        return None
    quota = customer.quotas.get(meter)
    return AmountEffect(
        meter=meter,
        currency=price.currency,
        before_minor=amount_minor(price, _billed(change.before.maximum, quota)),
        after_minor=amount_minor(price, _billed(change.after.maximum, quota)),
        becomes="adjustment" if has_ended else "invoice",
    )


def _billed(maximum: int, quota: int | None) -> int:
    return maximum if quota is None else min(maximum, quota)
