"""The wire form of a price: exact decimal strings, no arithmetic. ``quill_pricing.price`` gives it meaning."""

from typing import Annotated, Literal

from pydantic import Field

from quill_contracts.identifiers import Currency, DecimalString
from quill_contracts.message import WireModel

PriceModel = Literal["flat", "per_unit", "package", "graduated", "volume"]


class TierDocument(WireModel):
    """One step of a graduated or volume price; ``up_to`` is inclusive and cumulative, null in the last tier."""

    up_to: Annotated[int, Field(gt=0)] | None = None
    unit_amount: DecimalString
    flat_amount: DecimalString | None = None


class PriceDocument(WireModel):
    """How one quantity turns into money. Which fields are present follows from ``model``; amounts in major units."""

    model: PriceModel
    currency: Currency = "usd"
    amount: DecimalString | None = None
    unit_amount: DecimalString | None = None
    package_size: Annotated[int, Field(gt=0)] | None = None
    package_amount: DecimalString | None = None
    tiers: Annotated[list[TierDocument], Field(max_length=50)] | None = None
