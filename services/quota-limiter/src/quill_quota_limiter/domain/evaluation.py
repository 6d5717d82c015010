"""All limits of one organization, decided together from one set of facts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod

from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.limit_decision import FREE_TRIAL, Decision, Inputs, decide
from quill_quota_limiter.domain.limit_log import LimitName, decided
from quill_quota_limiter.domain.limit_state import Evidence, LimitState, LogEntry, ReasonChange, Transition
from quill_quota_limiter.domain.meter_limit import MeterLimit
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.scope_evaluation import evaluate_scopes
from quill_quota_limiter.domain.spend_threshold import spend_reached
from quill_quota_limiter.domain.threshold import ThresholdReached, percents_for, reached


@dataclass(frozen=True, slots=True)
class OrganizationLimits:
    """Everything decided about one organization: one row, one revision.

    Attributes:
        revision: rises with each observable change; 0 before the customer is known.
        license_id: the license that may ask about this organization.
        tokens_revision: rises when the organization's project tokens change.
        evaluated_at: the newest instant an evaluation used; it never goes back, whatever replicas' clocks say.
        next_evaluation_at: when time alone may change a state; ``None`` before the customer is known.
    """

    organization_id: str
    revision: int = 0
    license_id: str | None = None
    tokens_revision: int = 0
    period_start: datetime | None = None
    period_end: datetime | None = None
    evaluated_at: datetime | None = None
    next_evaluation_at: datetime | None = None
    meters: Mapping[str, MeterLimit] = field(default_factory=dict)
    thresholds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Percent to tell about, by meter or for all; see `threshold.percents_for`."""
    scopes: OrganizationScopes | None = None
    """Limits of its teams and projects; ``None`` until somebody sets one."""
    spend_thresholds: Mapping[str, tuple[Money, ...]] = field(default_factory=dict)
    """Amounts of cost to tell about, by meter."""

    def limit_of(self, usage_key: str, scope: str | None) -> MeterLimit:
        """One limit: the organization's own, or that of a team or project.

        Raises:
            KeyError: it was never decided.
        """
        meters = self.meters if scope is None or self.scopes is None else self.scopes.limits[scope]
        return meters[usage_key]

    @property
    def is_known(self) -> bool:
        """Whether the customer was ever heard of; before that nothing is decided."""
        return self.revision > 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The organization after an evaluation and what changed on the way.

    ``is_changed`` means somebody outside could tell the difference, and is exactly when the revision rose.
    """

    limits: OrganizationLimits
    transitions: tuple[Transition, ...]
    is_changed: bool
    reached: tuple[ThresholdReached, ...] = ()
    reason_changes: tuple[ReasonChange, ...] = ()
    """Limits whose rule is another one, in an unchanged state; recorded, and published with the states only."""


def evaluate(
    limits: OrganizationLimits,
    *,
    facts: OrganizationFacts,
    rules: RuleTable,
    tokens_changed: bool,
    now: datetime,
) -> Evaluation:
    """Decide every meter of one organization, and of its scopes, with its current facts (L7, L9).

    The billing period comes from the schedule and the instant, so a period ends on time even when nobody publishes.
    """
    now = now if limits.evaluated_at is None else max(now, limits.evaluated_at)
    customer = facts.customer
    period = customer.schedule.period_containing(now)
    meters: dict[str, MeterLimit] = {}
    log: list[LogEntry] = []
    news: list[ThresholdReached] = []
    for usage_key in meters_of(limits, customer):
        inputs = facts.inputs(usage_key, period, now=now)
        meters[usage_key], entry = _evaluate_meter(limits, usage_key, inputs, facts=facts, rules=rules, now=now)
        if entry is not None:
            log.append(entry)
        meters[usage_key], reached_now = _tell(limits, usage_key, meters[usage_key], inputs, facts=facts, now=now)
        news += reached_now
    scopes = limits.scopes
    if scopes is not None:
        scopes, moved = evaluate_scopes(
            limits.organization_id, scopes, facts=facts, rules=rules, period=period, now=now
        )
        log += moved
    evaluated = replace(
        limits,
        license_id=customer.license_id,
        tokens_revision=limits.tokens_revision + tokens_changed,
        period_start=period.start,
        period_end=period.end,
        meters=meters,
        scopes=scopes,
    )
    is_changed = evaluated != limits or not limits.is_known
    return Evaluation(
        limits=replace(
            evaluated,
            revision=limits.revision + is_changed,
            evaluated_at=now,
            next_evaluation_at=next_change_at(
                (meter.state for meter in meters.values()), customer=customer, period=period, now=now
            ),
        ),
        transitions=tuple(entry for entry in log if isinstance(entry, Transition)),
        is_changed=is_changed,
        reached=tuple(news),
        reason_changes=tuple(entry for entry in log if isinstance(entry, ReasonChange)),
    )


def _tell(
    limits: OrganizationLimits,
    usage_key: str,
    meter: MeterLimit,
    inputs: Inputs,
    *,
    facts: OrganizationFacts,
    now: datetime,
) -> tuple[MeterLimit, list[ThresholdReached]]:
    """Shares of the quota and amounts of cost that are reached and were not told before.

    Another billing period begins anew; for shares another quota does too.

    Returns:
        The meter with all that is told now, and the news.
    """
    period = inputs.period
    known = limits.meters.get(usage_key) if limits.period_start == period.start else None
    told = known.told if known is not None and known.quota == meter.quota else ()
    told_spend = known.told_spend if known is not None else ()
    quota = meter.quota
    percents = reached(percents_for(usage_key, limits.thresholds), usage=inputs.usage, quota=quota)
    shares = [percent for percent in percents if percent not in told]
    amounts = spend_reached(limits.spend_thresholds.get(usage_key, ()), inputs, facts.prices.get(usage_key))
    spent = [each for each in amounts if each.amount not in told_spend]
    if not shares and not spent:
        return replace(meter, told=told, told_spend=told_spend) if told or told_spend else meter, []
    fact = partial(
        ThresholdReached,
        organization_id=limits.organization_id,
        usage_key=usage_key,
        usage_revision=facts.usage.revision if facts.usage else 0,
        customer_revision=facts.customer.revision,
        period_start=period.start,
        period_end=period.end,
        at=now,
    )
    limit = inputs.entitlement.billing_limit_usd
    used = inputs.usage or 0
    news = [fact(percent=percent, usage=used, quota=quota or 0, billing_limit_usd=limit) for percent in shares]
    billed = inputs.billed or 0 if spent else 0
    news += [fact(percent=100, usage=billed, quota=each.units, billing_limit_usd=None, spent=each) for each in spent]
    told_now = replace(meter, told=(*told, *shares), told_spend=(*told_spend, *(each.amount for each in spent)))
    return told_now, news


def meters_of(limits: OrganizationLimits, customer: Customer) -> list[str]:
    """Every meter that is decided: those of the customer's items, and those that once were."""
    return sorted({*limits.meters, *(entitlement.usage_key for entitlement in customer.entitlements)})


def next_change_at(
    states: Iterable[LimitState], *, customer: Customer, period: BillingPeriod, now: datetime
) -> datetime:
    """The first instant at which time alone can change a state: a grace, a trial or the billing period ends."""
    trial_end = customer.free_trial_until
    ends = [period.end, *(state.suspended_until for state in states if state.suspended_until)]
    return min([*ends, trial_end] if trial_end is not None and now < trial_end else ends)


def _evaluate_meter(
    limits: OrganizationLimits,
    usage_key: str,
    inputs: Inputs,
    *,
    facts: OrganizationFacts,
    rules: RuleTable,
    now: datetime,
) -> tuple[MeterLimit, LogEntry | None]:
    known = limits.meters.get(usage_key)
    previous = known.state if known else None
    decision = decide(inputs, previous, rules=rules, now=now)
    # A running trial lifts the quota: there is none to show, and none to tell shares of.
    quota = None if decision.rule == FREE_TRIAL else inputs.entitlement.quota
    return decided(
        known,
        decision,
        usage=inputs.usage or 0,
        quota=quota,
        evidence=lambda: evidence_of(inputs, previous, decision, facts=facts, now=now),
        name=LimitName(limits.organization_id, usage_key),
    )


def evidence_of(
    inputs: Inputs, previous: LimitState | None, decision: Decision, *, facts: OrganizationFacts, now: datetime
) -> Evidence:
    """Every input of a decision with the revisions it came from (L7)."""
    entitlement = inputs.entitlement
    quantities = facts.usage.in_period(inputs.period.start) if facts.usage else None
    return Evidence(
        usage=inputs.usage or 0,
        usage_revision=facts.usage.revision if facts.usage else 0,
        usage_as_of=quantities.as_of if quantities else None,
        quota=entitlement.quota,
        allowance=entitlement.allowance,
        billing_limit_usd=entitlement.billing_limit_usd,
        subscribed=entitlement.subscribed,
        customer_revision=facts.customer.revision,
        trust_score=entitlement.trust_score,
        never_drop_data=entitlement.never_drop_data,
        buffer=decision.buffer,
        grace_days=decision.grace_days,
        period_start=inputs.period.start,
        period_end=inputs.period.end,
        previous=previous.name if previous else None,
        evaluated_at=now,
        free_trial_until=inputs.free_trial_until,
        credit_balance_minor=inputs.credit_balance_minor,
        in_trial=entitlement.in_trial,
        used=inputs.used if inputs.not_charged else None,
    )
