"""Money: integer minor units of one currency."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from quill_pricing.currency import minor_unit_places

_DECIMAL = re.compile(r"(-?)([0-9]{1,40})(?:\.([0-9]{1,12}))?")


class InvalidMoney(ValueError):
    """The value is not an exact amount in whole minor units of a known currency."""


class CurrencyMismatch(ValueError):
    """Amounts of two currencies were put together; there is no exchange rate in billing arithmetic."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"cannot put {left} and {right} together")


class InvalidSplit(ValueError):
    """The weights of a split do not describe shares."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount that is owed, charged or credited (L11).

    Attributes:
        amount_minor: whole minor units (cents for ``usd``); negative for a credit.
        currency: lower-case ISO 4217 code.

    Raises:
        InvalidMoney: ``amount_minor`` is not an integer (a float and a bool are refused).
        UnknownCurrency: the currency is not known.
    """

    amount_minor: int
    currency: str = "usd"

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:
            raise InvalidMoney(f"amount_minor must be an int of minor units, not {type(self.amount_minor).__name__}")
        minor_unit_places(self.currency)

    @classmethod
    def zero(cls, currency: str = "usd") -> Self:
        """Nothing owed."""
        return cls(0, currency)

    @classmethod
    def from_decimal_string(cls, text: str, currency: str = "usd") -> Self:
        """Read an amount in major units, e.g. ``"393.00"`` or ``"-0.5"``.

        Raises:
            InvalidMoney: not a plain decimal, or more places than the currency's minor unit has. Nothing is rounded.
            UnknownCurrency: the currency is not known.
        """
        places = minor_unit_places(currency)
        match = _DECIMAL.fullmatch(text)
        if match is None:
            raise InvalidMoney(f"{text[:60]!r} is not a decimal amount such as '393.00'")
        sign, whole, fraction = match[1], match[2], match[3] or ""
        if len(fraction) > places:
            raise InvalidMoney(f"{text!r} has more than the {places} decimal places of {currency}")
        magnitude = int(whole + fraction.ljust(places, "0"))
        return cls(-magnitude if sign else magnitude, currency)

    @classmethod
    def sum_of(cls, amounts: Iterable["Money"], currency: str = "usd") -> Self:
        """The sum of amounts that are all in ``currency``; zero when there are none.

        Raises:
            CurrencyMismatch: one of them is in another currency.
        """
        total_minor = 0
        for amount in amounts:
            if amount.currency != currency:
                raise CurrencyMismatch(currency, amount.currency)
            total_minor += amount.amount_minor
        return cls(total_minor, currency)

    def to_decimal_string(self) -> str:
        """The amount in major units with all places of its currency: ``"393.00"``, ``"-0.05"``, ``"100"`` yen."""
        places = minor_unit_places(self.currency)
        sign = "-" if self.amount_minor < 0 else ""
        if places == 0:
            return f"{sign}{abs(self.amount_minor)}"
        whole, fraction = divmod(abs(self.amount_minor), 10**places)
        return f"{sign}{whole}.{fraction:0{places}d}"

    def split(self, weights: Sequence[int]) -> tuple["Money", ...]:
        """Share the amount in proportion to weights, losing nothing: the parts sum to the whole.

        Each part is its exact share rounded down in magnitude; the minor units left over go one each to the largest
        remainders, the earlier part first between equals. A negative amount splits as its mirror image.

        Raises:
            InvalidSplit: no weights, a weight that is not an integer of 0 or more, or only zero weights.
        """
        if any(type(weight) is not int or weight < 0 for weight in weights):
            raise InvalidSplit("every weight must be an int of 0 or more")
        weight_total = sum(weights)
        if weight_total == 0:
            raise InvalidSplit("at least one weight must be positive")
        magnitude = abs(self.amount_minor)
        shares = [magnitude * weight // weight_total for weight in weights]
        remainders = [magnitude * weight % weight_total for weight in weights]
        left_over = magnitude - sum(shares)
        for index in sorted(range(len(weights)), key=lambda position: (-remainders[position], position))[:left_over]:
            shares[index] += 1
        sign = -1 if self.amount_minor < 0 else 1
        return tuple(Money(sign * share, self.currency) for share in shares)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount_minor + self._minor_of(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount_minor - self._minor_of(other), self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount_minor, self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.amount_minor < self._minor_of(other)

    def __le__(self, other: "Money") -> bool:
        return self.amount_minor <= self._minor_of(other)

    def __gt__(self, other: "Money") -> bool:
        return self.amount_minor > self._minor_of(other)

    def __ge__(self, other: "Money") -> bool:
        return self.amount_minor >= self._minor_of(other)

    def _minor_of(self, other: "Money") -> int:
        if self.currency != other.currency:
            raise CurrencyMismatch(self.currency, other.currency)
        return other.amount_minor
