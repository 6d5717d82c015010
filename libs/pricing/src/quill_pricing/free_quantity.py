"""How much of a price costs exactly nothing: what an allowance may promise."""

from quill_pricing.money import Money
from quill_pricing.price import FlatPrice, GraduatedPrice, PackagePrice, PerUnitPrice, Price, VolumePrice


def free_quantity(price: Price) -> int | None:
    """The greatest quantity whose units cost exactly nothing; None when no unit ever costs anything.

    Exactly means before rounding: units whose amount only rounds to 0 are charged with the units that follow them.
    What a period owes without usage (a flat price, the flat amount of the first tier) is no cost of a unit. A volume
    price may charge for these units once usage goes beyond them, because its last unit sets the price of all.
    """
    match price:
        case FlatPrice():
            return None
        case PerUnitPrice():
            return 0 if price.unit_amount.scaled else None
        case PackagePrice():
            return 0 if price.package_amount.amount_minor else None
        case GraduatedPrice() | VolumePrice():
            return _free_in_tiers(price)


def _free_in_tiers(price: GraduatedPrice | VolumePrice) -> int | None:
    """A graduated price adds the fee of each tier, a volume price owes the fee of one tier in place of the first's."""
    owed_anyway = _minor(price.tiers[0].flat_amount) if isinstance(price, VolumePrice) else 0
    for index, (tier, floor) in enumerate(zip(price.tiers, price.schedule.floors, strict=True)):
        charges_on_entry = index > 0 and _minor(tier.flat_amount) > owed_anyway
        if tier.unit_amount.scaled or charges_on_entry:
            return floor
    return None


def _minor(fee: Money | None) -> int:
    return 0 if fee is None else fee.amount_minor
