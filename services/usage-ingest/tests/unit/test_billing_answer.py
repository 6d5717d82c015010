"""The answer to ``POST /api/usage``: what PostHog compares with its limits (wire contract 3 and 4, D1)."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_usage_ingest.domain.current_usage import CurrentUsage
from quill_usage_ingest.domain.cut_usage import CutUsage
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import CustomerFacts, Organization
from quill_usage_ingest.domain.period_usage import CounterUsage, PeriodUsage
from quill_usage_ingest.wire.period_usage import to_wire_billing_answer

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
PERIOD = BillingPeriod(OCTOBER, datetime(2026, 11, 1, tzinfo=UTC))
GAUGE = EventMeter("storage", "sample", Aggregation.LAST, "gb", carried=True)


def october(day: int) -> datetime:
    return datetime(2026, 10, day, tzinfo=UTC)


def terms(*changes: tuple[int, bool]) -> tuple[BillingTerms, ...]:
    return tuple(BillingTerms(october(day), is_paid=paid) for day, paid in changes)


def current(paid: tuple[BillingTerms, ...], before: dict[int, int], **facts: object) -> CurrentUsage:
    """1,000 events of finished days and 50 of today; ``before``: used before a day."""
    schedule = BillingSchedule(OCTOBER, Interval(1, "month"))
    customer = replace(
        CustomerFacts("c-1", "cloud", quotas={"events": 800}, billing_terms={"events": paid}),
        **facts,  # type: ignore[arg-type]
    )
    usage = PeriodUsage(PERIOD, as_of=october(20), revision=1, counters={"event_count": CounterUsage(1_000, 50, 1_050)})
    return CurrentUsage(
        organization=Organization("acme", "license-1", 1, schedule, customer),
        period=PERIOD,
        usage=usage,
        meters=MeterMap({"events": "event_count"}),
        cuts={october(day): CutUsage(counters={"event_count": used}) for day, used in before.items()},
    )


@pytest.mark.parametrize(
    ("name", "paid", "before", "usage"),
    [
        ("nothing told of the customer", (), {}, 1_000),
        ("never paid", terms((1, False)), {}, 1_000),
        ("paid all along", terms((1, True)), {}, 1_000),
        ("paid since the 10th", terms((1, False), (10, True)), {10: 700}, 300),
        ("cancelled on the 10th", terms((1, True), (10, False)), {10: 700}, 1_000),
        ("paid until the 5th and from the 10th", terms((1, True), (5, False), (10, True)), {5: 200, 10: 700}, 500),
        ("a cut inside the day that is still counted", terms((1, False), (20, True)), {20: 1_030}, 0),
        ("a cut that is not counted yet", terms((1, False), (20, True)), {}, 0),
    ],
)
def test_usage_is_what_finished_days_made_of_the_number_a_limit_is_compared_with(
    name: str, paid: tuple[BillingTerms, ...], before: dict[int, int], usage: int
) -> None:
    """K11, L6"""
    answer = to_wire_billing_answer(current(paid, before), now=october(20))
    assert answer["customer"]["usage_summary"]["events"] == {"usage": usage, "limit": 800}, name


def test_a_trial_and_a_subscription_are_both_told() -> None:
    trial = to_wire_billing_answer(current((), {}, free_trial_until=october(21)), now=october(20))["customer"]
    assert (trial["has_active_subscription"], trial["free_trial_until"]) == (False, "2026-10-21T00:00:00+00:00")
    plain = to_wire_billing_answer(current((), {}), now=october(20))["customer"]
    assert (plain["has_active_subscription"], plain["free_trial_until"]) == (False, None)


@pytest.mark.parametrize(
    ("present", "earlier", "carried", "usage"),
    [
        ({}, [{}, {"storage": 9}], True, 9),
        ({"storage": 5}, [{"storage": 9}], True, 5),
        ({"storage": 0}, [{"storage": 9}], True, 0),
        ({}, [{"storage": 9}], False, 0),
        ({}, [], True, 0),
    ],
)
def test_a_gauge_that_is_carried_keeps_its_value(
    present: dict[str, int], earlier: list[dict[str, int]], usage: int, *, carried: bool
) -> None:
    """K14"""
    meters = MeterMap(event_meters={"storage": replace(GAUGE, carried=carried)})
    known = replace(current((), {}), meters=meters, event_usage=present, earlier_event_usage=earlier)
    summary = to_wire_billing_answer(known, now=october(20))["customer"]["usage_summary"]
    assert summary["storage"]["usage"] == usage
