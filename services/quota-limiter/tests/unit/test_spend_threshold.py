"""Spend thresholds: exact to the cent, on the terms of now, each crossing once per billing period (L7, L11, L12)."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_contracts import topics
from quill_contracts.limits import ThresholdReached
from quill_pricing.money import Money
from quill_pricing.period import BillingSchedule, Interval
from quill_pricing.price import price_from_document
from quill_pricing.rating import amount_minor
from quill_quota_limiter import wire
from quill_quota_limiter.domain.entitlement import Customer, Entitlement
from quill_quota_limiter.domain.evaluation import OrganizationLimits, evaluate
from quill_quota_limiter.domain.limit_decision import Inputs
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.spend_threshold import ImpossibleSpend, check_amounts, spend_of, spend_reached
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage
from quill_quota_limiter.usecases.set_spend_thresholds import set_spend_thresholds
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table

RULES = to_table(1, FIRST_RULES)
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
SCHEDULE = BillingSchedule(OCTOBER, Interval(1, "month"))
PERIOD = SCHEDULE.period_containing(OCTOBER)

EVENTS = {
    "model": "graduated",
    "currency": "usd",
    "tiers": [
        {"up_to": 1_000_000, "unit_amount": "0"},
        {"up_to": 2_000_000, "unit_amount": "0.0000500"},
        {"up_to": 15_000_000, "unit_amount": "0.0000343"},
        {"up_to": None, "unit_amount": "0.0000295"},
    ],
}
SEATS = {"model": "package", "currency": "usd", "package_size": 100, "package_amount": "9.00"}
BULK = {
    "model": "volume",
    "currency": "usd",
    "tiers": [{"up_to": 10, "unit_amount": "1"}, {"up_to": None, "unit_amount": "0.5"}],
}
FLAT = {"model": "flat", "currency": "usd", "amount": "450.00"}
EUROS = {"model": "per_unit", "currency": "eur", "unit_amount": "0.01"}


def usd(*cents: int) -> tuple[Money, ...]:
    return tuple(Money(each) for each in cents)


def inputs(usage: int | None, *, quota: int | None = None, subscribed: bool = True) -> Inputs:
    return Inputs(Entitlement("events", quota=quota, allowance=1_000_000, subscribed=subscribed), usage, PERIOD)


@pytest.mark.parametrize(
    ("usage", "dollars", "reached_cents"),
    [
        (0, "0.00", []),
        (1_000_000, "0.00", []),  # the free allowance
        (1_000_099, "0.00", []),  # 0.00495 dollars
        (1_000_100, "0.01", [1]),  # 0.005 dollars, half up
        (1_500_000, "25.00", [1]),
        (1_999_899, "49.99", [1]),  # 49.99495 dollars
        (1_999_900, "50.00", [1, 50_00]),  # 49.995 dollars
        (2_000_000, "50.00", [1, 50_00]),
        (3_457_725, "100.00", [1, 50_00, 100_00]),  # 50 + 1,457,725 x 0.0000343 = 99.9999675 dollars
        (12_000_000, "393.00", [1, 50_00, 100_00]),  # 50 + 343
        (15_000_000, "495.90", [1, 50_00, 100_00]),  # 50 + 445.90
        (15_138_983, "500.00", [1, 50_00, 100_00, 500_00]),  # 495.90 + 4.0999985
    ],
)
def test_what_usage_costs_and_which_amounts_it_reaches(usage, dollars, reached_cents):
    price = price_from_document(EVENTS)
    assert spend_of(inputs(usage), price).to_decimal_string() == dollars
    found = spend_reached(usd(500_00, 1, 100_00, 50_00), inputs(usage), EVENTS)
    assert [each.amount.amount_minor for each in found] == reached_cents


@pytest.mark.parametrize(("usage", "units"), [(None, 0), (0, 0), (1, 0)])
def test_a_flat_fee_reaches_amounts_before_the_first_unit(usage, units):
    """K3: the flat amount of the first tier is owed without usage."""
    price = {"model": "graduated", "currency": "usd", "tiers": [{"unit_amount": "1", "flat_amount": "10"}]}
    found = spend_reached(usd(10_00), inputs(usage), price)
    assert [(each.amount.amount_minor, each.units) for each in found] == [(10_00, units)]
    assert spend_reached(usd(10_00), inputs(usage, subscribed=False), price) == ()


@pytest.mark.parametrize(
    ("given", "price", "dollars"),
    [
        (inputs(12_000_000), EVENTS, "393.00"),
        (inputs(12_000_000, quota=2_000_000), EVENTS, "50.00"),
        (inputs(12_000_000, quota=1_000_000, subscribed=False), EVENTS, "0.00"),
        (inputs(5_000, quota=1_000, subscribed=False), SEATS, "0.00"),
        (inputs(None), EVENTS, "0.00"),
        (inputs(101), SEATS, "18.00"),
        (inputs(10), BULK, "10.00"),
        (inputs(11), BULK, "5.50"),
    ],
    ids=[
        "no billing limit",
        "over the billing limit is not billed",
        "no subscription pays nothing",
        "no subscription pays nothing, even without a free tier",
        "nothing reported",
        "a package begun",
        "the last unit at the dear price",
        "one more makes all cheaper",
    ],
)
def test_what_is_billed_is_what_is_spent(given, price, dollars):
    assert spend_of(given, price_from_document(price)).to_decimal_string() == dollars


@pytest.mark.parametrize(
    ("price", "usage", "amount", "units"),
    [(EVENTS, 12_000_000, 50_00, 1_999_900), (SEATS, 250, 18_00, 101), (BULK, 11, 5_50, 6), (BULK, 30, 15_00, 30)],
)
def test_the_quota_of_a_crossing_is_the_fewest_units_that_cost_the_amount(price, usage, amount, units):
    (found,) = spend_reached(usd(amount), inputs(usage), price)
    assert found.units == units


@pytest.mark.parametrize("price", [None, FLAT, EUROS], ids=["unknown", "flat", "in another currency"])
def test_a_price_that_no_usage_can_be_compared_by_reaches_nothing(price):
    assert spend_reached(usd(1), inputs(10**9), price) == ()


@pytest.mark.parametrize(
    ("price", "currency", "code", "attr", "words"),
    [
        (None, "usd", "price_unknown", "meter", "not known here.*tell by percents"),
        (FLAT, None, "price_is_flat", "meter", "is flat.*tell by percents"),
        (EUROS, "usd", "currency_mismatch", "currency", "in eur, not usd; give amounts in eur"),
    ],
)
def test_amounts_that_could_never_be_reached_are_refused_with_field_and_fix(price, currency, code, attr, words):
    with pytest.raises(ImpossibleSpend, match=words) as refused:
        check_amounts([1], "events", price=price, currency=currency)
    assert (refused.value.code, refused.value.attr) == (code, attr)


def test_amounts_are_kept_in_the_currency_of_the_price_rising_and_once():
    assert check_amounts([5, 1, 5], "events", price=EUROS, currency=None) == (Money(1, "eur"), Money(5, "eur"))


def facts(revision: int, used: int, now: datetime, *, price=EVENTS, quota: int | None = None) -> OrganizationFacts:
    period = SCHEDULE.period_containing(now)
    usage = OrganizationUsage("acme", revision, (PeriodQuantities(period.start, period.end, now, {"events": used}),))
    customer = Customer("acme", revision, "license", SCHEDULE, (Entitlement("events", quota, subscribed=True),))
    return OrganizationFacts(customer, usage, prices={"events": price})


def test_a_crossing_says_what_a_reader_of_old_and_new_messages_needs():
    limits = OrganizationLimits("acme", spend_thresholds={"events": usd(50_00)})
    evaluation = evaluate(limits, facts=facts(7, 2_400_000, OCTOBER), rules=RULES, tokens_changed=False, now=OCTOBER)
    (reached,) = evaluation.reached
    message = wire.to_wire_reached(reached)
    assert message.model_dump(
        include={"kind", "amount_minor", "spend_minor", "currency", "percent", "usage", "quota"}
    ) == {
        "kind": "spend",
        "amount_minor": 5_000,
        "spend_minor": 6_372,
        "currency": "usd",
        "percent": 100,
        "usage": 2_400_000,
        "quota": 1_999_900,
    }
    assert message.reached_id == "acme/events/2026-10-01T00:00:00+00:00/spend/usd/5000"
    assert message.sentence == (
        "events: 50.00 usd is reached, 63.72 usd for 2,400,000 used in the period until 2026-11-01 00:00 UTC."
    )


def test_another_quota_is_no_news_and_another_period_is():
    limits = OrganizationLimits("acme", spend_thresholds={"events": usd(50_00, 100_00)})
    told = []
    for revision, (now, used, quota) in enumerate(
        [
            (OCTOBER, 2_000_000, None),
            (OCTOBER, 3_000_000, 9_000_000),
            (OCTOBER, 4_000_000, 8_000_000),
            (OCTOBER, 1_000_000, None),
            (OCTOBER, 4_000_000, None),
            (OCTOBER + timedelta(days=31), 2_000_000, None),
        ],
        start=1,
    ):
        known = facts(revision, used, now, quota=quota)
        evaluation = evaluate(limits, facts=known, rules=RULES, tokens_changed=False, now=now)
        limits = evaluation.limits
        told.append([each.spent.amount.amount_minor for each in evaluation.reached if each.spent is not None])
    assert told == [[50_00], [], [100_00], [], [], [50_00]]


AMOUNTS = st.lists(st.integers(1, 60_000), min_size=1, max_size=4, unique=True)
USAGES = st.lists(st.integers(0, 20_000_000), min_size=1, max_size=6)
ON_A_STORE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PRICES = st.sampled_from([EVENTS, SEATS, BULK, {"model": "per_unit", "currency": "usd", "unit_amount": "0.000073"}])


@given(PRICES, st.integers(0, 20_000_000), AMOUNTS)
def test_an_amount_is_reached_exactly_when_the_cost_is_that_or_more(document, usage, amounts):
    price = price_from_document(document)
    found = {each.amount.amount_minor: each for each in spend_reached(usd(*amounts), inputs(usage), document)}
    cost = amount_minor(price, usage)
    assert set(found) == {amount for amount in amounts if cost >= amount}
    for amount, each in found.items():
        assert each.units <= usage
        assert amount_minor(price, each.units) >= amount > amount_minor(price, each.units - 1)


def tell(customer, snapshots, amounts: list[int], *, set_after: int) -> list[int]:
    """Let snapshots arrive in this order at a store, set the amounts on the way; the amounts told, as they were."""

    async def run() -> list[int]:
        store = MemoryLimits()
        async with store.begin() as tx:
            await take_in_customers([wire.from_wire_customer(customer)], tx=tx, now=OCTOBER)
        for place in range(len(snapshots) + 1):
            if place == set_after:
                async with store.begin() as tx:
                    by = {"actor": "ada", "reason": "asked", "currency": None}
                    await set_spend_thresholds("acme", amounts, meter="events", **by, tx=tx, now=OCTOBER)
            if place < len(snapshots):
                async with store.begin() as tx:
                    await take_in_usage([wire.from_wire_usage(snapshots[place])], tx=tx, now=OCTOBER)
        messages = [
            ThresholdReached.from_bytes(each.value)
            for each in store.published
            if each.topic == topics.LIMIT_THRESHOLDS.name
        ]
        return [each.amount_minor for each in messages if each.kind == "spend" and each.amount_minor is not None]

    return asyncio.run(run())


@ON_A_STORE
@given(st.data(), USAGES, AMOUNTS)
def test_any_order_and_repetition_of_snapshots_tells_every_crossing_once(
    customer_snapshot, usage_snapshot, data, usages, amounts
):
    """Usage rises with its revision: whatever arrives when, and twice, the newest is what counts in the end."""
    snapshots = [usage_snapshot(revision=n, events=used) for n, used in enumerate(sorted(usages), start=1)]
    order = data.draw(st.permutations([*snapshots, *data.draw(st.lists(st.sampled_from(snapshots), max_size=4))]))
    customer = priced(customer_snapshot)
    told = tell(customer, order, amounts, set_after=data.draw(st.integers(0, len(order))))
    cost = amount_minor(price_from_document(EVENTS), max(usages))
    assert sorted(told) == sorted(amount for amount in amounts if cost >= amount)


@ON_A_STORE
@given(USAGES, AMOUNTS)
def test_usage_that_falls_and_rises_again_tells_what_was_ever_reached_once(
    customer_snapshot, usage_snapshot, usages, amounts
):
    snapshots = [usage_snapshot(revision=n, events=used) for n, used in enumerate(usages, start=1)]
    told = tell(priced(customer_snapshot), snapshots, amounts, set_after=0)
    cost = amount_minor(price_from_document(EVENTS), max(usages))
    assert sorted(told) == sorted(amount for amount in amounts if cost >= amount)


def priced(customer_snapshot):
    """A subscribed customer without a billing limit who pays the price of the tables above."""
    return customer_snapshot(events=None, price=EVENTS)
