"""Meter events: single facts of use from products that do not count by the day themselves."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from quill_contracts.identifiers import Instant, OrganizationId
from quill_contracts.message import Message


class MeterEvent(Message):
    """A CloudEvent 1.0 in JSON (``usage.meter-events.v1``, key: subject).

    ``subject`` is the organization, ``time`` when the use happened, ``type`` chooses the meters, ``data`` holds values
    and dimensions. (``source``, ``id``) names the event for ever: a second one of that name changes nothing. Numbers
    that must be exact to the last digit travel as strings or as JSON numbers; both are read as exact decimals.
    """

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    type: Annotated[str, Field(min_length=1, max_length=200)]
    subject: OrganizationId
    time: Instant
    data: Annotated[dict[str, JsonValue], Field(max_length=100)] = {}
