"""A limit is compared with what is charged while the meter is paid, with everything used otherwise (D1, L12)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_contracts.subscriptions import CustomerSnapshot
from quill_pricing.billed_quantity import quantity_against_limit
from quill_pricing.money import Money
from quill_pricing.period import BillingSchedule, Interval
from quill_quota_limiter import wire
from quill_quota_limiter.domain.evaluation import OrganizationLimits, evaluate
from quill_quota_limiter.domain.limit_decision import decide
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.spend_threshold import spend_reached
from quill_quota_limiter.domain.what_if import UsageRate, forecast
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD = BillingSchedule(OCTOBER, Interval(1, "month")).period_containing(OCTOBER)
RULES = to_table(1, FIRST_RULES)
CENT = {"model": "per_unit", "unit_amount": "0.01"}


def october(day, hour=0):
    return datetime(2026, 10, day, hour, tzinfo=UTC)


def change(day, quota, *, paid):
    return {"at": october(day), "paid": paid, "quota": quota}


def customer(customer_snapshot, changes, *, subscribed, limit=None, allowance=1_000, trial=None, **item):
    """A customer whose price is one cent a unit; ``limit`` in dollars."""
    document = customer_snapshot(events=1_000).model_dump(mode="json")
    document["items"][0] |= {
        "subscribed": subscribed,
        "allowance": allowance,
        "billing_limit_usd": limit,
        "quota": changes[-1]["quota"],
        "changes": changes,
        **item,
    }
    document["free_trial_until"] = trial
    return wire.from_wire_customer(CustomerSnapshot.model_validate(document))


def facts(known, usage, prices=None):
    return OrganizationFacts(known, None if usage is None else wire.from_wire_usage(usage), prices=prices or {})


def decided(known, usage, *, now, limits=None):
    evaluation = evaluate(
        limits or OrganizationLimits("acme"), facts=facts(known, usage), rules=RULES, tokens_changed=False, now=now
    )
    return evaluation, evaluation.limits.meters["events"]


FREE, PAID_20 = change(1, 1_000, paid=False), change(20, 1_500, paid=True)


@pytest.mark.parametrize(
    ("name", "used", "before_20", "usage", "state"),
    [
        ("paid since the 20th, 9,000 used before", 9_700, 9_000, 700, "within"),
        ("one below the limit", 10_499, 9_000, 1_499, "near"),
        ("exactly at the limit", 10_500, 9_000, 1_500, "limited"),
        ("nothing used since", 9_000, 9_000, 0, "within"),
        ("nothing used at all", 0, 0, 0, "within"),
        ("usage has not heard of the subscription", 9_700, None, 0, "within"),
    ],
)
def test_only_what_is_charged_counts_while_the_meter_is_paid(  # noqa: PLR0917 - a table
    customer_snapshot, usage_snapshot, name, used, before_20, usage, state
):
    cuts = {} if before_20 is None else {october(20): {"events": before_20}}
    known = customer(customer_snapshot, [FREE, PAID_20], subscribed=True, limit=15)
    evaluation, meter = decided(known, usage_snapshot(events=used, cuts=cuts), now=october(25))
    assert (meter.usage, meter.quota, meter.state.name) == (usage, 1_500, state), name
    evidence = evaluation.transitions[0].evidence
    assert (evidence.usage, evidence.used) == (usage, None if used == usage else used)


def test_both_numbers_stand_in_the_sentence_where_they_differ(customer_snapshot, usage_snapshot):
    known = customer(customer_snapshot, [FREE, PAID_20], subscribed=True, limit=15)
    usage = usage_snapshot(events=9_700, cuts={october(20): {"events": 9_000}})
    (transition,) = decided(known, usage, now=october(25))[0].transitions
    expected = "700 of 1,500 used (9,700 in the billing period, of which 9,000 are not charged), below the quota"
    assert expected in transition.sentence


def test_after_a_cancellation_everything_used_counts_against_the_allowance(customer_snapshot, usage_snapshot):
    """K2"""
    known = customer(customer_snapshot, [change(1, None, paid=True), change(20, 1_000, paid=False)], subscribed=False)
    usage = usage_snapshot(events=1_200, cuts={october(20): {"events": 900}})
    _, meter = decided(known, usage, now=october(25))
    assert (meter.usage, meter.quota, meter.state.name) == (1_200, 1_000, "limited")


def test_what_a_trial_used_limits_nobody_from_its_very_end(customer_snapshot, usage_snapshot):
    """K11: subscribed with a limit during a trial; the snapshot of its end has not come yet."""
    known = customer(
        customer_snapshot,
        [change(1, None, paid=False), change(10, None, paid=False)],
        subscribed=True,
        trial=october(21).isoformat(),
    )
    usage = usage_snapshot(events=5_000)
    in_trial, meter = decided(known, usage, now=october(20))
    assert (meter.usage, meter.state.name) == (5_000, "within")
    assert in_trial.limits.next_evaluation_at == october(21)
    limited = customer(
        customer_snapshot, [change(1, 1_500, paid=False)], subscribed=True, limit=15, trial=october(21).isoformat()
    )
    before, _ = decided(limited, usage, now=october(20))
    assert before.limits.meters["events"].state.name == "limited", "a billing limit holds in a trial too"
    _, meter = decided(limited, usage, now=october(21), limits=before.limits)
    assert (meter.usage, meter.state.name) == (0, "within")


def test_a_gauge_is_compared_by_its_value_and_carried_if_its_meter_says_so(customer_snapshot, usage_snapshot):
    """K14"""
    september = usage_snapshot(events=1_400, start=datetime(2026, 9, 1, tzinfo=UTC), end=OCTOBER)
    for carried, usage in ((True, 1_400), (False, 0)):
        known = customer(
            customer_snapshot,
            [FREE, PAID_20],
            subscribed=True,
            limit=15,
            aggregation="last",
            carried=carried,
        )
        assert decided(known, september, now=october(25))[1].usage == usage
    october_usage = usage_snapshot(events=1_600, cuts={october(20): {"events": 1_300}})
    assert decided(known, october_usage, now=october(25))[1].state.name == "limited"


def test_of_two_items_on_one_meter_the_one_whose_quota_holds_counts(customer_snapshot, usage_snapshot):
    document = customer_snapshot(events=1_000).model_dump(mode="json")
    wide, tight = document["items"][0], dict(document["items"][0])
    wide |= {"subscribed": True, "quota": None, "changes": [change(1, None, paid=True)]}
    tight |= {
        "product_key": "tight",
        "subscribed": True,
        "billing_limit_usd": 15,
        "quota": 1_500,
        "changes": [FREE, PAID_20],
        "price": {"model": "per_unit", "unit_amount": "0.01", "currency": "usd"},
    }
    wide["price"] = {"model": "per_unit", "unit_amount": "9", "currency": "usd"}
    usage = usage_snapshot(events=2_000, cuts={october(20): {"events": 900}})
    for items in ([wide, tight], [tight, wide]):
        known = wire.from_wire_customer(CustomerSnapshot.model_validate({**document, "items": items}))
        _, meter = decided(known, usage, now=october(25))
        assert (meter.usage, meter.quota) == (1_100, 1_500)
        assert known.prices["events"]["unit_amount"] == "0.01"


@pytest.mark.parametrize(
    ("changes", "subscribed", "used", "before", "maximum", "dollars"),
    [
        ([change(1, None, paid=True)], True, 1_200, {}, 1_200, 12),
        ([change(1, None, paid=True), change(20, 1_000, paid=False)], False, 1_200, {20: 900}, 1_200, 9),
        ([FREE, PAID_20], True, 1_200, {20: 900}, 1_200, 3),
        ([change(1, None, paid=True), change(20, 500, paid=True)], True, 1_200, {20: 900}, 1_200, 9),
        ([change(1, None, paid=True)], True, 1_000, {}, 1_200, 12),
        ([FREE], False, 1_200, {}, 1_200, 0),
    ],
    ids=["paid all along", "cancelled", "subscribed late", "limit lowered later", "fell without a word", "never paid"],
)
def test_a_meter_costs_what_the_invoice_would_bill(  # noqa: PLR0917 - a table
    customer_snapshot, usage_snapshot, changes, subscribed, used, before, maximum, dollars
):
    """K6"""
    cuts = {october(day): {"events": quantity} for day, quantity in before.items()}
    usage = usage_snapshot(events=used, cuts=cuts, maxima={"events": maximum})
    known = facts(customer(customer_snapshot, changes, subscribed=subscribed), usage, prices={"events": CENT})
    inputs = known.inputs("events", PERIOD, now=october(25))
    told = spend_reached([Money(100), Money(dollars * 100 + 1)], inputs, {**CENT, "currency": "usd"})
    assert [each.spend.amount_minor for each in told] == ([dollars * 100] if dollars else [])


def test_a_forecast_counts_from_the_end_of_the_trial(customer_snapshot, usage_snapshot):
    known = customer(
        customer_snapshot, [change(1, None, paid=False)], subscribed=True, limit=15, trial=october(21).isoformat()
    )
    found = forecast(
        facts(known, usage_snapshot(events=100)),
        "events",
        None,
        rules=RULES,
        rate=UsageRate(150, timedelta(days=1)),
        now=october(20),
        periods=1,
    )
    assert [(step.at, step.usage, step.decision.state) for step in found.steps] == [
        (october(20), 100, "within"),
        (october(29), 1_200, "near"),
        (october(31), 1_500, "limited"),
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["free", "paid", "limited"]), min_size=30, max_size=30),
    daily=st.lists(st.integers(0, 90), min_size=30, max_size=30),
)
def test_it_is_what_adding_up_the_days_says(customer_snapshot, usage_snapshot, kinds, daily):
    """The oracle adds up days and knows no cuts."""
    terms = {"free": (False, 1_000), "paid": (True, None), "limited": (True, 500)}
    changes = [{"at": OCTOBER, "paid": False, "quota": 1_000}]
    cuts, used, charged, billed = {}, 0, 0, 0
    for number, (kind, quantity) in enumerate(zip(kinds, daily, strict=True)):
        paid, quota = terms[kind]
        instant = OCTOBER + timedelta(days=number)
        changes.append({"at": instant, "paid": paid, "quota": quota})
        cuts[instant] = {"events": used}
        used += quantity
        if paid:
            charged += quantity
            billed = max(billed, charged if quota is None else min(charged, quota))
    subscribed, limit = terms[kinds[-1]]
    known = customer(
        customer_snapshot, changes, subscribed=subscribed, limit=5 if subscribed and limit else None, allowance=0
    )
    found = facts(known, usage_snapshot(events=used, cuts=cuts), prices={"events": CENT})
    inputs = found.inputs("events", PERIOD, now=october(31))
    assert (inputs.usage, inputs.used) == (charged if subscribed else used, used)
    entitlement = known.entitlement("events")
    terms = entitlement.terms_in(PERIOD, free_trial_until=None)
    whole = found.usage.metered(entitlement, OCTOBER)
    assert quantity_against_limit(whole, terms, PERIOD, now=october(31)) == inputs.usage, "the short way is the same"
    assert (inputs.billed or 0) == billed
    assert decide(inputs, None, rules=RULES, now=october(31)).state in ("within", "near", "limited")
