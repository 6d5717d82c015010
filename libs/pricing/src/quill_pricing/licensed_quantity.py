"""What a licensed product (seats, a flat fee) costs in a billing period in which its quantity changes.

The words of this module:

* A *step* says which quantity is held from an instant on, and at which price. Quantity 0 means that nothing is held:
  there is no subscription, or a trial runs. It costs nothing, whatever the price says of 0 units.
* ``price(n)`` is the rated amount of n units, the sum of its rounded lines (L11).

Invoices and the billing page call this module, so they cannot disagree.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.price import Price
from quill_pricing.proration import prorate
from quill_pricing.quantity import check_quantity
from quill_pricing.rating import amount_minor


@dataclass(frozen=True, slots=True)
class LicensedStep:
    """From ``at`` on, until the next step, ``quantity`` units are held at ``price``.

    Raises:
        InvalidQuantity: the quantity is not a whole number of 0 or more.
    """

    at: datetime
    quantity: int
    price: Price

    def __post_init__(self) -> None:
        check_quantity(self.quantity)

    @property
    def full_amount(self) -> Money:
        """What the quantity costs if it is held for a whole period."""
        return Money(amount_minor(self.price, self.quantity) if self.quantity else 0, self.price.currency)


@dataclass(frozen=True, slots=True)
class LicensedLine:
    """One explained amount; negative for what is given back.

    Attributes:
        before: the quantity that the lines before this one pay for; 0 when they pay for nothing.
        quantity: the quantity paid for from ``span.start`` on.
        price: what it is held at.
        span: from the change, or from the start of the period, to the end of the period.
        amount: rounded half up, once (L11).
    """

    before: int
    quantity: int
    price: Price
    span: BillingPeriod
    amount: Money


def licensed_lines(steps: Sequence[LicensedStep], period: BillingPeriod) -> tuple[LicensedLine, ...]:
    """The lines of one licensed product for one billing period, by the instant that they bill from.

    A price that is prorated makes one line in full for the quantity at the start of the period. Each change makes one
    line HU((price(new) - price(old)) x time left / time of the period), where HU rounds half up. A price that is not
    prorated makes one line in full: the quantity at the end of the last span in which anything is held. The price of
    that span decides which of the two holds.

    Args:
        steps: in any order; of several at one instant the last given holds. Before the first nothing is held.
        period: the billing period. Steps at its end or later belong to the next one.

    Raises:
        CurrencyMismatch: the prices are in several currencies.
    """
    inside = _steps_within(steps, period)
    held = [step for step in inside if step.quantity]
    if not held:
        return ()
    if not held[-1].price.prorated:
        return (LicensedLine(0, held[-1].quantity, held[-1].price, period, held[-1].full_amount),)
    return tuple(_prorated(inside, period))


def licensed_amount(steps: Sequence[LicensedStep], period: BillingPeriod, *, currency: str = "usd") -> Money:
    """The sum of ``licensed_lines``; zero in ``currency`` when there is none.

    Raises:
        CurrencyMismatch: the prices are in several currencies, or in another one than ``currency``.
    """
    return Money.sum_of((line.amount for line in licensed_lines(steps, period)), currency)


def _prorated(steps: Sequence[LicensedStep], period: BillingPeriod) -> Iterator[LicensedLine]:
    """One line per step after the first, which says what is held at the start of the period."""
    if steps[0].quantity:
        yield LicensedLine(0, steps[0].quantity, steps[0].price, period, steps[0].full_amount)
    for old, new in pairwise(steps):
        if (old.quantity, old.price) == (new.quantity, new.price) or old.quantity == new.quantity == 0:
            continue
        left = BillingPeriod(new.at, period.end)
        yield LicensedLine(old.quantity, new.quantity, new.price, left, prorate(_difference(old, new), period, left))


def _difference(old: LicensedStep, new: LicensedStep) -> Money:
    """What a whole period costs more. A side that holds nothing has no currency of its own."""
    if not old.quantity:
        return new.full_amount
    return new.full_amount - old.full_amount if new.quantity else -old.full_amount


def _steps_within(steps: Sequence[LicensedStep], period: BillingPeriod) -> list[LicensedStep]:
    """The step in force at the start of the period, and each later one inside it; oldest first, one per instant."""
    by_instant = {max(step.at, period.start): step for step in sorted(steps, key=lambda step: step.at)}
    inside = [LicensedStep(at, step.quantity, step.price) for at, step in sorted(by_instant.items()) if at < period.end]
    if inside and inside[0].at > period.start:
        inside.insert(0, LicensedStep(period.start, 0, inside[0].price))
    return inside
