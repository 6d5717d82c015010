"""A customer as operators see it."""

from typing import Any

from quill_subscriptions.domain.entitlements import Entitlements
from quill_subscriptions.ports import CustomerRecord, NumberedEvent
from quill_subscriptions.wire.snapshots import customer_to_wire
from quill_subscriptions.wire.stored import to_stored_event, to_stored_members


def customer_document(record: CustomerRecord, entitlements: Entitlements) -> dict[str, Any]:
    """The published snapshot as of now, with what only operators see: members, and limits that start next period."""
    snapshot = customer_to_wire(
        record.customer,
        record.members,
        entitlements,
        revision=record.revision,
        effective_at=record.effective_at,
    )
    limits = entitlements.billing_limits
    return {
        **snapshot.model_dump(mode="json"),
        "registered_at": record.customer.registered_at.isoformat(),
        "custom_limits_usd": dict(limits.in_force),
        "next_period_custom_limits_usd": dict(limits.next_period),
        "members": to_stored_members(record.members),
    }


def summary_document(record: CustomerRecord, entitlements: Entitlements) -> dict[str, Any]:
    """One line of a list of customers."""
    customer = record.customer
    return {
        "organization_id": customer.organization_id,
        "organization_name": customer.organization_name,
        "customer_id": customer.customer_id,
        "license_id": customer.license_id,
        "license_type": customer.license_type,
        "revision": record.revision,
        "registered_at": customer.registered_at.isoformat(),
        "period": {
            "start": entitlements.period.start.isoformat(),
            "end": entitlements.period.end.isoformat(),
        },
        "has_active_subscription": customer.subscription is not None,
        "products": [item.product.key for item in entitlements.items if item.subscribed],
        "custom_limits_usd": dict(entitlements.billing_limits.in_force),
    }


def history_document(numbered: NumberedEvent) -> dict[str, Any]:
    """One change: who, when, what it was and what it became (L20). A registration has no before."""
    name, content = to_stored_event(numbered.recorded.event)
    return {
        "version": numbered.version,
        "type": name,
        "at": numbered.recorded.at.isoformat(),
        "actor": numbered.recorded.actor,
        "before": content.get("before"),
        "after": content.get("after", content),
        "reason": content.get("reason"),
    }
