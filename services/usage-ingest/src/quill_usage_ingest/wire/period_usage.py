"""Period usage as published and as answered."""

from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from quill_contracts.usage import MeterUsage
from quill_pricing.billed_quantity import MeteredUsage, quantity_against_limit
from quill_pricing.metered_usage import metered_usage

from quill_usage_ingest.domain.current_usage import CurrentUsage
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.period_usage import NOTHING_USED, PeriodUsage

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


def to_wire_billing_answer(current: CurrentUsage, *, now: datetime) -> dict[str, Any]:
    """The body of ``POST /api/usage``. Usage counts complete days only: PostHog adds today by itself (L6).

    Events it does not count itself, so of these nothing is left for it to add. While a meter is paid, usage is the
    part that is charged, as on the billing page: that is what its limit is compared with (D1).
    """
    organization, period, meters = current.organization, current.period, current.meters
    customer = organization.customer
    keys = [*ALWAYS_SUMMARIZED, *meters.counter_by_meter, *meters.event_meters, *customer.quotas]
    trial_end = customer.free_trial_until
    return {
        "license": {"type": customer.license_type},
        "customer": {
            "customer_id": customer.customer_id,
            "has_active_subscription": customer.has_active_subscription,
            "free_trial_until": None if trial_end is None else trial_end.isoformat(),
            "billing_period": {
                "current_period_start": period.start.isoformat(),
                "current_period_end": period.end.isoformat(),
                "interval": str(organization.schedule.interval),
            },
            "usage_summary": {
                key: {
                    "usage": quantity_against_limit(
                        _finished_usage(current, key), customer.billing_terms.get(key, ()), period, now=now
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


def _finished_usage(current: CurrentUsage, meter: str) -> MeteredUsage:
    """What finished days made of a meter, and what lies before each cut."""
    meters, counters = current.meters, current.usage.counters if current.usage else {}
    counter, fed_by_events = meters.counter_in(meter, current.period) or "", meters.event_meters.get(meter)
    total = current.event_usage.get(meter)
    if total is None and (fed_by_events is None or not fed_by_events.carried):
        total = counters.get(counter, NOTHING_USED).complete
    return metered_usage(
        meter,
        totals={} if total is None else {meter: total},
        cuts={
            at: {meter: used.counters.get(counter, 0)} if fed_by_events is None else used.events
            for at, used in current.cuts.items()
        },
        earlier=current.earlier_event_usage,
        aggregation="sum" if fed_by_events is None else fed_by_events.aggregation.value,
        carried=fed_by_events is not None and fed_by_events.carried,
    )


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
            "free_trial_until": None,
            "billing_period": None,
            "usage_summary": {},
            "never_drop_data": False,
            "customer_trust_scores": {},
            "available_product_features": [],
            "products": None,
        },
    }
