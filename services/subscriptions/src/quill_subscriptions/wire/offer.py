"""Products as PostHog's page lists them, with or without a customer's numbers (wire contract 3)."""

from collections.abc import Iterable
from typing import Any

from quill_pricing.price import FlatPrice, GraduatedPrice, PackagePrice, PerUnitPrice, Price, VolumePrice
from quill_pricing.rating import Rating

from quill_subscriptions.domain.catalog import Catalog, Feature, Product
from quill_subscriptions.wire.catalog import feature_to_wire

STANDARD_PLAN = "standard"
FREE_PLAN = "free"
ZERO_USD = "0.00"


def offer_document(catalog: Catalog) -> dict[str, Any]:
    """The answer of ``GET /api/products-v2``: every product in force at its standard price."""
    return {
        "products": [
            {**product_document(product, subscribed=None), "tiers": tier_documents(product.price), "addons": []}
            for product in catalog.in_force
        ]
    }


def product_document(product: Product, *, subscribed: bool | None) -> dict[str, Any]:
    """What a product is and costs. Both ``type`` and ``usage_key`` are always there: PostHog maps one to the other."""
    return {
        "type": product.key,
        "usage_key": product.usage_key,
        "name": product.name,
        "headline": None,
        "description": product.description,
        "price_description": None,
        "icon_key": None,
        "image_url": None,
        "screenshot_url": None,
        "docs_url": None,
        "subscribed": subscribed,
        "contact_support": None,
        "inclusion_only": False,
        "legacy_product": False,
        "free_allocation": product.allowance if product.is_metered else None,
        "tiered": isinstance(product.price, GraduatedPrice | VolumePrice),
        "unit": product.unit,
        "unit_amount_usd": _unit_amount(product.price),
        "display_unit": None,
        "display_decimals": None,
        "display_divisor": None,
        "plans": [*_free_plan(product, subscribed=subscribed), _standard_plan(product, subscribed=subscribed)],
        "features": _features(product.features),
        "trial": None,
    }


def tier_documents(price: Price, rating: Rating | None = None, *, owed: bool = False) -> list[dict[str, Any]] | None:
    """The tiers of a price; with a rating, how full each is, and what it has cost so far if that is ``owed``."""
    if not isinstance(price, GraduatedPrice | VolumePrice):
        return None
    lines = () if rating is None else rating.lines
    used = {line.tier_index: line.quantity for line in lines if line.kind == "tier"}
    documents: list[dict[str, Any]] = []
    for index, tier in enumerate(price.tiers):
        amounts = [line.amount for line in lines if owed and line.tier_index == index]
        documents.append(
            {
                "flat_amount_usd": ZERO_USD if tier.flat_amount is None else tier.flat_amount.to_decimal_string(),
                "unit_amount_usd": tier.unit_amount.to_decimal_string(),
                "current_amount_usd": sum(amounts[1:], amounts[0]).to_decimal_string() if amounts else ZERO_USD,
                "current_usage": used.get(index, 0),
                "projected_usage": None,
                "projected_amount_usd": None,
                "up_to": tier.up_to,
            }
        )
    return documents


def _free_plan(product: Product, *, subscribed: bool | None) -> list[dict[str, Any]]:
    """Metered products are free up to their allowance (handbook V9)."""
    if not product.is_metered:
        return []
    return [
        {
            **_plan(product, key=f"{FREE_PLAN}-{product.key}", name="Free"),
            "free_allocation": product.allowance,
            "features": _features(product.free_features),
            "current_plan": None if subscribed is None else not subscribed,
            "is_free": True,
        }
    ]


def _standard_plan(product: Product, *, subscribed: bool | None) -> dict[str, Any]:
    return {
        **_plan(product, key=f"{STANDARD_PLAN}-{product.price_id}", name="Standard"),
        "flat_rate": isinstance(product.price, FlatPrice),
        "tiers": tier_documents(product.price),
        "free_allocation": product.allowance if product.is_metered else None,
        "features": _features(product.features),
        "current_plan": subscribed,
        "unit_amount_usd": _unit_amount(product.price),
        "is_free": False,
    }


def _plan(product: Product, *, key: str, name: str) -> dict[str, Any]:
    return {
        "plan_key": key,
        "product_key": product.key,
        "name": name,
        "description": product.description,
        "image_url": None,
        "docs_url": None,
        "note": None,
        "unit": product.unit,
        "flat_rate": False,
        "tiers": None,
        "included_if": None,
        "initial_billing_limit": None,
        "contact_support": None,
        "unit_amount_usd": None,
    }


def _features(features: Iterable[Feature]) -> list[dict[str, Any]]:
    return [feature_to_wire(feature).model_dump(mode="json") for feature in features]


def _unit_amount(price: Price) -> str | None:
    """What one unit (a package, the whole product) costs; null where that depends on the quantity."""
    match price:
        case PerUnitPrice():
            return price.unit_amount.to_decimal_string()
        case FlatPrice():
            return price.amount.to_decimal_string()
        case PackagePrice():
            return price.package_amount.to_decimal_string()
        case _:
            return None
