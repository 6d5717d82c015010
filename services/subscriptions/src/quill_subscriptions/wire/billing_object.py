"""The object of ``GET /api/billing`` (wire contract 3): money as decimal strings, instants with an explicit offset."""

from datetime import datetime
from typing import Any

from quill_pricing.money import Money
from quill_pricing.price import FlatPrice, Price

from quill_subscriptions.domain.customer import Customer
from quill_subscriptions.domain.entitlements import Entitlements, Item
from quill_subscriptions.domain.standing import ProductStanding, Standing
from quill_subscriptions.wire.catalog import feature_to_wire
from quill_subscriptions.wire.offer import product_document, tier_documents

REQUIRED_METERS = ("events", "recordings")
"""PostHog's client fails when ``usage_summary`` lacks one of these."""
PERCENTAGE_STEPS = 10_000


def billing_object(customer: Customer, standing: Standing, *, license_type: str, forecast: bool) -> dict[str, Any]:
    """Everything the product shows a customer. Without ``forecast`` all projections are null."""
    entitlements = standing.entitlements
    limits = entitlements.billing_limits
    total = standing.owed.to_decimal_string()
    projected = _money(standing.projected) if forecast else None
    projected_with_limit = _money(standing.projected_with_limit) if forecast else None
    return {
        "license": {"type": license_type},
        "customer": {
            "customer_id": customer.customer_id,
            "deactivated": False,
            "has_active_subscription": customer.subscription is not None,
            "subscription_level": "free" if customer.subscription is None else "paid",
            "billing_plan": _billing_plan(entitlements),
            "is_annual_plan_customer": "year" in customer.interval,
            "billing_period": {
                "current_period_start": _instant(entitlements.period.start),
                "current_period_end": _instant(entitlements.period.end),
                "interval": "year" if "year" in customer.interval else "month",
            },
            **features_document(entitlements),
            "products": [_product(product, forecast=forecast) for product in standing.products],
            "usage_summary": _usage_summary(standing),
            "custom_limits_usd": dict(limits.in_force),
            "next_period_custom_limits_usd": dict(limits.next_period),
            "customer_trust_scores": dict(customer.trust_scores),
            "never_drop_data": customer.never_drop_data,
            "current_total_amount_usd": total,
            "current_total_amount_usd_after_discount": total,
            "projected_total_amount_usd": projected,
            "projected_total_amount_usd_after_discount": projected,
            "projected_total_amount_usd_with_limit": projected_with_limit,
            "projected_total_amount_usd_with_limit_after_discount": projected_with_limit,
            "discount_percent": None,
            "discount_amount_usd": None,
            "amount_off_expires_at": None,
            "free_trial_until": None if customer.free_trial_until is None else _instant(customer.free_trial_until),
            "trial": None,
            "startup_program_label": None,
            "startup_program_label_previous": None,
            "account_owner": None,
        },
    }


def features_document(entitlements: Entitlements) -> dict[str, Any]:
    """What the customer may use; also the whole answer of the endpoint of that name."""
    features = [feature_to_wire(feature).model_dump(mode="json") for feature in entitlements.features]
    return {"available_product_features": features}


def _usage_summary(standing: Standing) -> dict[str, Any]:
    """Finished days only: PostHog adds the day it still counts itself, which must not be in here as well (L6)."""
    summary: dict[str, Any] = {key: {"usage": 0, "limit": None} for key in REQUIRED_METERS}
    for product in standing.products:
        if product.item.product.usage_key is not None:
            summary[product.item.product.usage_key] = {"usage": product.finished_usage, "limit": product.item.quota}
    return summary


def _product(product: ProductStanding, *, forecast: bool) -> dict[str, Any]:
    item = product.item
    return {
        **product_document(item.product, subscribed=item.subscribed),
        "usage_limit": item.quota,
        "has_exceeded_limit": product.has_exceeded_limit,
        "percentage_usage": _percentage(product.finished_usage, item.quota),
        "current_usage": product.finished_usage,
        "projected_usage": product.projected_usage if forecast else None,
        "tiers": tier_documents(_billed_price(item), product.rating, owed=_is_owed_by_tier(product)),
        "current_amount_usd": _money(product.owed),
        "current_amount_usd_before_addons": _money(product.owed),
        "projected_amount_usd": _money(product.projected) if forecast else None,
        "projected_amount_usd_with_limit": _money(product.projected_with_limit) if forecast else None,
        "addons": [],
    }


def _is_owed_by_tier(product: ProductStanding) -> bool:
    """Whether the tiers explain what is owed. For seats that changed they do not: the sum of tiers is prorated."""
    return product.is_owed and product.owed == product.rating.total


def _billed_price(item: Item) -> Price:
    """The price that the amounts of the open billing period come from, also after a cancellation in it."""
    return (item.billed_product or item.product).price


def _percentage(usage: int, quota: int | None) -> float:
    """A ratio to draw a bar with, 1 = all used; 0 when there is no limit. Nothing is ever reckoned from it."""
    if not quota:
        return 0
    return (usage * PERCENTAGE_STEPS // quota) / PERCENTAGE_STEPS


def _billing_plan(entitlements: Entitlements) -> str | None:
    """The platform plan: the subscribed product with a flat price, if any."""
    flat = (i.product.key for i in entitlements.items if i.subscribed and isinstance(i.product.price, FlatPrice))
    return next(flat, None)


def _money(amount: Money) -> str:
    return amount.to_decimal_string()


def _instant(instant: datetime) -> str:
    return instant.isoformat()
