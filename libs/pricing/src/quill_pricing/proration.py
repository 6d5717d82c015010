"""Proration: the share of an amount that a part of a billing period owes."""

from datetime import timedelta
from fractions import Fraction

from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.rounding import to_minor_units

_TICK = timedelta(microseconds=1)


class InvalidProration(ValueError):
    """The part is not within the whole."""


def prorate(amount: Money, whole: BillingPeriod, part: BillingPeriod) -> Money:
    """The share of ``amount`` for ``part`` of ``whole``, by elapsed time, rounded half up once (L11).

    Several parts prorated one by one may miss the whole by a minor unit.

    Raises:
        InvalidProration: some of ``part`` is outside ``whole``.
    """
    if not whole.covers(part):
        raise InvalidProration(f"{part.start} to {part.end} is not within {whole.start} to {whole.end}")
    share = Fraction(part.duration // _TICK, whole.duration // _TICK)
    return Money(to_minor_units(amount.amount_minor * share), amount.currency)
