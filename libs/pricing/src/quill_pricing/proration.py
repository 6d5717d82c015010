"""Proration: the share of an amount that a part of a billing period owes."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.rounding import to_minor_units

_TICK = timedelta(microseconds=1)


class InvalidProration(ValueError):
    """The part is not within the whole, or the cuts do not fall inside it in order."""


def prorate(amount: Money, whole: BillingPeriod, part: BillingPeriod) -> Money:
    """The share of ``amount`` for ``part`` of ``whole``, by elapsed time, rounded half up once (L11).

    Several parts prorated one by one may miss the whole by a minor unit; ``prorate_parts`` never does.

    Raises:
        InvalidProration: some of ``part`` is outside ``whole``.
    """
    if not whole.covers(part):
        raise InvalidProration(f"{part.start} to {part.end} is not within {whole.start} to {whole.end}")
    share = Fraction(part.duration // _TICK, whole.duration // _TICK)
    return Money(to_minor_units(amount.amount_minor * share), amount.currency)


def prorate_parts(amount: Money, whole: BillingPeriod, cuts: Sequence[datetime]) -> tuple[Money, ...]:
    """The shares of the parts that ``cuts`` divide ``whole`` into; they sum to ``amount`` exactly.

    Args:
        amount: for the whole period.
        whole: the billing period.
        cuts: instants strictly inside it, strictly rising; none gives one part, the whole.

    Raises:
        InvalidProration: the cuts are not so.
        InvalidPeriod: a cut is not aware UTC.
    """
    edges = [whole.start, *cuts, whole.end]
    if any(cut not in whole for cut in cuts) or any(earlier >= later for earlier, later in pairwise(edges)):
        raise InvalidProration("cuts must lie strictly inside the whole period and rise strictly")
    return amount.split([(later - earlier) // _TICK for earlier, later in pairwise(edges)])
