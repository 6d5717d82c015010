"""Events and states of sources as JSON, and back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, assert_never

import msgspec

from quill_usage_ingest.domain.usage_source import (
    Advanced,
    Declared,
    FellSilent,
    FirstHeard,
    HeardAgain,
    SetBack,
    SourceEvent,
    UsageSource,
    Waived,
    WaiverTakenBack,
)

_TYPES: Final[Mapping[type[Any], str]] = {
    FirstHeard: "usage-source.first-heard",
    HeardAgain: "usage-source.heard-again",
    FellSilent: "usage-source.fell-silent",
    Declared: "usage-source.declared",
    Advanced: "usage-source.advanced",
    SetBack: "usage-source.set-back",
    Waived: "usage-source.waived",
    WaiverTakenBack: "usage-source.waiver-taken-back",
}
_CLASSES: Final[Mapping[str, type[Any]]] = {name: class_ for class_, name in _TYPES.items()}
_KEPT_BESIDE: Final = ("source", "version", "revision", "parked")


def event_from(type_: str, document: Mapping[str, Any]) -> SourceEvent:
    """The event that was written."""
    event: SourceEvent = msgspec.convert(document, _CLASSES[type_])
    return event


def kind_of(event: SourceEvent, *, otherwise: str) -> tuple[str, str, datetime]:
    """Its type, who caused it (``otherwise`` when nobody did), and when."""
    match event:
        case Waived(waiver):
            actor, at = waiver.actor, waiver.at
        case Declared() | Advanced() | SetBack() | WaiverTakenBack():
            actor, at = event.actor, event.at
        case FirstHeard() | HeardAgain() | FellSilent():
            actor, at = otherwise, event.at
        case _:
            assert_never(event)
    return _TYPES[type(event)], actor, at


def state_document(source: UsageSource) -> dict[str, Any]:
    """All of the state but what has columns of its own."""
    document: dict[str, Any] = msgspec.to_builtins(source)
    return {name: value for name, value in document.items() if name not in _KEPT_BESIDE}
