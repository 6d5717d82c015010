"""What another rule table would have decided: states of its own, and where they differ from those in force."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_quota_limiter.domain.evaluation import Evaluation, OrganizationLimits, evidence_of, meters_of, next_change_at
from quill_quota_limiter.domain.limit_decision import Decision, decide
from quill_quota_limiter.domain.limit_state import Evidence, LimitState, StateName
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.rule_table import RuleTable


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """One organization's states under the shadow table; they begin at the states in force and then go their own way."""

    organization_id: str
    run: int
    states: Mapping[str, LimitState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of two decisions about the same facts."""

    state: StateName
    rule: str
    rule_version: int
    sentence: str
    limited_until: datetime | None
    suspended_until: datetime | None


@dataclass(frozen=True, slots=True)
class ShadowDifference:
    """From ``at`` on the two tables said different things about one meter.

    ``(live_sequence, shadow_sequence)`` names the pair of states, so the same difference is never recorded twice.
    """

    organization_id: str
    usage_key: str
    run: int
    version: int
    at: datetime
    live_sequence: int
    shadow_sequence: int
    live: Verdict
    shadow: Verdict
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class ShadowEvaluation:
    """The shadow states after an evaluation, and every difference that holds now, also those recorded before."""

    limits: ShadowLimits
    is_changed: bool
    differences: tuple[ShadowDifference, ...]
    next_evaluation_at: datetime


def evaluate_shadow(
    shadow: ShadowLimits,
    *,
    before: OrganizationLimits,
    evaluation: Evaluation,
    facts: OrganizationFacts,
    rules: RuleTable,
    live_rules: RuleTable,
) -> ShadowEvaluation:
    """Decide every meter with the shadow table too, with the facts and at the instant of the evaluation in force.

    A meter without a shadow state begins at the state that was in force before: that is what activation would meet.
    """
    limits = evaluation.limits
    now = limits.evaluated_at
    assert now is not None  # an evaluation has an instant
    period = facts.customer.schedule.period_containing(now)
    states: dict[str, LimitState] = {}
    differences: list[ShadowDifference] = []
    for usage_key in meters_of(limits, facts.customer):
        known = before.meters.get(usage_key)
        live_previous = known.state if known else None
        previous = shadow.states.get(usage_key, live_previous)
        inputs = facts.inputs(usage_key, period, now=now)
        decision = decide(inputs, previous, rules=rules, now=now)
        state = previous
        if state is None or decision.differs_from(previous):
            state = LimitState(
                decision.state,
                since=now,
                sequence=(previous.sequence if previous else 0) + 1,
                limited_until=decision.limited_until,
                suspended_until=decision.suspended_until,
            )
        states[usage_key] = state
        live = limits.meters[usage_key].state
        if not decision.differs_from(live):
            continue
        in_force = decide(inputs, live_previous, rules=live_rules, now=now)
        differences.append(
            ShadowDifference(
                organization_id=limits.organization_id,
                usage_key=usage_key,
                run=shadow.run,
                version=rules.version,
                at=now,
                live_sequence=live.sequence,
                shadow_sequence=state.sequence,
                live=_verdict(in_force),
                shadow=_verdict(decision),
                evidence=evidence_of(inputs, previous, decision, facts=facts, now=now),
            )
        )
    return ShadowEvaluation(
        limits=ShadowLimits(shadow.organization_id, shadow.run, states),
        is_changed=not shadow.states or states != dict(shadow.states),
        differences=tuple(differences),
        next_evaluation_at=next_change_at(states.values(), customer=facts.customer, period=period, now=now),
    )


def _verdict(decision: Decision) -> Verdict:
    return Verdict(
        state=decision.state,
        rule=decision.rule,
        rule_version=decision.rule_version,
        sentence=decision.sentence,
        limited_until=decision.limited_until,
        suspended_until=decision.suspended_until,
    )
