"""Forecasts: when a meter would be limited, to the microsecond, on present facts and on assumed ones."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingSchedule, Interval
from quill_quota_limiter.domain.entitlement import Customer, Entitlement
from quill_quota_limiter.domain.limit_decision import decide
from quill_quota_limiter.domain.limit_state import LimitState
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.scope_decision import ScopeInputs, decide_scope
from quill_quota_limiter.domain.scope_forecast import forecast_scope
from quill_quota_limiter.domain.what_if import UsageRate, forecast, present_rate
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table
from quill_quota_limiter.wire.what_if import PriceUnknown, WhatIfAsked, assume

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 10, 11, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = to_table(1, FIRST_RULES)
CENT = {"model": "per_unit", "unit_amount": "0.01"}


def facts(used: int, meter: str = "events", as_of: datetime = NOW, trial: datetime | None = None, **entitlement):
    schedule = BillingSchedule(OCTOBER, Interval(1, "month"))
    customer = Customer("acme", 1, "license", schedule, (Entitlement(meter, **entitlement),), free_trial_until=trial)
    usage = OrganizationUsage("acme", 1, (PeriodQuantities(OCTOBER, NOVEMBER, as_of, {meter: used}),))
    return OrganizationFacts(customer, usage)


def steps_of(given_facts, per_day, meter="events", periods=1, previous=None):
    found = forecast(given_facts, meter, previous, rules=RULES, rate=UsageRate(per_day, DAY), now=NOW, periods=periods)
    return [(step.at, step.decision.state, step.usage) for step in found.steps]


def october(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 10, day, hour, tzinfo=UTC)


def test_on_the_way_from_within_over_near_to_limited():
    assert steps_of(facts(500, quota=1_000), 50) == [
        (NOW, "within", 500),
        (october(17), "near", 800),
        (october(21), "limited", 1_000),
    ]


def test_trust_gives_days_after_the_quota():
    assert steps_of(facts(990, quota=1_000, trust_score=7), 20) == [
        (NOW, "near", 990),
        (october(11, 12), "suspended", 1_000),
        (october(13), "limited", 1_030),
    ]


def test_a_buffer_is_used_up_first():
    assert steps_of(facts(0, "recordings", quota=0), 500, "recordings") == [
        (NOW, "near", 0),
        (october(13), "limited", 1_000),
    ]


def test_a_new_period_begins_at_zero():
    assert steps_of(facts(900, quota=1_000), 50, periods=2) == [
        (NOW, "near", 900),
        (october(13), "limited", 1_000),
        (NOVEMBER, "within", 0),
        (datetime(2026, 11, 17, tzinfo=UTC), "near", 800),
        (datetime(2026, 11, 21, tzinfo=UTC), "limited", 1_000),
    ]


def test_the_end_of_a_trial_limits_what_it_let_through():
    assert steps_of(facts(2_000, quota=1_000, trial=october(20)), 1) == [
        (NOW, "within", 2_000),
        (october(20), "limited", 2_009),
    ]


def test_without_usage_or_without_a_quota_nothing_happens():
    assert [state for _, state, _ in steps_of(facts(5, quota=1_000), 0)] == ["within"]
    assert [state for _, state, _ in steps_of(facts(5, quota=None), 10**15)] == ["within"]


def test_a_rate_that_never_gets_there_is_no_error():
    assert UsageRate(1, timedelta(days=365_000)).time_for(10**15) is None
    assert UsageRate(3, timedelta(microseconds=2)).time_for(1) == timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("as_of", "quantity", "span"),
    [(NOW, 500, 10 * DAY), (NOW - 5 * DAY, 500, 5 * DAY), (NOW + DAY, 500, 10 * DAY)],
    ids=["fresh", "usage is known for five days only", "a source ahead of our clock"],
)
def test_the_present_rate_is_usage_over_the_time_it_speaks_of(as_of, quantity, span):
    assert present_rate(facts(500, as_of=as_of, quota=1), "events", now=NOW) == UsageRate(quantity, span)


@given(
    assumed=st.fixed_dictionaries(
        {
            "quota": st.none() | st.integers(0, 300),
            "trust_score": st.sampled_from([None, 0, 3, 7, 10, 15]),
            "never_drop_data": st.booleans(),
        }
    ),
    used=st.integers(0, 300),
    meter=st.sampled_from(["events", "feature_flag_requests", "ai_credits"]),
    trial_hours=st.none() | st.integers(1, 600),
    hour=st.integers(0, 23),
)
def test_it_says_what_deciding_every_hour_would_say(assumed, used, meter, trial_hours, hour):
    now = NOW + timedelta(hours=hour)
    trial = None if trial_hours is None else now + timedelta(hours=trial_hours)
    given_facts = facts(used, meter, trial=trial, **assumed)
    rate = UsageRate(1, timedelta(hours=1))  # one unit an hour: everything happens on the hour
    found = forecast(given_facts, meter, None, rules=RULES, rate=rate, now=now, periods=2)
    at, state, expected = now, None, []
    while at < found.until:
        period = given_facts.customer.schedule.period_containing(at)
        total = used + (at - now) // timedelta(hours=1) if at < NOVEMBER else (at - NOVEMBER) // timedelta(hours=1)
        inputs = given_facts.inputs(meter, period, now=at)
        decision = decide(type(inputs)(inputs.entitlement, total, period, trial), state, rules=RULES, now=at)
        if decision.differs_from(state):
            expected.append((at, decision.state, decision.limited_until, decision.suspended_until, total))
            state = LimitState(decision.state, at, 1, decision.limited_until, decision.suspended_until)
        at += timedelta(hours=1)
    seen = [
        (s.at, s.decision.state, s.decision.limited_until, s.decision.suspended_until, s.usage) for s in found.steps
    ]
    assert seen == expected


@given(quota=st.none() | st.integers(0, 300), used=st.integers(0, 300), hour=st.integers(0, 23))
def test_of_a_scope_too_it_says_what_deciding_every_hour_would_say(quota, used, hour):
    now, schedule = NOW + timedelta(hours=hour), BillingSchedule(OCTOBER, Interval(1, "month"))
    inputs = ScopeInputs("team:1", "events", quota, used, schedule.period_containing(now))
    rate = UsageRate(1, timedelta(hours=1))
    found = forecast_scope(inputs, schedule=schedule, rules=RULES, rate=rate, now=now, periods=2)
    at, state, expected = now, None, []
    while at < found.until:
        total = used + (at - now) // timedelta(hours=1) if at < NOVEMBER else (at - NOVEMBER) // timedelta(hours=1)
        period = schedule.period_containing(at)
        decision = decide_scope(ScopeInputs("team:1", "events", quota, total, period), rules=RULES)
        if decision.differs_from(state):
            expected.append((at, decision.state, decision.limited_until, total))
            state = LimitState(decision.state, at, 1, decision.limited_until)
        at += timedelta(hours=1)
    assert [(s.at, s.decision.state, s.decision.limited_until, s.usage) for s in found.steps] == expected


@pytest.mark.parametrize(
    ("asked", "quota", "subscribed"),
    [
        ({}, 1_000, False),
        ({"quota": 7}, 7, False),
        ({"quota": None}, None, False),
        ({"subscribed": True}, None, True),
        ({"subscribed": True, "billing_limit_usd": 20}, 2_000, True),
        ({"subscribed": True, "billing_limit_usd": 5}, 1_000, True),
        ({"billing_limit_usd": 20}, 1_000, False),
    ],
    ids=[
        "as it is",
        "another quota",
        "no quota",
        "a subscription",
        "a billing limit buys units",
        "never below the allowance",
        "a billing limit without a subscription buys nothing",
    ],
)
def test_what_is_assumed_becomes_a_quota(asked, quota, subscribed):
    known = facts(5, quota=1_000, allowance=1_000)
    assumed = assume(WhatIfAsked(meter="events", **asked), known, CENT, now=NOW).customer.entitlement("events")
    assert (assumed.quota, assumed.subscribed) == (quota, subscribed)


def test_a_billing_limit_on_a_price_nobody_told_us_is_refused():
    asked = WhatIfAsked(meter="events", subscribed=True, billing_limit_usd=5)
    with pytest.raises(PriceUnknown, match="ask with quota"):
        assume(asked, facts(5, quota=1_000), None, now=NOW)
