"""Why does a limit stand as it does? By the facts and the rule of now, also when no state has changed since (L7)."""

from dataclasses import dataclass
from datetime import datetime

from quill_quota_limiter.domain.evaluation import OrganizationLimits, evidence_of
from quill_quota_limiter.domain.limit_decision import Decision, decide
from quill_quota_limiter.domain.limit_state import Evidence
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.scope_evaluation import scope_meter
from quill_quota_limiter.ports import LimitsTransaction
from quill_quota_limiter.usecases.scope_facts import read_scope_facts


@dataclass(frozen=True, slots=True)
class PresentReason:
    """What the facts of now say about a limit."""

    decision: Decision
    evidence: Evidence


async def present_reason(
    limits: OrganizationLimits, usage_key: str, *, scope: str | None, tx: LimitsTransaction, now: datetime
) -> PresentReason | None:
    """Decide one limit with the facts of now, and change nothing; ``None`` when its customer is not known.

    Args:
        limits: the organization as it was last decided.
        usage_key: a meter of it.
        scope: a team or project that has a limit; ``None`` is the organization itself.
        tx: an open transaction.
        now: the instant asked about.
    """
    name = limits.organization_id
    customer = (await tx.customers([name])).get(name)
    if customer is None:
        return None
    now = now if limits.evaluated_at is None else max(now, limits.evaluated_at)
    facts = OrganizationFacts(
        customer=customer,
        usage=(await tx.usages([name])).get(name),
        credits=(await tx.credits([name])).get(name),
        scopes=(await read_scope_facts([limits], tx=tx)).get(name),
    )
    rules = (await tx.rulebook.active()).in_force
    period = customer.schedule.period_containing(now)
    previous = limits.limit_of(usage_key, scope).state
    if scope is not None and limits.scopes is not None:
        meter = scope_meter(scope, usage_key, limits.scopes, facts=facts, period=period)
        decision = meter.decide(rules)
        return PresentReason(decision, meter.evidence(previous, decision, now=now))
    inputs = facts.inputs(usage_key, period, now=now)
    decision = decide(inputs, previous, rules=rules, now=now)
    return PresentReason(decision, evidence_of(inputs, previous, decision, facts=facts, now=now))
