"""What a quantity costs at a Stripe price: one part per tier and per flat fee, each rounded half up on its own (L11).

Written apart from the product's rating on purpose: were they one, a single mistake would hide in both (L16). Amounts
are minor units; unit amounts are exact decimals in minor units.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

_PRECISION = 60


@dataclass(frozen=True, slots=True)
class RatedPart:
    """One future invoice line.

    Attributes:
        amount: Minor units, rounded half up.
        unit_amount: Minor units per unit, exact; None for a flat fee.
        tier: Number of the tier from 1, or None for a price without tiers.
        is_flat: Whether the part is a tier's flat fee.
    """

    amount: int
    quantity: int
    unit_amount: Decimal | None
    tier: int | None
    is_flat: bool


def rate(price: Mapping[str, Any], quantity: int) -> list[RatedPart]:
    """Prices a quantity.

    Args:
        price: A Stripe price, with its tiers.
        quantity: Whole units, zero or more.

    Returns:
        At least one part: no usage gives one part of quantity 0, as Stripe was seen to do, and the flat fee of the
        first tier, which counts as reached without any usage.
    """
    if quantity < 0:
        raise ValueError("a negative period total is billed as 0 before it is rated")
    if price["billing_scheme"] == "per_unit":
        return [_per_unit(price, quantity)]
    if price["tiers_mode"] == "volume":
        return list(_volume(price["tiers"], quantity))
    return list(_graduated(price["tiers"], quantity))


def rounded(amount: Decimal) -> int:
    """Rounds minor units half up; a negative half goes away from zero, as commercial rounding does."""
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def share(amount: int, *, numerator: int, denominator: int) -> int:
    """Returns a part of an amount for a part of a period, half up to the minor unit."""
    with localcontext() as context:
        context.prec = _PRECISION
        return rounded(Decimal(amount) * numerator / denominator)


def rated_units(quantity: int, unit_amount: Decimal) -> int:
    """Returns quantity times unit amount in minor units, multiplied exactly and rounded once."""
    with localcontext() as context:
        context.prec = _PRECISION
        return rounded(quantity * unit_amount)


def _per_unit(price: Mapping[str, Any], quantity: int) -> RatedPart:
    unit_amount = Decimal(price["unit_amount_decimal"])
    packages = price["transform_quantity"]
    billed = quantity
    if packages is not None:
        whole, rest = divmod(quantity, packages["divide_by"])
        billed = whole + (1 if rest and packages["round"] == "up" else 0)
    return RatedPart(
        amount=rated_units(billed, unit_amount), quantity=quantity, unit_amount=unit_amount, tier=None, is_flat=False
    )


def _graduated(tiers: list[Mapping[str, Any]], quantity: int) -> Iterator[RatedPart]:
    below = 0
    for number, tier in enumerate(tiers, start=1):
        top = quantity if tier["up_to"] is None else min(quantity, tier["up_to"])
        inside = max(0, top - below)
        if inside > 0 or number == 1:
            yield _tier_part(tier, number, inside)
            yield from _flat_part(tier, number)
        below = tier["up_to"] if tier["up_to"] is not None else quantity


def _volume(tiers: list[Mapping[str, Any]], quantity: int) -> Iterator[RatedPart]:
    for number, tier in enumerate(tiers, start=1):
        if tier["up_to"] is None or quantity <= tier["up_to"]:
            yield _tier_part(tier, number, quantity)
            yield from _flat_part(tier, number)
            return


def _tier_part(tier: Mapping[str, Any], number: int, inside: int) -> RatedPart:
    unit_amount = Decimal(tier["unit_amount_decimal"] or 0)
    return RatedPart(
        amount=rated_units(inside, unit_amount), quantity=inside, unit_amount=unit_amount, tier=number, is_flat=False
    )


def _flat_part(tier: Mapping[str, Any], number: int) -> Iterator[RatedPart]:
    """A flat fee of 0 is a line too: what matters is whether the tier has one."""
    if tier["flat_amount_decimal"] is not None:
        fee = rounded(Decimal(tier["flat_amount_decimal"]))
        yield RatedPart(amount=fee, quantity=0, unit_amount=None, tier=number, is_flat=True)
