"""When would a team's or project's limit be reached? The limit is exact, so only usage and time can move it (L10)."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from quill_pricing.period import BillingSchedule

from quill_quota_limiter.domain.limit_state import LimitState
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.scope_decision import ScopeInputs, decide_scope
from quill_quota_limiter.domain.what_if import Forecast, Step, UsageRate, state_after

_TICK: Final = timedelta(microseconds=1)


def present_scope_rate(inputs: ScopeInputs, *, now: datetime) -> UsageRate:
    """What the scope's teams used together since the billing period began, over the time since then."""
    return UsageRate(inputs.usage, max(now - inputs.period.start, _TICK))


def forecast_scope(
    inputs: ScopeInputs, *, schedule: BillingSchedule, rules: RuleTable, rate: UsageRate, now: datetime, periods: int
) -> Forecast:
    """Let the scope's usage go on at ``rate`` and decide whenever its limit comes near or is reached (L7).

    Args:
        inputs: the scope's limit, and its usage in the billing period that holds ``now``.
        schedule: how its organization is billed.
        rules: the numbers to decide with.
        rate: usage from now on; a new billing period begins at zero.
        now: where the forecast begins.
        periods: how many billing periods it covers, the present one included.
    """
    steps: list[Step] = []
    state: LimitState | None = None
    period, since, base = inputs.period, now, inputs.usage
    for number in range(periods):
        if number:
            period, since, base = schedule.period_containing(period.end), period.end, 0
        times = [rate.time_for(units - base) for units in _thresholds(inputs.quota, rules)]
        crossings = {time for time in times if time is not None and time < period.end - since}
        for elapsed in sorted({timedelta(0), *crossings}):
            used = base + rate.units_after(elapsed)
            decision = decide_scope(replace(inputs, usage=used, period=period), rules=rules)
            if decision.differs_from(state):
                steps.append(Step(since + elapsed, used, decision))
                state = state_after(decision, state, since + elapsed)
    return Forecast(tuple(steps), rate, period.end)


def _thresholds(quota: int | None, rules: RuleTable) -> tuple[int, ...]:
    return () if quota is None else (-(-quota * rules.near_percent // 100), quota)
