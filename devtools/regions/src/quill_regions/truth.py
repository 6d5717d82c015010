"""What is really so, by arithmetic a person can follow, written apart from everything it checks.

Nothing here imports Quill's pricing or services: a mistake shared with them would hide itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

from quill_contracts.catalog_file import CatalogDocument, ProductDocument
from quill_contracts.prices import PriceDocument

from quill_regions.days import live_through
from quill_regions.organizations import Organization

CENT = Decimal("0.01")
RECORDINGS_BUFFER = 1_000
GRACED_METERS = frozenset({"feature_flag_requests"})
"""Meters that are suspended for two days before they are limited, whoever the customer is (wire contract 4)."""

Totals = dict[str, dict[str, int]]
"""organization id → usage key → quantity."""


def month_totals(
    organizations: Sequence[Organization], days: Iterable[date], *, seed: int, catalog: CatalogDocument
) -> Totals:
    """Add up what happened, day by day and team by team."""
    meters_of: dict[str, list[str]] = defaultdict(list)
    for product in catalog.products:
        if product.counter and product.usage_key:
            meters_of[product.counter].append(product.usage_key)
    totals: dict[str, dict[str, int]] = {}
    dates = list(days)
    for organization in organizations:
        added: dict[str, int] = defaultdict(int)
        for on in dates:
            for counters in live_through(organization, on, seed=seed).teams.values():
                for counter, count in counters.items():
                    for meter in meters_of.get(counter, []):
                        added[meter] += count
        totals[organization.organization_id] = dict(added)
    return totals


def tier_amounts(price: PriceDocument, quantity: int) -> list[Decimal]:
    """The rounded amount of each invoice line, in dollars: walk up the tiers and pay for what lies in each."""
    if price.model == "flat":
        return [Decimal(price.amount or 0)]
    if price.model == "per_unit":
        return [_round(Decimal(price.unit_amount or 0) * quantity)] if quantity else []
    if price.model == "package":
        size = price.package_size or 1
        return [Decimal(price.package_amount or 0) * -(-quantity // size)] if quantity else []
    amounts: list[Decimal] = []
    below = 0
    for number, tier in enumerate(price.tiers or []):
        if quantity <= below and number > 0:
            break
        reached = quantity if tier.up_to is None else min(quantity, tier.up_to)
        inside = reached - below
        if price.model == "volume":
            if tier.up_to is not None and quantity > tier.up_to:
                below = tier.up_to
                continue
            inside = quantity
        amounts.append(_round(Decimal(tier.unit_amount or 0) * inside))
        if tier.flat_amount is not None:
            amounts.append(Decimal(tier.flat_amount))
        below = reached
    return amounts


def amount(price: PriceDocument, quantity: int) -> Decimal:
    """What the quantity costs, in dollars."""
    return sum(tier_amounts(price, quantity), Decimal(0))


def quota(product: ProductDocument, organization: Organization) -> int | None:
    """How much may be used: the free units, or what the budget buys (found by halving); None without a bound."""
    if organization.plan == "free":
        return product.allowance
    budget = organization.billing_limits_usd.get(product.key)
    if budget is None:
        return None
    low, high = 0, 10**15
    while low < high:
        middle = (low + high + 1) // 2
        if amount(product.price, middle) <= budget:
            low = middle
        else:
            high = middle - 1
    return max(low, product.allowance)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the end of the month must show for one organization."""

    usage: dict[str, int]
    limited: frozenset[str]
    never_allowed: frozenset[str]
    """Meters of which nothing may be used: limited from the first unit of every period."""
    invoice_total: Decimal | None
    """None for organizations without a subscription: they get no invoice."""


def expectations(
    organizations: Sequence[Organization], totals: Totals, *, catalog: CatalogDocument, unpaid: Totals
) -> dict[str, Expected]:
    """Usage, limits and invoice of every organization at the end of the month.

    ``unpaid`` is what lies before the subscriptions: they begin in the first moments of the month's first day, and no
    region has told of that day by then, so the whole day counts as used before (D4). It is neither charged nor
    compared with a subscriber's limit.
    """
    metered = [product for product in catalog.products if product.usage_key]
    expected = {}
    for organization in organizations:
        usage = totals[organization.organization_id]
        limited = set()
        never_allowed = set()
        invoice = Decimal(0)
        for product in metered:
            used = usage.get(product.usage_key or "", 0)
            if organization.plan != "free":
                used -= unpaid[organization.organization_id].get(product.usage_key or "", 0)
            allowed = quota(product, organization)
            buffer = RECORDINGS_BUFFER if product.usage_key == "recordings" else 0
            if allowed is not None and used >= allowed + buffer:
                limited.add(product.usage_key or "")
                if allowed + buffer == 0:
                    never_allowed.add(product.usage_key or "")
            invoice += amount(product.price, used if allowed is None else min(used, allowed))
        expected[organization.organization_id] = Expected(
            usage=usage,
            limited=frozenset(limited),
            never_allowed=frozenset(never_allowed),
            invoice_total=None if organization.plan == "free" else invoice,
        )
    return expected


def _round(exact: Decimal) -> Decimal:
    return exact.quantize(CENT, ROUND_HALF_UP)
