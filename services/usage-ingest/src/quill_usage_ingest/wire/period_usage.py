"""Period usage as published and as answered."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from quill_contracts.usage import MeterUsage
from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage, PeriodUsage

log = structlog.get_logger(__name__)


def to_wire_meters(usage: PeriodUsage, meters: MeterMap) -> dict[str, MeterUsage]:
    """Usage per meter; a meter whose counter was never reported in the period is left out."""
    found = {}
    for meter in meters.counter_by_meter:
        held = usage.counters.get(meters.counter_in(meter, usage.period) or "")
        if held is None:
            continue
        found[meter] = MeterUsage(
            complete=held.complete,
            partial=held.partial,
            maximum=held.maximum,
        )
    return found


ALWAYS_SUMMARIZED: Final = ("events", "recordings")
"""PostHog's client indexes these two without asking (wire contract 3)."""


def to_wire_billing_answer(
    organization: Organization,
    *,
    period: BillingPeriod,
    usage: PeriodUsage | None,
    meters: MeterMap,
    event_usage: Mapping[str, int],
) -> dict[str, Any]:
    """The body of ``POST /api/usage``. Usage counts complete days only: PostHog adds today by itself (L6).

    Events it does not count itself, so of these nothing is left for it to add. ``event_usage`` is complete usage by
    meter where it does not stand in ``usage``.
    """
    customer = organization.customer
    counters: Mapping[str, CounterUsage] = usage.counters if usage else {}
    keys = [*ALWAYS_SUMMARIZED, *meters.counter_by_meter, *meters.event_meters, *customer.quotas]
    return {
        "license": {"type": customer.license_type},
        "customer": {
            "customer_id": customer.customer_id,
            "has_active_subscription": customer.has_active_subscription,
            "billing_period": {
                "current_period_start": period.start.isoformat(),
                "current_period_end": period.end.isoformat(),
                "interval": str(organization.schedule.interval),
            },
            "usage_summary": {
                key: {
                    "usage": event_usage.get(
                        key, counters.get(meters.counter_in(key, period) or "", NOTHING_USED).complete
                    ),
                    "limit": customer.quotas.get(key),
                }
                for key in dict.fromkeys(keys)
            },
            "never_drop_data": customer.never_drop_data,
            "customer_trust_scores": dict(customer.trust_scores),
            "available_product_features": [msgspec.to_builtins(feature) for feature in customer.features],
            "products": None,
        },
    }


def to_wire_unknown_customer(license_type: str) -> dict[str, Any]:
    """The body of ``POST /api/usage`` for a report that waits for its organization.

    It has the keys of the full answer and says nothing: PostHog's client leaves usage and limits as they are when
    ``usage_summary`` is empty, and features when their list is.
    """
    return {
        "license": {"type": license_type},
        "customer": {
            "customer_id": None,
            "has_active_subscription": False,
            "billing_period": None,
            "usage_summary": {},
            "never_drop_data": False,
            "customer_trust_scores": {},
            "available_product_features": [],
            "products": None,
        },
    }
