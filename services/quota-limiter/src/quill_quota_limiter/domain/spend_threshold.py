"""An amount of money that a meter's cost reaches, and that somebody wants to be told of, once per billing period."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quill_pricing.budget import greatest_quantity_within
from quill_pricing.money import Money
from quill_pricing.price import FlatPrice, Price, price_from_document
from quill_pricing.rating import amount_minor

from quill_quota_limiter.domain.limit_decision import Inputs


class ImpossibleSpend(ValueError):
    """A threshold that nothing could ever reach.

    Attributes:
        code: a word for machines.
        attr: the field at fault.
    """

    def __init__(self, code: str, message: str, *, attr: str) -> None:
        super().__init__(message)
        self.code = code
        self.attr = attr


@dataclass(frozen=True, slots=True)
class SpendReached:
    """A meter's cost has come to ``spend``, which is ``amount`` or more.

    Attributes:
        amount: the threshold, in the currency of the price.
        spend: what the meter costs so far in the billing period.
        units: the fewest units that cost ``amount``; never more than were used.
    """

    amount: Money
    spend: Money
    units: int


def spend_reached(
    amounts: Sequence[Money], inputs: Inputs, price: Mapping[str, Any] | None
) -> tuple[SpendReached, ...]:
    """The amounts that a meter's cost has reached, in rising order; exact to the minor unit (L11).

    A meter whose price is unknown, in another currency or flat reaches none: thresholds are refused for that when they
    are set, and the price may change later.

    Args:
        amounts: what to tell of.
        inputs: usage and entitlement of the meter in the billing period.
        price: the price document; ``None`` when no price is known.
    """
    metered = _metered(price)
    if not amounts or metered is None:
        return ()
    spend = spend_of(inputs, metered)
    return tuple(
        SpendReached(amount, spend, _units_costing(metered, amount))
        for amount in sorted(amount for amount in amounts if amount.currency == spend.currency)
        if spend >= amount
    )


def spend_of(inputs: Inputs, price: Price) -> Money:
    """What the invoice would ask for the period's usage now, tiers and free units included (L12).

    A meter that was not paid at any time of the period costs nothing; one that was cancelled in it still costs what was
    used before. Each tier's line is rounded once, half up, as on the invoice (L11). A paid meter of which nothing is
    reported costs what a usage of 0 costs: the flat amount of the first tier, if it has one.
    """
    billed = inputs.billed
    return Money.zero(price.currency) if billed is None else Money(amount_minor(price, billed), price.currency)


def check_amounts(
    amounts: Sequence[int], usage_key: str, *, price: Mapping[str, Any] | None, currency: str | None
) -> tuple[Money, ...]:
    """The amounts as money in the currency of the price, in rising order, each once.

    Args:
        amounts: minor units, 1 or more.
        usage_key: the meter, for the message.
        price: its price document; ``None`` when no price is known.
        currency: what the person believes the price is in; ``None`` for whatever it is.

    Raises:
        ImpossibleSpend: the price is unknown or flat, or in another currency.
    """
    if price is None:
        why = f"the price of {usage_key} is not known here; wait for the customer's next snapshot, or tell by percents"
        raise ImpossibleSpend("price_unknown", why, attr="meter")
    metered = _metered(price)
    if metered is None:
        why = f"the price of {usage_key} is flat, so its cost does not follow usage; tell by percents instead"
        raise ImpossibleSpend("price_is_flat", why, attr="meter")
    if currency is not None and currency != metered.currency:
        why = f"the price of {usage_key} is in {metered.currency}, not {currency}; give amounts in {metered.currency}"
        raise ImpossibleSpend("currency_mismatch", why, attr="currency")
    return tuple(Money(amount, metered.currency) for amount in sorted(set(amounts)))


def documents_of(amounts: Sequence[Money]) -> list[dict[str, Any]]:
    """Amounts as they are recorded and shown."""
    return [{"amount_minor": amount.amount_minor, "currency": amount.currency} for amount in amounts]


def _metered(price: Mapping[str, Any] | None) -> Price | None:
    """The price, if its cost follows usage."""
    parsed = None if price is None else price_from_document(price)
    return None if isinstance(parsed, FlatPrice) else parsed


def _units_costing(price: Price, amount: Money) -> int:
    """The first quantity that costs the amount, counted up unit by unit; some quantity is known to."""
    if amount_minor(price, 0) >= amount.amount_minor:
        return 0
    below = greatest_quantity_within(price=price, budget=amount - Money(1, amount.currency))
    assert below is not None  # a cost of the amount or more was just seen
    return below + 1
