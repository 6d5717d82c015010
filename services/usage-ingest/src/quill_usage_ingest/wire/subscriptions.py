"""What subscriptions publishes, as far as usage needs it."""

from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot, SubscriptionItem
from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.period import BillingSchedule, Interval
from quill_pricing.schedule_history import ScheduleChange

from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.organization import CustomerFacts, Feature, Organization


def from_wire_customer(snapshot: CustomerSnapshot) -> Organization:
    """The part of a customer snapshot that usage needs."""
    product_by_meter = {item.usage_key: item.product_key for item in snapshot.items if item.usage_key}
    schedule = BillingSchedule(snapshot.schedule.anchor, Interval.parse(snapshot.schedule.interval))
    return Organization(
        organization_id=snapshot.organization_id,
        license_id=snapshot.license_id,
        customer_revision=snapshot.revision,
        schedule=schedule,
        cuts=tuple(snapshot.cuts),
        begins=ScheduleChange(schedule, begins=snapshot.period.start, effective_at=snapshot.effective_at),
        customer=CustomerFacts(
            customer_id=snapshot.customer_id,
            license_type=snapshot.license_type,
            has_active_subscription=snapshot.has_active_subscription,
            never_drop_data=snapshot.never_drop_data,
            quotas={item.usage_key: item.quota for item in snapshot.items if item.usage_key},
            trust_scores={
                product_by_meter[meter]: score
                for meter, score in snapshot.trust_scores.items()
                if meter in product_by_meter
            },
            features=tuple(Feature(**feature.model_dump()) for feature in snapshot.features),
            further_license_ids=tuple(sorted(set(snapshot.further_license_ids))),
            free_trial_until=snapshot.free_trial_until,
            billing_terms={item.usage_key: _billing_terms(item) for item in snapshot.items if item.usage_key},
            prices={
                item.usage_key: item.price.model_dump(mode="json", exclude_none=True)
                for item in snapshot.items
                if item.usage_key and any(change.paid for change in item.changes)
            },
        ),
    )


def _billing_terms(item: SubscriptionItem) -> tuple[BillingTerms, ...]:
    return tuple(BillingTerms(change.at, is_paid=change.paid, limit=change.quota) for change in item.changes)


def from_wire_product(product: CatalogProduct) -> MeteredProduct:
    """The part of a catalog product that usage needs."""
    return MeteredProduct(
        product_key=product.product_key,
        revision=product.revision,
        usage_key=product.usage_key,
        counter=product.counter,
        counts_from=product.counts_from,
        event_meter=_event_meter(product),
    )


def _event_meter(product: CatalogProduct) -> EventMeter | None:
    defined = product.event_meter
    if defined is None or product.usage_key is None:
        return None
    return EventMeter(
        usage_key=product.usage_key,
        event_type=defined.type,
        aggregation=Aggregation(defined.aggregation),
        value=defined.value,
        group_by=tuple(defined.group_by),
        decimals=defined.decimals,
        carried=defined.carried,
        counts_from=product.counts_from,
    )
