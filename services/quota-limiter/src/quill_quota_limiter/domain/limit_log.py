"""From a decision to the limit and what its log records: a transition, a change of reason, or nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from quill_quota_limiter.domain.limit_decision import Decision
from quill_quota_limiter.domain.limit_state import Evidence, LimitState, LogEntry, ReasonChange, Transition, evolve
from quill_quota_limiter.domain.meter_limit import MeterLimit


@dataclass(frozen=True, slots=True)
class LimitName:
    """Whose limit it is; ``scope`` is ``None`` for the organization's own."""

    organization_id: str
    usage_key: str
    scope: str | None = None


def decided(
    known: MeterLimit | None,
    decision: Decision,
    *,
    usage: int,
    quota: int | None,
    evidence: Callable[[], Evidence],
    name: LimitName,
) -> tuple[MeterLimit, LogEntry | None]:
    """The limit after a decision, and the entry that its log gets: at most one.

    A rule that only keeps up what another one began is no reason of its own.

    Args:
        known: the limit before; ``None`` when it is decided for the first time.
        decision: what holds now.
        usage: units that the quota is compared with.
        quota: units; ``None`` for unlimited.
        evidence: makes every input of the decision; asked only for an entry.
        name: whose limit it is.
    """
    rule, version = decision.rule, decision.rule_version
    if known is None or decision.differs_from(known.state):
        transition = _transition(name, known.state if known else None, decision, evidence())
        state = evolve(known.state if known else None, transition)
        return MeterLimit(state, usage, quota, rule, version, reasons=known.reasons if known else 0), transition
    if decision.is_continuation:
        rule, version = known.rule, known.rule_version
    limit = MeterLimit(known.state, usage, quota, rule, version, reasons=known.reasons)
    if rule == known.rule:
        return limit, None
    limit = replace(limit, reasons=known.reasons + 1)
    found = evidence()
    return limit, ReasonChange(
        organization_id=name.organization_id,
        usage_key=name.usage_key,
        sequence=known.state.sequence,
        number=limit.reasons,
        state=known.state.name,
        at=found.evaluated_at,
        from_rule=known.rule,
        rule=rule,
        rule_version=version,
        sentence=decision.sentence,
        evidence=found,
        scope=name.scope,
    )


def _transition(name: LimitName, previous: LimitState | None, decision: Decision, evidence: Evidence) -> Transition:
    return Transition(
        organization_id=name.organization_id,
        usage_key=name.usage_key,
        sequence=(previous.sequence if previous else 0) + 1,
        from_state=previous.name if previous else None,
        to_state=decision.state,
        at=evidence.evaluated_at,
        limited_until=decision.limited_until,
        suspended_until=decision.suspended_until,
        rule=decision.rule,
        rule_version=decision.rule_version,
        sentence=decision.sentence,
        evidence=evidence,
        scope=name.scope,
    )
