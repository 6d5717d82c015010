"""The wire form of a price: exact decimal strings, no arithmetic. ``quill_pricing.price`` gives it meaning."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, model_validator

from quill_contracts.identifiers import Currency, DecimalString
from quill_contracts.message import WireModel

PriceModel = Literal["flat", "per_unit", "package", "graduated", "volume"]


class TierDocument(WireModel):
    """One step of a graduated or volume price; ``up_to`` is inclusive and cumulative, null in the last tier.

    A tier has a ``unit_amount``, a ``flat_amount`` or both. The flat amount is owed once the tier is reached; the first
    tier is reached at quantity 0.
    """

    up_to: Annotated[int, Field(gt=0)] | None = None
    unit_amount: DecimalString | None = None
    flat_amount: DecimalString | None = None

    @model_validator(mode="after")
    def _costs_something(self) -> Self:
        if self.unit_amount is None and self.flat_amount is None:
            raise ValueError("unit_amount is needed in a tier without a flat_amount; give one of them or both")
        return self


class PriceDocument(WireModel):
    """How one quantity turns into money. Which fields are present follows from ``model``; amounts in major units."""

    model: PriceModel
    currency: Currency = "usd"
    amount: DecimalString | None = None
    unit_amount: DecimalString | None = None
    package_size: Annotated[int, Field(gt=0)] | None = None
    package_amount: DecimalString | None = None
    tiers: Annotated[list[TierDocument], Field(max_length=50)] | None = None
    prorated: StrictBool = True
    """For a licensed quantity (seats, a flat fee): whether it is paid only for the time that it is held. When false,
    the last quantity held in a billing period is owed in full. A metered quantity is never prorated."""
