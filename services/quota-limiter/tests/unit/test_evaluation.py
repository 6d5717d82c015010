"""Laws of evaluating an organization: replay, isolation of meters, revisions (L7, L9, L10)."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Customer, Entitlement, tightest
from quill_quota_limiter.domain.evaluation import OrganizationLimits, evaluate
from quill_quota_limiter.domain.limit_decision import Inputs, decide
from quill_quota_limiter.domain.limit_state import replay
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table

ANCHOR = datetime(2026, 1, 31, tzinfo=UTC)
SCHEDULE = BillingSchedule(ANCHOR, Interval(1, "month"))
METERS = ("ai_credits", "events", "feature_flag_requests", "recordings")
RULES = to_table(
    2, {**FIRST_RULES, "resources": {**FIRST_RULES["resources"], "ai_credits": {"is_paid_by_credits": True}}}
)

entitlements = st.builds(
    Entitlement,
    usage_key=st.sampled_from(METERS),
    quota=st.none() | st.integers(0, 3_000),
    subscribed=st.booleans(),
    trust_score=st.sampled_from([None, 0, 3, 7, 10, 15]),
    never_drop_data=st.booleans(),
    in_trial=st.booleans(),
)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "hours": st.integers(0, 24 * 12),
            "entitlements": st.lists(entitlements, max_size=4, unique_by=lambda e: e.usage_key),
            "usage": st.none() | st.dictionaries(st.sampled_from(METERS), st.integers(0, 4_500)),
            "trial_hours": st.none() | st.integers(-48, 24 * 20),
            "balance": st.none() | st.integers(-1, 1),
        }
    ),
    max_size=12,
)


def facts_of(step, *, revision: int, now: datetime) -> OrganizationFacts:
    """The facts of one step; usage counts in the billing period that contains ``now``."""
    trial_end = None if step["trial_hours"] is None else now + timedelta(hours=step["trial_hours"])
    customer = Customer("acme", revision, "license", SCHEDULE, tuple(step["entitlements"]), free_trial_until=trial_end)
    period = SCHEDULE.period_containing(now)
    usage = None
    if step["usage"] is not None:
        quantities = PeriodQuantities(period.start, period.end, now, step["usage"])
        usage = OrganizationUsage("acme", revision, (quantities,))
    balance = None if step["balance"] is None else CreditBalance("acme", revision, "usd", step["balance"])
    return OrganizationFacts(customer, usage, balance)


def live(steps_given):
    """Evaluate step after step; yields each evaluation with its facts and instant."""
    limits, now, usage, balance = OrganizationLimits("acme"), ANCHOR, None, None
    for revision, step in enumerate(steps_given, start=1):
        now += timedelta(hours=step["hours"])
        newest = facts_of(step, revision=revision, now=now)
        usage, balance = newest.usage or usage, newest.credits or balance
        facts = OrganizationFacts(newest.customer, usage, balance)
        before = limits
        evaluation = evaluate(limits, facts=facts, rules=RULES, tokens_changed=False, now=now)
        limits = evaluation.limits
        yield before, evaluation, facts, now


@given(steps)
def test_replaying_the_log_gives_the_live_states(given_steps):
    log, limits = {}, None
    for _, evaluation, *_ in live(given_steps):
        limits = evaluation.limits
        for transition in evaluation.transitions:
            log.setdefault(transition.usage_key, []).append(transition)
        for change in evaluation.reason_changes:
            log[change.usage_key].append(change)
    if limits is not None:
        assert {key: replay(log[key]) for key in limits.meters} == {key: m.state for key, m in limits.meters.items()}
        assert {key: log[key][-1].rule for key in limits.meters} == {key: m.rule for key, m in limits.meters.items()}
        assert {key: len(log[key]) for key in limits.meters} == {key: m.log_length for key, m in limits.meters.items()}


@given(steps)
def test_the_evidence_of_each_transition_leads_to_the_same_decision_again(given_steps):
    log = {}
    for _, evaluation, *_ in live(given_steps):
        for entry in (*evaluation.transitions, *evaluation.reason_changes):
            known, evidence = log.setdefault(entry.usage_key, []), entry.evidence
            again = decide(
                Inputs(
                    Entitlement(
                        entry.usage_key,
                        quota=evidence.quota,
                        subscribed=evidence.subscribed,
                        trust_score=evidence.trust_score,
                        never_drop_data=evidence.never_drop_data,
                        in_trial=evidence.in_trial,
                    ),
                    evidence.usage if evidence.usage_revision else None,
                    BillingPeriod(evidence.period_start, evidence.period_end),
                    free_trial_until=evidence.free_trial_until,
                    credit_balance_minor=evidence.credit_balance_minor,
                    used=evidence.used,
                ),
                replay(known),
                rules={RULES.version: RULES}[entry.rule_version],
                now=evidence.evaluated_at,
            )
            assert (again.rule, again.sentence) == (entry.rule, entry.sentence)
            known.append(entry)
            state = replay(known)
            assert (again.state, again.limited_until, again.suspended_until) == (
                state.name,
                state.limited_until,
                state.suspended_until,
            )


@given(steps, st.sampled_from(METERS))
def test_no_meter_changes_what_is_decided_about_another(given_steps, meter):
    def only(step):
        return step | {"entitlements": [e for e in step["entitlements"] if e.usage_key == meter]}

    together = [e.limits.meters.get(meter) for _, e, *_ in live(given_steps)]
    alone = [e.limits.meters.get(meter) for _, e, *_ in live([only(step) for step in given_steps])]
    assert together == alone


@given(steps)
def test_the_revision_rises_exactly_when_somebody_could_tell_the_difference(given_steps):
    for before, evaluation, *_ in live(given_steps):
        after = evaluation.limits
        seen = [(x.license_id, x.period_start, x.period_end, dict(x.meters)) for x in (before, after)]
        assert after.revision - before.revision == (1 if seen[0] != seen[1] or not before.is_known else 0)
        assert not evaluation.transitions or evaluation.is_changed


@given(steps)
def test_evaluating_again_with_the_same_facts_changes_nothing(given_steps):
    for _, evaluation, facts, now in live(given_steps):
        again = evaluate(evaluation.limits, facts=facts, rules=RULES, tokens_changed=False, now=now)
        assert (again.limits, again.transitions, again.is_changed) == (evaluation.limits, (), False)


@given(steps)
def test_the_next_evaluation_is_the_first_instant_at_which_time_alone_changes_a_state(given_steps):
    for _, evaluation, facts, now in live(given_steps):
        due = evaluation.limits.next_evaluation_at
        assert due > now
        just_before = evaluate(
            evaluation.limits,
            facts=facts,
            rules=RULES,
            tokens_changed=False,
            now=due - timedelta(microseconds=1),
        )
        assert not just_before.transitions


@given(steps)
def test_raising_or_removing_a_quota_releases_at_once(given_steps):
    for _, evaluation, facts, now in live(given_steps):
        unlimited = Customer("acme", facts.customer.revision + 1, "license", SCHEDULE, ())
        released = evaluate(
            evaluation.limits,
            facts=OrganizationFacts(unlimited, facts.usage),
            rules=RULES,
            tokens_changed=False,
            now=now,
        )
        assert {meter.state.name for meter in released.limits.meters.values()} <= {"within"}


def evaluated(customer, usage=None, *, limits=None, now, tokens_changed=False):
    return evaluate(
        limits or OrganizationLimits("acme"),
        facts=OrganizationFacts(customer, usage),
        rules=RULES,
        tokens_changed=tokens_changed,
        now=now,
    )


def test_a_clock_that_is_behind_does_not_take_an_evaluation_back_in_time():
    customer = Customer("acme", 1, "license", SCHEDULE, (Entitlement("events", quota=1),))
    late = evaluated(customer, now=ANCHOR)
    early = evaluated(customer, None, limits=late.limits, tokens_changed=True, now=ANCHOR - timedelta(milliseconds=1))
    assert early.limits.evaluated_at == ANCHOR
    assert early.limits.period_start == ANCHOR


def test_usage_of_another_period_never_limits():
    customer = Customer("acme", 1, "license", SCHEDULE, (Entitlement("events", quota=10),))
    january = PeriodQuantities(datetime(2025, 12, 31, tzinfo=UTC), ANCHOR, ANCHOR, {"events": 99})
    usage = OrganizationUsage("acme", 1, (january,))
    evaluation = evaluated(customer, usage, now=ANCHOR)
    assert evaluation.limits.meters["events"].state.name == "within"


def test_a_period_ends_on_time_when_nobody_publishes():
    customer = Customer("acme", 1, "license", SCHEDULE, (Entitlement("events", quota=10),))
    now = ANCHOR + timedelta(days=3)
    period = SCHEDULE.period_containing(now)
    usage = OrganizationUsage("acme", 1, (PeriodQuantities(period.start, period.end, now, {"events": 99}),))
    limited = evaluated(customer, usage, now=now).limits
    assert limited.meters["events"].state.limited_until == period.end == limited.next_evaluation_at
    released = evaluated(customer, usage, limits=limited, now=period.end)
    assert released.limits.meters["events"].state.name == "within"
    assert released.limits.period_start == period.end
    assert [t.sentence for t in released.transitions] == ["events not limited: 0 of 10 used, below the quota."]


def test_two_items_on_one_meter_share_the_smaller_quota():
    chosen = tightest(
        [Entitlement("events", quota=None), Entitlement("events", quota=5), Entitlement("events", quota=9)]
    )
    assert [entitlement.quota for entitlement in chosen] == [5]


def test_a_trial_ends_on_time_when_nobody_publishes():
    now, trial_end = ANCHOR + timedelta(days=3), ANCHOR + timedelta(days=9)
    customer = Customer("acme", 1, "license", SCHEDULE, (Entitlement("events", quota=10),), free_trial_until=trial_end)
    period = SCHEDULE.period_containing(now)
    usage = OrganizationUsage("acme", 1, (PeriodQuantities(period.start, period.end, now, {"events": 99}),))
    in_trial = evaluated(customer, usage, now=now).limits
    assert (in_trial.meters["events"].rule, in_trial.next_evaluation_at) == ("free_trial", trial_end)
    after = evaluated(customer, usage, limits=in_trial, now=trial_end)
    assert after.limits.meters["events"].state.name == "limited"
    assert after.transitions[0].evidence.free_trial_until == trial_end
