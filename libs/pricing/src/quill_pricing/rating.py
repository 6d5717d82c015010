"""Rating: a price times a quantity, as money with the lines that explain it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, assert_never

from quill_pricing.money import Money
from quill_pricing.price import FlatPrice, GraduatedPrice, PackagePrice, PerUnitPrice, Price, VolumePrice
from quill_pricing.quantity import check_quantity
from quill_pricing.rounding import to_minor_units
from quill_pricing.unit_amount import UnitAmount, exact_decimal_string, sub_units_of

LineKind = Literal["tier", "flat_fee", "package", "unit", "flat"]


@dataclass(frozen=True, slots=True)
class RatedLine:
    """One explained amount.

    Attributes:
        kind: ``tier`` units in a tier, ``flat_fee`` the flat amount of a tier reached, ``package`` packages begun,
            ``unit`` units at one price, ``flat`` the amount of a flat price.
        tier_index: the tier from 0; None for a price without tiers.
        first_unit: the first unit of the period that the line pays for, from 1; None for a fee.
        last_unit: the last one, inclusive; None for a fee.
        quantity: what is multiplied: units, packages (kind ``package``), or 1 for a fee.
        exact_unit_amount: what one of them costs.
        amount: ``exact_amount`` rounded half up, once (L11).
    """

    kind: LineKind
    tier_index: int | None
    first_unit: int | None
    last_unit: int | None
    quantity: int
    exact_unit_amount: UnitAmount
    amount: Money

    @property
    def unit_amount(self) -> str:
        """What one costs, as an exact decimal string in major units."""
        return self.exact_unit_amount.to_decimal_string()

    @property
    def exact_amount(self) -> str:
        """Quantity x unit amount before rounding, as an exact decimal string in major units."""
        return exact_decimal_string(self.quantity * self.exact_unit_amount.scaled)


@dataclass(frozen=True, slots=True)
class Rating:
    """What a quantity costs, and why. ``total`` is the sum of the rounded lines (L11)."""

    quantity: int
    currency: str
    lines: tuple[RatedLine, ...]
    total: Money


def rate(*, price: Price, quantity: int) -> Rating:
    """Price a quantity, with one line per tier reached and one per flat amount of a tier reached (L11).

    The first tier is reached at quantity 0, every other by its first unit. So a period without usage owes the flat
    amount of the first tier, as at Stripe. A line needs at least one unit or a flat amount: without usage there is no
    line of units. Stripe sometimes writes one of quantity 0 there, so a comparison must accept both. A flat price is
    owed whatever the quantity.

    Raises:
        InvalidQuantity: the quantity is not a whole number of 0 or more.
    """
    check_quantity(quantity)
    lines = tuple(_lines(price, quantity))
    total = Money.sum_of((line.amount for line in lines), price.currency)
    return Rating(quantity=quantity, currency=price.currency, lines=lines, total=total)


def amount_minor(price: Price, quantity: int) -> int:
    """The total of ``rate`` in minor units, without its lines: one search and one multiplication.

    Raises:
        InvalidQuantity: the quantity is not a whole number of 0 or more.
    """
    check_quantity(quantity)
    match price:
        case GraduatedPrice():
            return price.schedule.graduated_minor(quantity)
        case VolumePrice():
            return price.schedule.volume_minor(quantity)
        case FlatPrice():
            return price.amount.amount_minor
        case PerUnitPrice():
            return _units_minor(quantity, price.unit_amount, price.currency)
        case PackagePrice():
            return _packages(quantity, price.package_size) * price.package_amount.amount_minor
        case _:
            assert_never(price)


def _lines(price: Price, quantity: int) -> Iterator[RatedLine]:
    match price:
        case FlatPrice():
            yield _fee_line("flat", None, price.amount)
        case PerUnitPrice():
            if quantity > 0:
                yield _units_line("unit", (1, quantity), price.unit_amount, price.currency, tier_index=None)
        case PackagePrice():
            if quantity > 0:
                yield _package_line(price, quantity)
        case GraduatedPrice():
            yield from _graduated_lines(price, quantity)
        case VolumePrice():
            yield from _tier_lines(price, price.schedule.index_of(quantity), 1, quantity)
        case _:
            assert_never(price)


def _graduated_lines(price: GraduatedPrice, quantity: int) -> Iterator[RatedLine]:
    for index, (tier, floor) in enumerate(zip(price.tiers, price.schedule.floors, strict=True)):
        if quantity <= floor and index > 0:
            return
        last_unit = quantity if tier.up_to is None else min(quantity, tier.up_to)
        yield from _tier_lines(price, index, floor + 1, last_unit)


def _tier_lines(
    price: GraduatedPrice | VolumePrice, index: int, first_unit: int, last_unit: int
) -> Iterator[RatedLine]:
    tier = price.tiers[index]
    if last_unit >= first_unit:
        yield _units_line("tier", (first_unit, last_unit), tier.unit_amount, price.currency, tier_index=index)
    if tier.flat_amount is not None:
        yield _fee_line("flat_fee", index, tier.flat_amount)


def _units_line(
    kind: LineKind, units: tuple[int, int], unit_amount: UnitAmount, currency: str, *, tier_index: int | None
) -> RatedLine:
    first_unit, last_unit = units
    quantity = last_unit - first_unit + 1
    return RatedLine(
        kind=kind,
        tier_index=tier_index,
        first_unit=first_unit,
        last_unit=last_unit,
        quantity=quantity,
        exact_unit_amount=unit_amount,
        amount=Money(_units_minor(quantity, unit_amount, currency), currency),
    )


def _package_line(price: PackagePrice, quantity: int) -> RatedLine:
    packages = _packages(quantity, price.package_size)
    return RatedLine(
        kind="package",
        tier_index=None,
        first_unit=1,
        last_unit=quantity,
        quantity=packages,
        exact_unit_amount=UnitAmount.from_money(price.package_amount),
        amount=Money(packages * price.package_amount.amount_minor, price.currency),
    )


def _fee_line(kind: LineKind, tier_index: int | None, amount: Money) -> RatedLine:
    return RatedLine(
        kind=kind,
        tier_index=tier_index,
        first_unit=None,
        last_unit=None,
        quantity=1,
        exact_unit_amount=UnitAmount.from_money(amount),
        amount=amount,
    )


def _units_minor(quantity: int, unit_amount: UnitAmount, currency: str) -> int:
    return to_minor_units(quantity * unit_amount.scaled, sub_units=sub_units_of(currency))


def _packages(quantity: int, package_size: int) -> int:
    """Packages begun: division rounded up. Counting packages is not rounding money."""
    return -(-quantity // package_size)
