"""The inverse of rating: how much may be used for a given amount of money."""

from collections.abc import Iterator

from quill_pricing.money import CurrencyMismatch, Money
from quill_pricing.price import Price, VolumePrice
from quill_pricing.quantity import QUANTITY_MAX, check_quantity
from quill_pricing.rating import amount_minor


def greatest_quantity_within(*, price: Price, budget: Money, at_least: int = 0) -> int | None:
    """The greatest quantity that can be reached, unit by unit, without the rated amount ever exceeding the budget.

    For a flat, per-unit, package or graduated price the amount never falls as the quantity rises, so this is simply the
    greatest quantity whose amount stays within the budget: amount(q) <= budget < amount(q + 1). A volume price may
    jump up or down at a tier, and a customer counts up through every quantity: the first one over the budget is the
    end, even if a larger quantity would be cheaper again. The amount compared is the rounded one that is billed (L11),
    so a few units that still round to nothing fit a budget of zero.

    Args:
        price: what is paid.
        budget: the most that may be owed for the billing period, in the currency of the price.
        at_least: the answer is never below this quantity (an allowance is not taken away by a billing limit).

    Returns:
        The quantity; ``at_least`` when not even quantity 0 fits (a flat price, or the flat amount of the first tier,
        above the budget); None when no quantity that can exist exceeds the budget (a last tier that is free, a flat
        price within the budget).

    Raises:
        CurrencyMismatch: budget and price are in two currencies.
        InvalidQuantity: ``at_least`` is not a quantity.
    """
    check_quantity(at_least)
    if budget.currency != price.currency:
        raise CurrencyMismatch(budget.currency, price.currency)
    for first, last in _rising_stretches(price):
        if amount_minor(price, last) > budget.amount_minor:
            return max(at_least, _last_within(price, budget.amount_minor, first, last))
    return None


def _rising_stretches(price: Price) -> Iterator[tuple[int, int]]:
    """Spans of quantities, in order, within each of which the amount never falls; together every quantity above 0."""
    if not isinstance(price, VolumePrice):
        yield 1, QUANTITY_MAX
        return
    for tier, floor in zip(price.tiers, price.schedule.floors, strict=True):
        last = QUANTITY_MAX if tier.up_to is None else tier.up_to
        if floor < last:
            yield floor + 1, last


def _last_within(price: Price, budget_minor: int, first: int, last: int) -> int:
    """The quantity before the first of ``first..last`` whose amount exceeds the budget; the amount at ``last`` does.

    At most 63 rounds: each halves a span of at most ``QUANTITY_MAX``.
    """
    while first < last:
        middle = (first + last) // 2
        if amount_minor(price, middle) > budget_minor:
            last = middle
        else:
            first = middle + 1
    return first - 1
