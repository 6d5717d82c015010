"""When would this meter be limited, if things stayed as they are, or were otherwise? It changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from quill_pricing.period import BillingPeriod

from quill_quota_limiter.domain.limit_decision import Decision, Inputs, decide
from quill_quota_limiter.domain.limit_state import LimitState
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.rule_table import RuleTable

STEPS_PER_PERIOD_MAX: Final = 16
"""A period has at most: its start, a trial's end, near, the quota, the end of a grace; and room."""
_TICK: Final = timedelta(microseconds=1)
_TICKS_MAX: Final = timedelta.max // _TICK


@dataclass(frozen=True, slots=True)
class UsageRate:
    """Units per span of time, exactly: no rounding until somebody asks for a whole number of units (L11)."""

    quantity: int
    span: timedelta

    def __post_init__(self) -> None:
        if self.quantity < 0 or self.span <= timedelta(0):
            raise ValueError("a rate is zero or more units per a span longer than nothing")

    def units_after(self, elapsed: timedelta) -> int:
        """Whole units used by then."""
        return self.quantity * (elapsed // _TICK) // (self.span // _TICK)

    def time_for(self, units: int) -> timedelta | None:
        """The first time by which that many units are used; ``None`` when they never are, as far as dates go."""
        if units <= 0:
            return timedelta(0)
        if self.quantity == 0:
            return None
        ticks = -(-units * (self.span // _TICK) // self.quantity)
        return None if ticks > _TICKS_MAX else ticks * _TICK

    @property
    def units_per_day(self) -> int:
        """Whole units in a day, for reading."""
        return self.units_after(timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Step:
    """From ``at`` on the meter would stand like this."""

    at: datetime
    usage: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class Forecast:
    """How the meter would move until ``until``; the first step says how it would stand now."""

    steps: tuple[Step, ...]
    rate: UsageRate
    until: datetime

    @property
    def limited(self) -> Step | None:
        """The first step at which usage would be dropped."""
        return next((step for step in self.steps if step.decision.state == "limited"), None)


def present_rate(facts: OrganizationFacts, usage_key: str, *, now: datetime) -> UsageRate:
    """What was used of a meter since the billing period began, over the time that usage speaks of."""
    period = facts.customer.schedule.period_containing(now)
    quantities = facts.usage.in_period(period.start) if facts.usage else None
    if quantities is None:
        return UsageRate(0, timedelta(days=1))
    known_until = quantities.as_of if period.start < quantities.as_of <= now else now
    return UsageRate(quantities.quantities.get(usage_key, 0), max(known_until - period.start, _TICK))


def forecast(
    facts: OrganizationFacts,
    usage_key: str,
    previous: LimitState | None,
    *,
    rules: RuleTable,
    rate: UsageRate,
    now: datetime,
    periods: int,
) -> Forecast:
    """Let usage go on at ``rate`` and decide at each instant at which the decision could change (L7).

    Args:
        facts: what is known, with whatever is assumed otherwise in its place.
        usage_key: the meter.
        previous: where its limit stands now.
        rules: the numbers to decide with.
        rate: usage from now on; a new billing period begins at zero.
        now: where the forecast begins.
        periods: how many billing periods it covers, the present one included.
    """
    schedule = facts.customer.schedule
    present = schedule.period_containing(now)
    until = present.end
    for _ in range(periods - 1):
        until = schedule.period_containing(until).end
    steps: list[Step] = []
    state, at = previous, now
    for _ in range(STEPS_PER_PERIOD_MAX * periods):
        period = schedule.period_containing(at)
        since, base = _counted_from(facts, usage_key, period, at=at, now=now)
        used = base + rate.units_after(at - since)
        inputs = replace(facts.inputs(usage_key, period, now=at), usage=used, used=None)
        decision = decide(inputs, state, rules=rules, now=at)
        if not steps or decision.differs_from(state):
            steps.append(Step(at, used, decision))
        if state is None or decision.differs_from(state):
            state = state_after(decision, state, at)
        crossings = (
            since + time
            for units in _thresholds(inputs, rules)
            if (time := rate.time_for(units - base)) is not None and time <= period.end - since
        )
        coming = [instant for instant in (*crossings, *_ends(inputs, state, period)) if instant > at]
        at = min(coming, default=until)
        if at >= until:
            break
    return Forecast(tuple(steps), rate, until)


def _counted_from(
    facts: OrganizationFacts, usage_key: str, period: BillingPeriod, *, at: datetime, now: datetime
) -> tuple[datetime, int]:
    """Since when usage at ``at`` grows at the rate, and what the quota was compared with then.

    Where a trial of a subscribed meter ends, chargeable usage begins to count.
    """
    trial_end = facts.customer.free_trial_until
    is_subscribed = facts.customer.entitlement(usage_key).subscribed
    if is_subscribed and trial_end is not None and max(now, period.start) < trial_end <= at:
        return trial_end, facts.inputs(usage_key, period, now=trial_end).usage or 0
    if now in period:
        return now, facts.inputs(usage_key, period, now=now).usage or 0
    return period.start, 0


def _thresholds(inputs: Inputs, rules: RuleTable) -> Iterator[int]:
    quota = inputs.entitlement.quota
    if quota is not None:
        yield -(-quota * rules.near_percent // 100)
        yield quota + rules.resource(inputs.entitlement.usage_key).buffer


def _ends(inputs: Inputs, state: LimitState, period: BillingPeriod) -> Iterator[datetime]:
    yield period.end
    if inputs.free_trial_until is not None:
        yield inputs.free_trial_until
    if state.suspended_until is not None:
        yield state.suspended_until


def state_after(decision: Decision, previous: LimitState | None, at: datetime) -> LimitState:
    """Where the limit stands once this was decided."""
    return LimitState(
        decision.state,
        since=at,
        sequence=(previous.sequence if previous else 0) + 1,
        limited_until=decision.limited_until,
        suspended_until=decision.suspended_until,
    )
