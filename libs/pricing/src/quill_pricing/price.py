"""Prices: the five models, and their plain JSON document form.

Every price says whether it is ``prorated``: whether a licensed quantity that changes inside a billing period is paid
for the time it is held (see ``licensed_quantity``). It has no effect on a quantity that is metered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from quill_pricing.currency import UnknownCurrency, minor_unit_places
from quill_pricing.money import InvalidMoney, Money
from quill_pricing.quantity import QUANTITY_MAX
from quill_pricing.tiers import NO_UNIT_AMOUNT, InvalidTierSchedule, Tier, TierSchedule
from quill_pricing.unit_amount import InvalidUnitAmount, UnitAmount


class InvalidPrice(ValueError):
    """A price that cannot be billed.

    Attributes:
        field: the path of the field at fault in the price document, e.g. ``tiers.1.unit_amount``.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FlatPrice:
    """One amount per billing period, whatever the quantity."""

    amount: Money
    prorated: bool = True

    def __post_init__(self) -> None:
        if self.amount.amount_minor < 0:
            raise InvalidPrice("amount", "is never negative")

    @property
    def currency(self) -> str:
        return self.amount.currency


@dataclass(frozen=True, slots=True)
class PerUnitPrice:
    """Every unit costs the same."""

    unit_amount: UnitAmount
    currency: str = "usd"
    prorated: bool = True

    def __post_init__(self) -> None:
        _check_currency(self.currency)


@dataclass(frozen=True, slots=True)
class PackagePrice:
    """Units are sold in packages; a package once begun is owed in full."""

    package_size: int
    package_amount: Money
    prorated: bool = True

    def __post_init__(self) -> None:
        if type(self.package_size) is not int or not 1 <= self.package_size <= QUANTITY_MAX:
            raise InvalidPrice("package_size", f"must be an int from 1 to {QUANTITY_MAX}")
        if self.package_amount.amount_minor < 0:
            raise InvalidPrice("package_amount", "is never negative")

    @property
    def currency(self) -> str:
        return self.package_amount.currency


@dataclass(frozen=True, slots=True)
class GraduatedPrice:
    """Each unit costs what its own tier says.

    Raises:
        InvalidPrice: the tiers do not cover every quantity exactly once.
    """

    tiers: tuple[Tier, ...]
    currency: str = "usd"
    prorated: bool = True
    schedule: TierSchedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", _schedule(self.tiers, self.currency))


@dataclass(frozen=True, slots=True)
class VolumePrice:
    """All units cost what the tier of the last one says, so one unit more may cost less in total.

    Raises:
        InvalidPrice: the tiers do not cover every quantity exactly once.
    """

    tiers: tuple[Tier, ...]
    currency: str = "usd"
    prorated: bool = True
    schedule: TierSchedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", _schedule(self.tiers, self.currency))


Price = FlatPrice | PerUnitPrice | PackagePrice | GraduatedPrice | VolumePrice

_FIELDS_BY_MODEL = {
    "flat": ("amount",),
    "per_unit": ("unit_amount",),
    "package": ("package_size", "package_amount"),
    "graduated": ("tiers",),
    "volume": ("tiers",),
}
_TIER_FIELDS = ("up_to", "unit_amount", "flat_amount")


def price_from_document(document: Mapping[str, Any]) -> Price:
    """Read a price from its JSON document. Amounts are decimal strings in major units; a null field counts as absent.

    Raises:
        InvalidPrice: naming the first field at fault: missing, of a wrong type, out of range, or of another model.
    """
    present = {name: value for name, value in document.items() if value is not None}
    model = present.pop("model", None)
    if not isinstance(model, str) or model not in _FIELDS_BY_MODEL:
        raise InvalidPrice("model", f"must be one of {', '.join(_FIELDS_BY_MODEL)}")
    currency = present.pop("currency", "usd")
    _check_currency(currency)
    prorated = _prorated(present.pop("prorated", True))
    for name in present:
        if name not in _FIELDS_BY_MODEL[model]:
            raise InvalidPrice(name, f"is not a field of a {model} price")
    for name in _FIELDS_BY_MODEL[model]:
        if name not in present:
            raise InvalidPrice(name, f"is needed by a {model} price")
    match model:
        case "flat":
            return FlatPrice(_money(present["amount"], currency, "amount"), prorated)
        case "per_unit":
            return PerUnitPrice(_unit_amount(present["unit_amount"], "unit_amount"), currency, prorated)
        case "package":
            amount = _money(present["package_amount"], currency, "package_amount")
            return PackagePrice(present["package_size"], amount, prorated)
        case "graduated":
            return GraduatedPrice(_tiers(present["tiers"], currency), currency, prorated)
        case _:
            return VolumePrice(_tiers(present["tiers"], currency), currency, prorated)


def price_to_document(price: Price) -> dict[str, Any]:
    """The JSON document of a price, with only the fields of its model; ``price_from_document`` gives the price back.

    ``prorated`` is written when it is not the default.
    """
    document = {**_model_document(price), "currency": price.currency}
    return document if price.prorated else {**document, "prorated": False}


def _model_document(price: Price) -> dict[str, Any]:
    match price:
        case FlatPrice():
            return {"model": "flat", "amount": price.amount.to_decimal_string()}
        case PerUnitPrice():
            return {"model": "per_unit", "unit_amount": price.unit_amount.to_decimal_string()}
        case PackagePrice():
            return {
                "model": "package",
                "package_size": price.package_size,
                "package_amount": price.package_amount.to_decimal_string(),
            }
        case GraduatedPrice():
            return {"model": "graduated", "tiers": _tier_documents(price.tiers)}
        case VolumePrice():
            return {"model": "volume", "tiers": _tier_documents(price.tiers)}
        case _:
            assert_never(price)


def _tier_documents(tiers: tuple[Tier, ...]) -> list[dict[str, Any]]:
    documents = []
    for tier in tiers:
        document: dict[str, Any] = {"up_to": tier.up_to, "unit_amount": tier.unit_amount.to_decimal_string()}
        if tier.flat_amount is not None:
            document["flat_amount"] = tier.flat_amount.to_decimal_string()
        documents.append(document)
    return documents


def _tiers(value: object, currency: str) -> tuple[Tier, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidPrice("tiers", "must be a list of tiers")
    return tuple(_tier(document, currency, f"tiers.{index}") for index, document in enumerate(value))


def _tier(document: object, currency: str, path: str) -> Tier:
    if not isinstance(document, Mapping):
        raise InvalidPrice(path, "must be an object with up_to and unit_amount, flat_amount or both")
    for name in document:
        if name not in _TIER_FIELDS:
            raise InvalidPrice(f"{path}.{name}", "is not a field of a tier")
    unit_amount, flat_amount = document.get("unit_amount"), document.get("flat_amount")
    if unit_amount is None and flat_amount is None:
        raise InvalidPrice(f"{path}.unit_amount", "is needed in a tier without a flat_amount; give one of them or both")
    return Tier(
        up_to=document.get("up_to"),
        unit_amount=NO_UNIT_AMOUNT if unit_amount is None else _unit_amount(unit_amount, f"{path}.unit_amount"),
        flat_amount=None if flat_amount is None else _money(flat_amount, currency, f"{path}.flat_amount"),
    )


def _money(value: object, currency: str, path: str) -> Money:
    if not isinstance(value, str):
        raise InvalidPrice(path, "must be a decimal string such as '450.00'")
    try:
        return Money.from_decimal_string(value, currency)
    except InvalidMoney as error:
        raise InvalidPrice(path, str(error)) from error


def _unit_amount(value: object, path: str) -> UnitAmount:
    if not isinstance(value, str):
        raise InvalidPrice(path, "must be a decimal string such as '0.00005'")
    try:
        return UnitAmount.from_decimal_string(value)
    except InvalidUnitAmount as error:
        raise InvalidPrice(path, str(error)) from error


def _schedule(tiers: tuple[Tier, ...], currency: str) -> TierSchedule:
    _check_currency(currency)
    try:
        return TierSchedule(tiers, currency)
    except InvalidTierSchedule as error:
        raise InvalidPrice(error.field, error.reason) from error


def _prorated(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidPrice("prorated", "must be true or false")
    return value


def _check_currency(currency: object) -> None:
    if not isinstance(currency, str):
        raise InvalidPrice("currency", "must be a lower-case ISO 4217 code such as 'usd'")
    try:
        minor_unit_places(currency)
    except UnknownCurrency as error:
        raise InvalidPrice("currency", str(error)) from error
