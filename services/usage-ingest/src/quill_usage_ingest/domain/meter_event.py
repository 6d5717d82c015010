"""A meter event: one fact of use with its name, its instant and its data (L1, L4)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

HOUR: Final = timedelta(hours=1)
NAME_BYTES: Final = 16
"""128 bits: two names of one organization that meet by accident need more events than there will ever be, and whoever
makes them meet on purpose only gets his own event refused."""


class Moment(NamedTuple):
    """Where an event stands in the one order of an organization's events: by time, then by name."""

    at: datetime
    name: bytes


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """An event that is whole. ``time`` is in UTC; numbers in ``data`` are integers or exact decimals, never floats.

    Attributes:
        name: what (organization, source, id) is found by for ever. Names are an organization's own, so that no license
            can use up a name of somebody else's (L18).
        content: what tells two events under one name apart: type, time and data, whatever way they were written.
    """

    organization_id: str
    source: str
    event_id: str
    event_type: str
    time: datetime
    data: Mapping[str, Any]
    name: bytes
    content: bytes

    @property
    def window_start(self) -> datetime:
        """Start of the UTC hour in which the event counts; the window's start chooses the period (L2)."""
        return self.time.replace(minute=0, second=0, microsecond=0)

    @property
    def moment(self) -> Moment:
        return Moment(self.time, self.name)


def name_of(organization_id: str, source: str, event_id: str) -> bytes:
    """The event's name as a short hash; each part with its length, so that no two names run into one."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (organization_id, source, event_id)]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.blake2b(framed, digest_size=NAME_BYTES).digest()


def content_of(event_type: str, time: datetime, data: Mapping[str, Any]) -> bytes:
    """What the event says, as a short hash: the order of members and the way a number is written do not matter."""
    said = repr((event_type, time.isoformat(), _normal(data)))
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES).digest()


def plain_number(number: Decimal) -> tuple[str, str, int]:
    """Sign (``-`` or empty), digits and exponent without trailing zeros: one form for one number, exactly."""
    parts = number.as_tuple()
    digits = "".join(map(str, parts.digits))
    stripped = digits.rstrip("0")
    if not stripped:
        return "", "0", 0
    return "-" if parts.sign else "", stripped.lstrip("0"), int(parts.exponent) + len(digits) - len(stripped)


def _normal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [(name, _normal(value[name])) for name in sorted(value)]
    if isinstance(value, list):
        return ("list", [_normal(item) for item in value])
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return ("number", plain_number(Decimal(value)))
    return value
