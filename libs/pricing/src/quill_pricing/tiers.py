"""A valid tier schedule and how a quantity fills it."""

from bisect import bisect_left
from dataclasses import dataclass, field

from quill_pricing.money import Money
from quill_pricing.quantity import QUANTITY_MAX
from quill_pricing.rounding import to_minor_units
from quill_pricing.unit_amount import UnitAmount, sub_units_of

TIER_COUNT_MAX = 50
"""The most tiers one price may have; a price with more is a mistake, and each tier is an invoice line."""

NO_UNIT_AMOUNT = UnitAmount(0)


class InvalidTierSchedule(ValueError):
    """The tiers do not cover every quantity exactly once.

    Attributes:
        field: the path of the field at fault, e.g. ``tiers.1.up_to``.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Tier:
    """One step of a graduated or volume price.

    Attributes:
        up_to: the last unit of the tier, inclusive and counted from the first unit of all; None in the last tier.
        unit_amount: the price of one unit; 0 in a tier that has only a flat amount.
        flat_amount: owed once when the tier is reached. None and zero differ: a zero makes an invoice line of its own.
            The first tier is always reached: its flat amount is owed in a period without usage.
    """

    up_to: int | None
    unit_amount: UnitAmount = NO_UNIT_AMOUNT
    flat_amount: Money | None = None


@dataclass(frozen=True, slots=True)
class TierSchedule:
    """Tiers that cover every quantity exactly once, with the table that makes graduated rating one search.

    Attributes:
        tiers: lowest first.
        currency: of the unit amounts and the flat amounts.
        floors: per tier, the last unit below it; the tier holds the units from ``floor + 1``.
        owed_on_entry_minor: per tier, graduated: every full lower tier, **each rounded on its own** (L11), and the
            flat amounts up to and including this tier's; minor units.
        sub_units: how many of the unit amounts' 10**-12 make one minor unit.

    Raises:
        InvalidTierSchedule: naming the first field at fault.
    """

    tiers: tuple[Tier, ...]
    currency: str
    floors: tuple[int, ...] = field(init=False, repr=False, compare=False)
    owed_on_entry_minor: tuple[int, ...] = field(init=False, repr=False, compare=False)
    sub_units: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.tiers, self.currency)
        ceilings = [tier.up_to for tier in self.tiers if tier.up_to is not None]
        object.__setattr__(self, "floors", (0, *ceilings))
        object.__setattr__(self, "sub_units", sub_units_of(self.currency))
        object.__setattr__(self, "owed_on_entry_minor", _owed_on_entry(self.tiers, self.floors, self.sub_units))

    def index_of(self, quantity: int) -> int:
        """The tier that the last of ``quantity`` units falls into; the first tier for quantity 0."""
        return bisect_left(self.floors, quantity, lo=1) - 1

    def graduated_minor(self, quantity: int) -> int:
        """What a quantity costs when each unit costs what its own tier says: the sum of rounded lines, minor units."""
        index = self.index_of(quantity)
        inside_scaled = (quantity - self.floors[index]) * self.tiers[index].unit_amount.scaled
        return self.owed_on_entry_minor[index] + to_minor_units(inside_scaled, sub_units=self.sub_units)

    def volume_minor(self, quantity: int) -> int:
        """What a quantity costs when all units cost what the tier of the last one says; minor units."""
        tier = self.tiers[self.index_of(quantity)]
        flat_minor = 0 if tier.flat_amount is None else tier.flat_amount.amount_minor
        return flat_minor + to_minor_units(quantity * tier.unit_amount.scaled, sub_units=self.sub_units)


def _check(tiers: tuple[Tier, ...], currency: str) -> None:
    if not tiers:
        raise InvalidTierSchedule("tiers", "needs at least one tier")
    if len(tiers) > TIER_COUNT_MAX:
        raise InvalidTierSchedule("tiers", f"at most {TIER_COUNT_MAX} tiers")
    floor = 0
    for index, tier in enumerate(tiers):
        is_last = index == len(tiers) - 1
        if (tier.up_to is None) != is_last:
            reason = "must be null: the last tier has no end" if is_last else "is null, but a tier follows"
            raise InvalidTierSchedule(f"tiers.{index}.up_to", reason)
        if tier.up_to is not None:
            if type(tier.up_to) is not int or not floor < tier.up_to <= QUANTITY_MAX:
                raise InvalidTierSchedule(
                    f"tiers.{index}.up_to", f"must be an int above {floor} and at most {QUANTITY_MAX}"
                )
            floor = tier.up_to
        fee = tier.flat_amount
        if fee is not None and (fee.currency != currency or fee.amount_minor < 0):
            raise InvalidTierSchedule(f"tiers.{index}.flat_amount", f"must be 0 or more {currency}")


def _owed_on_entry(tiers: tuple[Tier, ...], floors: tuple[int, ...], sub_units: int) -> tuple[int, ...]:
    owed_minor = 0
    table = []
    for tier, floor in zip(tiers, floors, strict=True):
        owed_minor += tier.flat_amount.amount_minor if tier.flat_amount is not None else 0
        table.append(owed_minor)
        if tier.up_to is not None:
            owed_minor += to_minor_units((tier.up_to - floor) * tier.unit_amount.scaled, sub_units=sub_units)
    return tuple(table)
