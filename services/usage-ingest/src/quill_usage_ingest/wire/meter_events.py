"""Meter events as they come: CloudEvents 1.0 in JSON, alone or many at a time, and as they are shown."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from quill_usage_ingest.domain.meter_event import MeterEvent, content_of, name_of
from quill_usage_ingest.ports import KeptEvent

BATCH_MAX: Final = 1_000
EVENT_BYTES_MAX: Final = 64 * 1024
TEXT_MAX: Final = 200
MEMBERS_MAX: Final = 100
DEPTH_MAX: Final = 10
_RFC3339: Final = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$", re.ASCII)
_ORGANIZATION: Final = re.compile(r"^[A-Za-z0-9_.:-]{1,200}$", re.ASCII)
_JSON_TYPE: Final = re.compile(r"^[^;]*[/+]json\s*(;.*)?$", re.ASCII | re.IGNORECASE)

_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode
_split: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class InvalidEvent(ValueError):
    """A body or an event is not what it must be.

    Args:
        code: ``not_json``, ``required`` or ``invalid_input``.
        detail: for people, naming the attribute and the fix.
        attribute: the attribute of the event; None for the body as a whole.
    """

    def __init__(self, code: str, detail: str, attribute: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.attribute = attribute


def split_batch(body: bytes) -> list[bytes]:
    """The exact bytes of each event of a JSON array.

    Raises:
        InvalidEvent: not an array, or too many.
    """
    try:
        parts = _split(body)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("not_json", f"the body is not a JSON array of events: {error}") from error
    if len(parts) > BATCH_MAX:
        raise InvalidEvent("batch_too_large", f"the batch has {len(parts)} events; send at most {BATCH_MAX} at a time")
    return [bytes(part) for part in parts]


def from_wire_event(body: bytes) -> MeterEvent:
    """Read one event. Attributes this code does not know are let be: CloudEvents has extensions.

    Raises:
        InvalidEvent: naming the attribute.
    """
    if len(body) > EVENT_BYTES_MAX:
        raise InvalidEvent("event_too_large", f"the event has {len(body)} bytes; at most {EVENT_BYTES_MAX} are taken")
    try:
        given = _decode(body)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("not_json", f"the event is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidEvent("invalid_input", "the event must be a JSON object")
    if given.get("specversion") != "1.0":
        raise InvalidEvent("invalid_input", 'specversion: must be "1.0"', "specversion")
    event_id, source, event_type = (_text(given, name) for name in ("id", "source", "type"))
    organization_id = _required(given, "subject")
    if not isinstance(organization_id, str) or not _ORGANIZATION.fullmatch(organization_id):
        raise InvalidEvent("invalid_input", "subject: must be an organization id", "subject")
    time = _time(_required(given, "time"))
    data = _data(given)
    return MeterEvent(
        organization_id=organization_id,
        source=source,
        event_id=event_id,
        event_type=event_type,
        time=time,
        data=data,
        name=name_of(organization_id, source, event_id),
        content=content_of(event_type, time, data),
    )


def on_account(event: MeterEvent, organization_id: str) -> MeterEvent:
    """The event as a fact of another organization: of the account that a further license reports on (O3)."""
    return MeterEvent(
        organization_id=organization_id,
        source=event.source,
        event_id=event.event_id,
        event_type=event.event_type,
        time=event.time,
        data=event.data,
        name=name_of(organization_id, event.source, event.event_id),
        content=event.content,
    )


def to_wire_kept_events(kept: Sequence[KeptEvent]) -> list[dict[str, Any]]:
    """Events as they are shown: what they say, and how they came."""
    return [_kept(each) for each in kept]


def _kept(kept: KeptEvent) -> dict[str, Any]:
    event = kept.event
    return {
        "id": event.event_id,
        "source": event.source,
        "type": event.event_type,
        "organization_id": event.organization_id,
        "time": event.time.isoformat(),
        "data": shown(event.data),
        "received_at": kept.received_at.isoformat(),
        "intake": kept.intake,
        "topic": kept.topic,
        "partition": kept.partition,
        "offset": kept.offset,
        "voided_at": kept.voided_at.isoformat() if kept.voided_at else None,
    }


def shown(value: Any) -> Any:
    """Data for an answer: a decimal as a text, so that no reader makes a float of it."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {name: shown(held) for name, held in value.items()}
    return [shown(held) for held in value] if isinstance(value, list) else value


def _required(given: Mapping[str, Any], name: str) -> Any:
    value = given.get(name)
    if value is None:
        raise InvalidEvent("required", f"{name}: this attribute is required", name)
    return value


def _text(given: Mapping[str, Any], name: str) -> str:
    value = _required(given, name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_MAX or "\x00" in value:
        raise InvalidEvent("invalid_input", f"{name}: must be a text of 1 to {TEXT_MAX} characters", name)
    return value


def _time(given: object) -> datetime:
    wrong = InvalidEvent("invalid_input", "time: must be an instant with its offset, like 2026-10-05T12:30:00Z", "time")
    if not isinstance(given, str) or not _RFC3339.fullmatch(given):
        raise wrong
    try:
        return datetime.fromisoformat(given.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise wrong from error


def _data(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("data_base64") is not None:
        raise InvalidEvent("invalid_input", "data_base64: send data as a JSON object", "data_base64")
    content_type = given.get("datacontenttype")
    if content_type is not None and not (isinstance(content_type, str) and _JSON_TYPE.fullmatch(content_type)):
        raise InvalidEvent("invalid_input", "datacontenttype: must be application/json", "datacontenttype")
    data = given.get("data")
    if data is None:
        return {}
    if not isinstance(data, dict) or len(data) > MEMBERS_MAX:
        raise InvalidEvent("invalid_input", f"data: must be an object of at most {MEMBERS_MAX} members", "data")
    if _depth(data) > DEPTH_MAX:
        raise InvalidEvent("invalid_input", f"data: must not be nested deeper than {DEPTH_MAX}", "data")
    return data


def _depth(value: Any) -> int:
    """How deep the value is nested, looked at no further than it may be."""
    depth, level = 0, [value]
    while level and depth <= DEPTH_MAX:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth
