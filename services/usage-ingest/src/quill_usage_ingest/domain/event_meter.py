"""An event meter: which events feed it, and what one event is worth to it (L11)."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple

from quill_usage_ingest.domain.meter_event import MeterEvent, plain_number
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX

DISTINCT_CHARACTERS_MAX: Final = 1_000
DIMENSION_CHARACTERS_MAX: Final = 200
DISTINCT_BYTES: Final = 16
_NUMBER: Final = re.compile(r"^-?[0-9]{1,40}(\.[0-9]{1,40})?$", re.ASCII)
_QUANTITY_DIGITS: Final = len(str(QUANTITY_MAX))

Group = tuple[str | None, ...]
"""What an event says of each dimension; None where it says nothing."""


class Aggregation(StrEnum):
    """How the events of a span become one number."""

    SUM = "sum"
    COUNT = "count"
    MAX = "max"
    LAST = "last"
    UNIQUE_COUNT = "unique_count"


class UnfitEvent(ValueError):
    """The event's type feeds the meter and its data cannot; names the member of ``data``."""

    def __init__(self, attribute: str, detail: str) -> None:
        super().__init__(f"{attribute}: {detail}")
        self.attribute = attribute


class Measured(NamedTuple):
    """What one event is worth: a quantity in the meter's smallest unit, or a distinct value; and its group."""

    quantity: int
    value: bytes | None
    group: Group | None


@dataclass(frozen=True, slots=True)
class EventMeter:
    """The definition of a meter that events feed; catalog data, as `EventMeterDefinition` of the contracts says."""

    usage_key: str
    event_type: str
    aggregation: Aggregation
    value: str | None = None
    group_by: tuple[str, ...] = ()
    decimals: int = 0
    counts_from: datetime | None = None
    carried: bool = False
    """A ``last`` value goes on into the next billing periods until another event comes."""

    @property
    def fingerprint(self) -> str:
        """The same for the same definition. With another one everything is counted anew."""
        return hashlib.sha256(json.dumps(self.document()).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """The definition as JSON values."""
        return {
            "usage_key": self.usage_key,
            "event_type": self.event_type,
            "aggregation": self.aggregation.value,
            "value": self.value,
            "group_by": list(self.group_by),
            "decimals": self.decimals,
            "counts_from": self.counts_from.isoformat() if self.counts_from else None,
            "carried": self.carried,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "EventMeter":
        counts_from = document["counts_from"]
        return cls(
            **{
                **document,
                "aggregation": Aggregation(document["aggregation"]),
                "group_by": tuple(document["group_by"]),
                "counts_from": datetime.fromisoformat(counts_from) if counts_from else None,
            }
        )

    def takes(self, event: MeterEvent) -> bool:
        """Whether the event feeds this meter: its type does, and its window does not start too early."""
        return event.event_type == self.event_type and (
            self.counts_from is None or event.window_start >= self.counts_from
        )

    def measure(self, event: MeterEvent) -> Measured:
        """What the event is worth.

        Raises:
            UnfitEvent: a value or dimension is missing, of the wrong type, or out of range.
        """
        group = tuple(_dimension(event.data, name) for name in self.group_by) if self.group_by else None
        if self.value is None:
            return Measured(1, None, group)
        given = event.data.get(self.value)
        attribute = f"data__{self.value}"
        if given is None:
            raise UnfitEvent(attribute, f"{self.event_type} needs it for the meter {self.usage_key}")
        if self.aggregation is Aggregation.UNIQUE_COUNT:
            return Measured(0, _distinct(given, attribute), group)
        return Measured(self._quantity(given, attribute), None, group)

    def _quantity(self, given: object, attribute: str) -> int:
        """The value x 10^decimals, exactly."""
        number = _number(given, attribute)
        sign, digits, exponent = plain_number(number)
        if sign:
            raise UnfitEvent(attribute, "must not be negative")
        places = exponent + self.decimals
        if places < 0:
            allowed = f"at most {self.decimals} decimal places" if self.decimals else "a whole number"
            raise UnfitEvent(attribute, f"must have {allowed}; round it where it is measured")
        if len(digits) + places > _QUANTITY_DIGITS:
            unit = f" x 10^-{self.decimals}" if self.decimals else ""
            raise UnfitEvent(attribute, f"must be at most {QUANTITY_MAX}{unit}")
        return int(digits + "0" * places)


def _number(given: object, attribute: str) -> Decimal:
    if isinstance(given, str) and _NUMBER.fullmatch(given):
        return Decimal(given)
    if isinstance(given, Decimal) and given.is_finite():
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return Decimal(given)
    raise UnfitEvent(attribute, 'must be a number like 12.5 or "12.5"')


def _distinct(given: object, attribute: str) -> bytes:
    """A value to be told apart, hashed; 11 and "11" are the same."""
    text = _text(given)
    if text is None or not 0 < len(text) <= DISTINCT_CHARACTERS_MAX:
        raise UnfitEvent(attribute, f"must be a number or a text of 1 to {DISTINCT_CHARACTERS_MAX} characters")
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DISTINCT_BYTES).digest()


def _dimension(data: Any, name: str) -> str | None:
    given = data.get(name)
    if given is None:
        return None
    text = ("true" if given else "false") if isinstance(given, bool) else _text(given)
    if text is None or len(text) > DIMENSION_CHARACTERS_MAX or "\x00" in text:
        detail = f"must be a number, a boolean or a text of at most {DIMENSION_CHARACTERS_MAX} characters"
        raise UnfitEvent(f"data__{name}", detail)
    return text


def _text(given: object) -> str | None:
    """A text as it is, a number in its one plain form; None for everything else."""
    if isinstance(given, str):
        return given
    if isinstance(given, bool) or not isinstance(given, int | Decimal):
        return None
    sign, digits, exponent = plain_number(Decimal(given))
    if abs(exponent) > DISTINCT_CHARACTERS_MAX:
        return None
    if exponent >= 0:
        return f"{sign}{digits}{'0' * exponent}"
    whole = digits.rjust(1 - exponent, "0")
    return f"{sign}{whole[:exponent]}.{whole[exponent:]}"
