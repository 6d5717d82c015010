"""Translation: quotas are computed here, evidence survives the trip, bad facts are refused by name."""

from datetime import UTC, datetime

import pytest
from quill_contracts.limits import LimitTransition
from quill_quota_limiter import wire
from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.evaluation import OrganizationLimits, evaluate
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.wire.limit_log import to_event
from quill_quota_limiter.wire.rules import FIRST_RULES, RuleDocument, to_document, to_table
from quill_runtime.consumption import Rejected

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)


def with_item(snapshot, **changes):
    return snapshot.model_copy(update={"items": [snapshot.items[0].model_copy(update=changes)]})


@pytest.mark.parametrize(
    ("changes", "quota"),
    [
        ({"subscribed": False, "allowance": 700}, 700),
        ({"subscribed": False, "allowance": 0}, 0),
        ({"subscribed": True, "billing_limit_usd": None}, None),
        ({"subscribed": True, "billing_limit_usd": 5, "allowance": 100}, 500),
        ({"subscribed": True, "billing_limit_usd": 5, "allowance": 600}, 600),
    ],
    ids=["free tier", "no free tier", "no limit", "five dollars at a cent each", "never below the allowance"],
)
def test_the_quota_comes_from_price_allowance_and_billing_limit(customer_snapshot, changes, quota):
    snapshot = with_item(customer_snapshot(events=1_000), **changes)
    assert wire.from_wire_customer(snapshot).entitlement("events").quota == quota


def test_a_published_quota_that_is_not_ours_is_counted_and_not_used(customer_snapshot):
    counted = wire.QUOTA_MISMATCHES.labels("events")._value.get
    before = counted()
    customer = wire.from_wire_customer(with_item(customer_snapshot(events=1_000), quota=5))
    assert customer.entitlement("events").quota == 1_000
    assert counted() == before + 1


def test_usage_is_complete_days_and_today_and_never_the_maximum(usage_snapshot):
    usage = wire.from_wire_usage(usage_snapshot(events=90, partial={"events": 9}, maxima={"events": 120}))
    assert usage.periods[0].quantities == {"events": 99}
    assert usage.periods[0].maxima == {"events": 120}


def test_a_price_without_meaning_is_refused_by_name(customer_snapshot):
    snapshot = customer_snapshot(events=1_000)
    broken = with_item(snapshot, price=snapshot.items[0].price.model_copy(update={"unit_amount": None}))
    with pytest.raises(Rejected) as refused:
        wire.from_wire_customer(broken)
    assert (refused.value.code, refused.value.attribute) == ("invalid_price", "items__0__price")


def test_a_transition_is_the_same_after_its_message_was_stored(customer_snapshot, usage_snapshot):
    evaluation = evaluate(
        OrganizationLimits("acme"),
        facts=OrganizationFacts(
            wire.from_wire_customer(customer_snapshot(events=10, trust_scores={"events": 7})),
            wire.from_wire_usage(usage_snapshot(events=11)),
            CreditBalance("acme", 1, "usd", 5),
        ),
        rules=to_table(1, FIRST_RULES),
        tokens_changed=True,
        now=NOW,
    )
    (transition,) = evaluation.transitions
    stored = LimitTransition.model_validate(to_event(transition).data)
    assert wire.from_wire_transition(stored) == transition
    assert stored.evidence.trust_score == 7
    assert stored.evidence.grace_days == 1
    assert stored.evidence.credit_balance_minor == 5


def test_version_1_is_stored_in_its_shortest_form():
    assert to_document(RuleDocument.model_validate(FIRST_RULES)) == FIRST_RULES
