"""Thresholds: exact, once per billing period and quota, in rising order (L7)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingSchedule, Interval
from quill_quota_limiter.domain.entitlement import Customer, Entitlement
from quill_quota_limiter.domain.evaluation import OrganizationLimits, evaluate
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.threshold import DEFAULT_PERCENTS, percents_for, reached
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table

RULES = to_table(1, FIRST_RULES)
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
SCHEDULE = BillingSchedule(OCTOBER, Interval(1, "month"))


@pytest.mark.parametrize(
    ("usage", "quota", "shares"),
    [
        (499, 1_000, ()),
        (500, 1_000, (50,)),
        (799, 1_000, (50,)),
        (800, 1_000, (50, 80)),
        (999, 1_000, (50, 80)),
        (1_000, 1_000, (50, 80, 100)),
        (9_999, 1_000, (50, 80, 100)),
        (1, 3, ()),
        (2, 3, (50,)),
        (3, 3, (50, 80, 100)),
        (5, 0, ()),
        (5, None, ()),
        (None, 1_000, ()),
    ],
)
def test_a_share_is_reached_to_the_unit(usage, quota, shares):
    assert reached(DEFAULT_PERCENTS, usage=usage, quota=quota) == shares


@pytest.mark.parametrize(
    ("settings", "percents"),
    [
        ({}, (50, 80, 100)),
        ({"*": (90,)}, (90,)),
        ({"*": (90,), "events": (10, 20)}, (10, 20)),
        ({"events": ()}, ()),
        ({"recordings": (10,)}, (50, 80, 100)),
    ],
    ids=["default", "of the organization", "of the meter", "tell nothing", "of another meter"],
)
def test_the_nearest_setting_counts(settings, percents):
    assert percents_for("events", settings) == percents


def facts(revision: int, used: int, quota: int | None, now: datetime) -> OrganizationFacts:
    period = SCHEDULE.period_containing(now)
    usage = OrganizationUsage("acme", revision, (PeriodQuantities(period.start, period.end, now, {"events": used}),))
    customer = Customer("acme", revision, "license", SCHEDULE, (Entitlement("events", quota=quota),))
    return OrganizationFacts(customer, usage)


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from([None, 0, 100, 200]), st.integers(0, 30 * 24)), max_size=12
    ),
    st.lists(st.integers(1, 100), max_size=4, unique=True),
)
def test_what_is_told_is_true_in_order_and_once_while_quota_and_period_stay(steps, percents):
    limits, now = OrganizationLimits("acme", thresholds={"*": tuple(percents)}), OCTOBER
    told: dict[tuple[datetime, int], list[int]] = {}
    before = None
    for revision, (used, quota, hours) in enumerate(steps, start=1):
        now += timedelta(hours=hours)
        evaluation = evaluate(
            limits, facts=facts(revision, used, quota, now), rules=RULES, tokens_changed=False, now=now
        )
        limits = evaluation.limits
        here = (limits.period_start, quota)
        if here != before:
            told.pop(here, None)
        before = here
        for each in evaluation.reached:
            assert each.usage * 100 >= each.quota * each.percent
            told.setdefault(here, []).append(each.percent)
        assert [each.percent for each in evaluation.reached] == sorted(each.percent for each in evaluation.reached)
        shares = told.get(here, [])
        assert len(shares) == len(set(shares))
        assert set(reached(percents, usage=used, quota=quota)) <= set(shares)
    again = (
        evaluate(limits, facts=facts(99, steps[-1][0], steps[-1][1], now), rules=RULES, tokens_changed=False, now=now)
        if steps
        else None
    )
    assert again is None or again.reached == ()
