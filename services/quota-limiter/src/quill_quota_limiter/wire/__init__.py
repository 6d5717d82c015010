"""Messages and HTTP models to domain values, and back."""

from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter
from quill_contracts import topics
from quill_contracts.identifiers import QUANTITY_MAX
from quill_contracts.invoices import CreditBalance as WireCreditBalance
from quill_contracts.limits import LimitEvidence, LimitStates, LimitTransition
from quill_contracts.limits import ThresholdReached as WireThresholdReached
from quill_contracts.subscriptions import CustomerSnapshot, SubscriptionItem
from quill_contracts.usage import PeriodUsage, PeriodUsageSnapshot
from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.money import Money
from quill_pricing.period import BillingSchedule, Interval
from quill_pricing.price import price_from_document
from quill_pricing.quota import quota_for
from quill_runtime.consumption import Rejected
from quill_runtime.publisher import Outgoing

from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Customer, Entitlement, tightest
from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.limit_state import Evidence, Transition
from quill_quota_limiter.domain.period_usage import CutQuantities, OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.threshold import ThresholdReached
from quill_quota_limiter.wire.scope_states import (
    from_wire_scope_evidence,
    to_wire_scope_evidence,
    to_wire_scopes,
    to_wire_state,
)

CENTS_PER_DOLLAR: Final = 100

QUOTA_MISMATCHES = Counter(
    "quill_quota_mismatches", "Items whose published quota is not the one computed here from the price", ["meter"]
)

log = structlog.get_logger(__name__)


def from_wire_customer(snapshot: CustomerSnapshot) -> Customer:
    """What limits depend on, with every quota computed here from price, allowance and billing limit.

    Raises:
        Rejected: the schedule or a price has no meaning; naming the field.
    """
    try:
        schedule = BillingSchedule(snapshot.schedule.anchor, Interval.parse(snapshot.schedule.interval))
    except ValueError as error:
        raise Rejected(
            "invalid_schedule", str(error), attribute="schedule", subject=snapshot.organization_id
        ) from error
    entitlements = tightest(
        [
            _entitlement(snapshot, number, item, item.usage_key)
            for number, item in enumerate(snapshot.items)
            if item.usage_key is not None
        ]
    )
    prices = {item.product_key: item.price for item in snapshot.items}
    return Customer(
        organization_id=snapshot.organization_id,
        revision=snapshot.revision,
        license_id=snapshot.license_id,
        schedule=schedule,
        entitlements=entitlements,
        tokens=frozenset(project.api_token for project in snapshot.projects),
        teams={project.api_token: project.team_id for project in snapshot.projects},
        free_trial_until=snapshot.free_trial_until,
        prices={
            each.usage_key: prices[each.product_key].model_dump(mode="json", exclude_none=True) for each in entitlements
        },
    )


def from_wire_credits(message: WireCreditBalance) -> CreditBalance:
    """What is left of a customer's credits."""
    return CreditBalance(message.organization_id, message.revision, message.currency, message.balance_minor)


def from_wire_usage(snapshot: PeriodUsageSnapshot) -> OrganizationUsage:
    """Quantities that limits are compared with: complete days and today together (L6).

    The greatest ever published is kept beside them where it differs; only what usage costs depends on it (L3).
    """
    return OrganizationUsage(
        organization_id=snapshot.organization_id,
        revision=snapshot.revision,
        periods=tuple(_quantities(period) for period in snapshot.periods),
    )


def to_wire_states(limits: OrganizationLimits) -> LimitStates:
    """The snapshot of ``limits.states.v1`` for a known organization."""
    assert limits.evaluated_at is not None
    assert limits.period_start is not None
    assert limits.period_end is not None
    scopes, left_out = to_wire_scopes(limits.scopes)
    return LimitStates(
        organization_id=limits.organization_id,
        revision=limits.revision,
        evaluated_at=limits.evaluated_at,
        period_start=limits.period_start,
        period_end=limits.period_end,
        states={usage_key: to_wire_state(meter) for usage_key, meter in limits.meters.items()},
        scopes=scopes,
        scopes_left_out=left_out,
    )


def to_wire_transition(transition: Transition) -> LimitTransition:
    """The message of ``limits.transitions.v1``."""
    return LimitTransition(
        organization_id=transition.organization_id,
        usage_key=transition.usage_key,
        sequence=transition.sequence,
        from_state=transition.from_state,
        to_state=transition.to_state,
        at=transition.at,
        limited_until=transition.limited_until,
        suspended_until=transition.suspended_until,
        rule=transition.rule,
        rule_version=transition.rule_version,
        sentence=transition.sentence,
        scope=transition.scope,
        evidence=to_wire_evidence(transition.evidence),
    )


def to_wire_evidence(evidence: Evidence) -> LimitEvidence:
    """Every input of a decision as it is published."""
    return LimitEvidence(
        usage=evidence.usage,
        used=evidence.used,
        in_trial=evidence.in_trial,
        usage_revision=evidence.usage_revision,
        usage_as_of=evidence.usage_as_of,
        quota=evidence.quota,
        allowance=evidence.allowance,
        billing_limit_usd=evidence.billing_limit_usd,
        subscribed=evidence.subscribed,
        customer_revision=evidence.customer_revision,
        trust_score=evidence.trust_score,
        never_drop_data=evidence.never_drop_data,
        buffer=evidence.buffer,
        grace_days=evidence.grace_days,
        period_start=evidence.period_start,
        period_end=evidence.period_end,
        previous=evidence.previous,
        evaluated_at=evidence.evaluated_at,
        free_trial_until=evidence.free_trial_until,
        credit_balance_minor=evidence.credit_balance_minor,
        scope=None if evidence.scope is None else to_wire_scope_evidence(evidence.scope),
    )


def from_wire_transition(message: LimitTransition) -> Transition:
    """The transition a message tells of."""
    return Transition(**message.model_dump(exclude={"evidence"}), evidence=from_wire_evidence(message.evidence))


def from_wire_evidence(message: LimitEvidence) -> Evidence:
    """The evidence a message tells of."""
    scope = None if message.scope is None else from_wire_scope_evidence(message.scope)
    return Evidence(**message.model_dump(exclude={"scope"}), scope=scope)


def to_wire_transition_message(transition: Transition) -> Outgoing:
    """A transition on its way to Kafka."""
    return Outgoing(
        topics.LIMIT_TRANSITIONS.name, transition.organization_id, to_wire_transition(transition).to_bytes()
    )


def to_wire_states_message(limits: OrganizationLimits) -> Outgoing:
    """All limit states of an organization on their way to Kafka."""
    return Outgoing(topics.LIMIT_STATES.name, limits.organization_id, to_wire_states(limits).to_bytes())


def to_wire_reached_message(reached: ThresholdReached) -> Outgoing:
    """A threshold on its way to Kafka."""
    return Outgoing(topics.LIMIT_THRESHOLDS.name, reached.organization_id, to_wire_reached(reached).to_bytes())


def to_wire_reached(reached: ThresholdReached) -> WireThresholdReached:
    """The message of ``limits.thresholds.v1``."""
    return WireThresholdReached(
        organization_id=reached.organization_id,
        usage_key=reached.usage_key,
        reached_id=reached.reached_id,
        percent=reached.percent,
        usage=reached.usage,
        quota=reached.quota,
        billing_limit_usd=reached.billing_limit_usd,
        usage_revision=reached.usage_revision,
        customer_revision=reached.customer_revision,
        period_start=reached.period_start,
        period_end=reached.period_end,
        at=reached.at,
        sentence=reached.sentence,
        kind=reached.kind,
        spend_minor=None if reached.spent is None else reached.spent.spend.amount_minor,
        amount_minor=None if reached.spent is None else reached.spent.amount.amount_minor,
        currency=None if reached.spent is None else reached.spent.amount.currency,
    )


def _entitlement(snapshot: CustomerSnapshot, number: int, item: SubscriptionItem, usage_key: str) -> Entitlement:
    try:
        quota = quota_for(
            price=price_from_document(item.price.model_dump()),
            allowance=item.allowance,
            subscribed=item.subscribed,
            billing_limit=None if item.billing_limit_usd is None else Money(item.billing_limit_usd * CENTS_PER_DOLLAR),
        )
    except ValueError as error:
        raise Rejected(
            "invalid_price",
            f"{item.product_key}: {error}",
            attribute=f"items__{number}__price",
            subject=snapshot.organization_id,
        ) from error
    if quota is not None:
        quota = min(quota, QUANTITY_MAX)
    trial_end = snapshot.free_trial_until
    in_trial = trial_end is not None and snapshot.effective_at < trial_end
    if item.quota != (None if in_trial and item.in_trial and not item.subscribed else quota):
        # Ours decides: the published number may be from another version of the pricing rules. Somebody should look.
        QUOTA_MISMATCHES.labels(usage_key).inc()
        log.warning(
            "quota.mismatch",
            organization_id=snapshot.organization_id,
            meter=usage_key,
            published=item.quota,
            computed=quota,
        )
    return Entitlement(
        usage_key=usage_key,
        quota=quota,
        allowance=item.allowance,
        billing_limit_usd=item.billing_limit_usd,
        subscribed=item.subscribed,
        trust_score=snapshot.trust_scores.get(usage_key),
        never_drop_data=snapshot.never_drop_data,
        product_key=item.product_key,
        terms=_terms(item, snapshot.period.start),
        aggregation=item.aggregation,
        carried=item.carried,
        in_trial=item.in_trial,
    )


def _terms(item: SubscriptionItem, since: datetime) -> tuple[BillingTerms, ...]:
    """What held in the snapshot's billing period and later: limits look at no earlier one."""
    oldest_first = sorted(item.changes, key=lambda change: change.at)
    terms = [BillingTerms(change.at, is_paid=change.paid, limit=change.quota) for change in oldest_first]
    earlier = [each for each in terms if each.effective_at <= since]
    return (*earlier[-1:], *(each for each in terms if each.effective_at > since))


def _quantities(period: PeriodUsage) -> PeriodQuantities:
    quantities = {
        usage_key: min(meter.complete + meter.partial, QUANTITY_MAX) for usage_key, meter in period.meters.items()
    }
    return PeriodQuantities(
        period_start=period.period_start,
        period_end=period.period_end,
        as_of=period.as_of,
        quantities=quantities,
        cuts=tuple(
            CutQuantities(cut.at, {key: min(used, QUANTITY_MAX) for key, used in cut.used.items()})
            for cut in period.cuts
        ),
        maxima={
            usage_key: meter.maximum
            for usage_key, meter in period.meters.items()
            if meter.maximum != quantities[usage_key]
        },
    )
