"""A shadow run says what would have been, had its table decided: no more and no less (L7)."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingSchedule, Interval
from quill_quota_limiter.domain.entitlement import Customer, Entitlement
from quill_quota_limiter.domain.evaluation import OrganizationLimits, evaluate
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.shadow import ShadowLimits, evaluate_shadow
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
SCHEDULE = BillingSchedule(OCTOBER, Interval(1, "month"))
METERS = ("ai_credits", "events", "recordings")
IN_FORCE = to_table(1, FIRST_RULES)
TWIN = to_table(2, FIRST_RULES)
OTHER = to_table(
    3,
    {
        "near_percent": 60,
        "grace_days_by_trust": {"0": 2, "3": 2, "7": 2, "10": 2, "15": 2},
        "resources": {"events": {"buffer": 200}, "recordings": {"is_exempt": True}},
    },
)
entitlements = st.builds(
    Entitlement,
    usage_key=st.sampled_from(METERS),
    quota=st.none() | st.integers(0, 600),
    trust_score=st.sampled_from([None, 0, 7, 15]),
    never_drop_data=st.booleans(),
)
steps = st.lists(
    st.tuples(
        st.integers(0, 24 * 12),
        st.lists(entitlements, max_size=3, unique_by=lambda e: e.usage_key),
        st.dictionaries(st.sampled_from(METERS), st.integers(0, 1_800)),
    ),
    max_size=10,
)


def both(given_steps, rules):
    """Evaluate with the table in force and in the shadow; yields each pair with its facts and instant."""
    limits, shadow, now = OrganizationLimits("acme"), ShadowLimits("acme", run=1), OCTOBER
    for revision, (hours, items, quantities) in enumerate(given_steps, start=1):
        now += timedelta(hours=hours)
        period = SCHEDULE.period_containing(now)
        usage = OrganizationUsage("acme", revision, (PeriodQuantities(period.start, period.end, now, quantities),))
        facts = OrganizationFacts(Customer("acme", revision, "license", SCHEDULE, tuple(items)), usage)
        before = limits
        evaluation = evaluate(before, facts=facts, rules=IN_FORCE, tokens_changed=False, now=now)
        found = evaluate_shadow(
            shadow, before=before, evaluation=evaluation, facts=facts, rules=rules, live_rules=IN_FORCE
        )
        limits, shadow = evaluation.limits, found.limits
        yield limits, found, facts, now


@given(steps)
def test_equal_numbers_never_differ(given_steps):
    for limits, found, *_ in both(given_steps, TWIN):
        assert found.differences == ()
        assert {key: state.name for key, state in found.limits.states.items()} == {
            key: meter.state.name for key, meter in limits.meters.items()
        }


@given(steps)
def test_a_shadow_that_ran_from_the_beginning_stands_where_its_table_would_have_led(given_steps):
    alone = OrganizationLimits("acme")
    for limits, found, facts, now in both(given_steps, OTHER):
        alone = evaluate(alone, facts=facts, rules=OTHER, tokens_changed=False, now=now).limits
        assert dict(found.limits.states) == {key: meter.state for key, meter in alone.meters.items()}
        would = {key: meter.state for key, meter in alone.meters.items()}
        differing = {
            key
            for key, meter in limits.meters.items()
            if (meter.state.name, meter.state.limited_until, meter.state.suspended_until)
            != (would[key].name, would[key].limited_until, would[key].suspended_until)
        }
        assert {difference.usage_key for difference in found.differences} == differing


@given(steps)
def test_a_state_that_did_not_move_is_not_written_again(given_steps):
    known = None
    for _, found, *_ in both(given_steps, OTHER):
        assert found.is_changed == (known is None or not known or dict(found.limits.states) != known)
        known = dict(found.limits.states)
