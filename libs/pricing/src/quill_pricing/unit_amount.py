"""Exact unit prices: up to 12 decimal places of a currency unit, held as integers."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Self

from quill_pricing.currency import minor_unit_places
from quill_pricing.money import Money

UNIT_AMOUNT_PLACES = 12
"""Decimal places of a currency unit that a unit price may have (L11)."""

_SCALE = 10**UNIT_AMOUNT_PLACES
_WHOLE_DIGITS_MAX = 15
_DECIMAL = re.compile(rf"([0-9]{{1,{_WHOLE_DIGITS_MAX}}})(?:\.([0-9]{{1,{UNIT_AMOUNT_PLACES}}}))?")


class InvalidUnitAmount(ValueError):
    """The value is not a unit price: an exact decimal of 0 or more with at most 12 places."""


@dataclass(frozen=True, slots=True, order=True)
class UnitAmount:
    """The price of one unit, exact. Products with it are exact too; only ``rounding`` makes money of them (L11).

    Attributes:
        scaled: the price in 10**-12 of a currency unit, 0 or more.
    """

    scaled: int

    def __post_init__(self) -> None:
        if type(self.scaled) is not int:
            raise InvalidUnitAmount(f"a scaled unit amount is an int, not {type(self.scaled).__name__}")
        if self.scaled < 0:
            raise InvalidUnitAmount("a unit amount is never negative")

    @classmethod
    def from_decimal_string(cls, text: str) -> Self:
        """Read a price in major units, e.g. ``"0.00005"`` dollars.

        Raises:
            InvalidUnitAmount: not a plain decimal string (no float, sign, exponent or NaN), or more than 12 places.
        """
        match = _DECIMAL.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidUnitAmount(
                f"{str(text)[:60]!r} is not a decimal string of 0 or more such as '0.00005' "
                f"with at most {_WHOLE_DIGITS_MAX} digits and {UNIT_AMOUNT_PLACES} decimal places"
            )
        return cls(int(match[1] + (match[2] or "").ljust(UNIT_AMOUNT_PLACES, "0")))

    @classmethod
    def from_money(cls, amount: Money) -> Self:
        """The price of something sold for a whole number of minor units.

        Raises:
            InvalidUnitAmount: the amount is negative.
        """
        return cls(amount.amount_minor * sub_units_of(amount.currency))

    def to_decimal_string(self) -> str:
        """The shortest exact decimal string in major units: ``"0.00005"``, ``"20"``, ``"0"``."""
        return exact_decimal_string(self.scaled)


def exact_decimal_string(scaled: int) -> str:
    """The shortest exact decimal string of an amount of 0 or more counted in 10**-12 of a currency unit."""
    whole, fraction = divmod(scaled, _SCALE)
    return f"{whole}.{fraction:0{UNIT_AMOUNT_PLACES}d}".rstrip("0").rstrip(".")


@cache
def sub_units_of(currency: str) -> int:
    """How many 10**-12 of a currency unit make one minor unit: 10**10 for ``usd``."""
    return int(10 ** (UNIT_AMOUNT_PLACES - minor_unit_places(currency)))
