"""Meter events: single facts of use from products that do not count by the day themselves, and how they are counted."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from quill_contracts.identifiers import OrganizationId
from quill_contracts.message import Message, WireModel

EventType = Annotated[str, Field(min_length=1, max_length=200)]
PropertyName = Annotated[str, Field(min_length=1, max_length=100)]
Aggregation = Literal["sum", "count", "max", "last", "unique_count"]
DIMENSIONS_MAX = 5
DECIMALS_MAX = 12


class MeterEvent(Message):
    """A CloudEvent 1.0 in JSON (``usage.meter-events.v1``, key: subject).

    ``subject`` is the organization, ``time`` when the use happened (any offset, read as UTC), ``type`` chooses the
    meters, ``data`` holds values and dimensions. (``source``, ``id``) names the event of an organization for ever: the
    same again changes nothing, another content under the name is refused. Numbers travel as JSON numbers or as strings;
    both are read as exact decimals and never as floats (L11).
    """

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    type: EventType
    subject: OrganizationId
    time: AwareDatetime
    data: Annotated[dict[str, JsonValue], Field(max_length=100)] = {}


class EventMeterDefinition(WireModel):
    """How events become a meter's usage.

    Attributes:
        type: of the events that count.
        aggregation: ``unique_count`` counts distinct values, ``last`` takes the value of the latest event.
        value: member of ``data`` that is aggregated; none for ``count``.
        group_by: members of ``data`` that usage can be shown by; nothing is priced or limited by them.
        decimals: the quantity is the value x 10^decimals, so the meter's unit, price and allowance are that small.
        carried: a ``last`` value goes on into the next billing periods until another event comes.
    """

    type: EventType
    aggregation: Aggregation
    value: PropertyName | None = None
    group_by: Annotated[list[PropertyName], Field(max_length=DIMENSIONS_MAX)] = []
    decimals: Annotated[int, Field(ge=0, le=DECIMALS_MAX)] = 0
    carried: bool = False

    @model_validator(mode="after")
    def _value_fits_the_aggregation(self) -> "EventMeterDefinition":
        if (self.value is None) != (self.aggregation == "count"):
            fix = "leave it out" if self.aggregation == "count" else "name the member of data to aggregate"
            raise ValueError(f"value: {self.aggregation} {'takes none' if self.value else 'needs one'}; {fix}")
        if self.decimals and self.aggregation in ("count", "unique_count"):
            raise ValueError(f"decimals: must be 0 for {self.aggregation}, which counts whole things")
        if self.carried and self.aggregation != "last":
            raise ValueError(f"carried: only a last value goes on into the next period; {self.aggregation} begins at 0")
        if len(set(self.group_by)) != len(self.group_by):
            raise ValueError("group_by: names a member of data twice")
        return self
