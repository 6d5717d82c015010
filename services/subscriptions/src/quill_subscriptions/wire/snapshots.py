"""The two compacted topics: customer snapshots out, usage snapshots in."""

from datetime import datetime

from pydantic import TypeAdapter
from quill_contracts.meter_events import Aggregation
from quill_contracts.subscriptions import CustomerSnapshot, ItemChange, Schedule, ServicePeriod, SubscriptionItem
from quill_contracts.subscriptions import Project as WireProject
from quill_contracts.usage import PeriodUsageSnapshot

from quill_subscriptions.domain.customer import Customer
from quill_subscriptions.domain.entitlements import Entitlements, Item
from quill_subscriptions.domain.members import MemberRegister
from quill_subscriptions.domain.usage import MeterUsage, PeriodUsage, UsageCut, UsageSnapshot
from quill_subscriptions.wire.catalog import feature_to_wire, price_document

_AGGREGATION: TypeAdapter[Aggregation] = TypeAdapter(Aggregation)


def customer_to_wire(
    customer: Customer,
    members: MemberRegister,
    entitlements: Entitlements,
    *,
    revision: int,
    effective_at: datetime,
) -> CustomerSnapshot:
    """Everything the other services need to know of a customer, with whole prices, so that they read nothing else."""
    usage_keys = {item.product.key: item.product.usage_key for item in entitlements.items}
    subscription = customer.subscription
    return CustomerSnapshot(
        organization_id=customer.organization_id,
        organization_name=customer.organization_name,
        email=members.email,
        customer_id=customer.customer_id,
        revision=revision,
        effective_at=effective_at,
        license_id=customer.license_id,
        license_type=customer.license_type,
        schedule=Schedule(anchor=customer.anchor, interval=customer.interval),
        period=ServicePeriod(start=entitlements.period.start, end=entitlements.period.end),
        has_active_subscription=subscription is not None,
        subscription_id=None if subscription is None else subscription.subscription_id,
        subscribed_at=None if subscription is None else subscription.started_at,
        collection_mode="stripe-rates" if subscription is None else subscription.collection_mode,
        items=[_item_to_wire(item) for item in entitlements.items],
        trust_scores={
            usage_key: score
            for product_key, score in customer.trust_scores.items()
            if (usage_key := usage_keys.get(product_key)) is not None
        },
        never_drop_data=customer.never_drop_data,
        features=[feature_to_wire(feature) for feature in entitlements.features],
        projects=[WireProject(team_id=project.team_id, api_token=project.api_token) for project in customer.projects],
        free_trial_until=customer.free_trial_until,
        further_license_ids=list(customer.further_license_ids),
        changes_since=entitlements.recent_periods[0].start,
        cuts=list(entitlements.cuts),
    )


def _item_to_wire(item: Item) -> SubscriptionItem:
    return SubscriptionItem(
        product_key=item.product.key,
        usage_key=item.product.usage_key,
        counter=item.product.counter,
        price_id=item.product.price_id,
        price=price_document(item.product.price),
        subscribed=item.subscribed,
        allowance=item.product.allowance,
        billing_limit_usd=item.billing_limit_usd,
        quota=item.quota,
        quantity=item.quantity,
        aggregation=_AGGREGATION.validate_python(item.aggregation),
        carried=item.carried,
        in_trial=item.product.in_trial,
        changes=[
            ItemChange(at=change.at, paid=change.paid, quota=change.quota, quantity=change.quantity)
            for change in item.changes
        ],
    )


def usage_from_wire(snapshot: PeriodUsageSnapshot) -> UsageSnapshot:
    """What subscriptions keeps of a usage snapshot."""
    return UsageSnapshot(
        organization_id=snapshot.organization_id,
        revision=snapshot.revision,
        periods=tuple(
            PeriodUsage(
                starts=period.period_start,
                meters={
                    key: MeterUsage(complete=meter.complete, partial=meter.partial, maximum=meter.maximum)
                    for key, meter in period.meters.items()
                },
                cuts=tuple(UsageCut(at=cut.at, used=dict(cut.used)) for cut in period.cuts),
            )
            for period in snapshot.periods
        ),
    )
