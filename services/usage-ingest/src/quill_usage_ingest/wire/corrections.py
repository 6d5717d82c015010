"""Corrections over HTTP: what is asked for, and what is answered."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator
from quill_contracts.identifiers import CounterName, Instant, Quantity, SourceName

from quill_usage_ingest.domain.correction import (
    REPORTS_MAX,
    AppliedCorrection,
    CorrectionKind,
    CorrectionOrder,
    NamedEvent,
    Replacement,
)
from quill_usage_ingest.domain.usage_report import InvalidWindow, UsageWindow
from quill_usage_ingest.wire.meter_events import TEXT_MAX

ReportId = Annotated[int, Field(ge=1, le=2**63 - 1, strict=True)]
Counters = Annotated[dict[CounterName, Quantity], Field(min_length=1, max_length=1_000)]
CorrectionId = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]
Actor = Annotated[str, Field(min_length=1, max_length=200)]
Reason = Annotated[str, Field(min_length=1, max_length=1_000)]


class WindowAsked(BaseModel):
    """One window of a replacement; without counters of its own it takes those of the request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_start: Instant
    window_end: Instant
    counters: Counters | None = None

    @model_validator(mode="after")
    def _is_a_window(self) -> Self:
        try:
            UsageWindow(self.window_start, self.window_end)
        except InvalidWindow as error:
            raise ValueError(str(error)) from error
        return self


class EventAsked(BaseModel):
    """A kept meter event, as its organization's events show it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]
    id: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]
    time: Instant


class CorrectionAsked(BaseModel):
    """``void`` names kept reports; ``replace`` a source, a span, and every window in it with its counters.

    ``void-events`` names kept meter events.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    correction_id: CorrectionId
    kind: Literal["void", "replace", "void-events"]
    actor: Actor
    reason: Reason
    preview: bool = False
    report_ids: Annotated[list[ReportId], Field(max_length=REPORTS_MAX)] = []
    source: SourceName | None = None
    start: Instant | None = None
    end: Instant | None = None
    counters: Counters | None = None
    windows: Annotated[list[WindowAsked], Field(max_length=REPORTS_MAX)] = []
    events: Annotated[list[EventAsked], Field(max_length=REPORTS_MAX)] = []

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        is_replacing = bool(self.source or self.start or self.end or self.windows or self.counters)
        match self.kind:
            case "void":
                if not self.report_ids or len(set(self.report_ids)) != len(self.report_ids):
                    raise ValueError("report_ids: a void names each report once, and at least one")
                if is_replacing or self.events:
                    raise ValueError("report_ids: a void names reports and nothing else")
            case "void-events":
                if not self.events or len(set(self.events)) != len(self.events):
                    raise ValueError("events: name each event once, and at least one")
                if is_replacing or self.report_ids:
                    raise ValueError("events: to void events names them and nothing else")
            case "replace":
                self._check_replacement()
        return self

    def _check_replacement(self) -> None:
        if self.report_ids or self.events:
            raise ValueError("windows: a replacement names windows, neither reports nor events")
        if self.source is None or self.start is None or self.end is None or not self.windows:
            raise ValueError("source, start, end and windows: a replacement needs all four")
        if self.counters is None and any(each.counters is None for each in self.windows):
            raise ValueError("counters: give them with the request or with every window")


class ReversionAsked(BaseModel):
    """Who takes a correction back, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: Actor
    reason: Reason
    preview: bool = False


def from_wire_correction(asked: CorrectionAsked, organization_id: str) -> CorrectionOrder:
    """The order of a checked request."""
    return CorrectionOrder(
        correction_id=asked.correction_id,
        organization_id=organization_id,
        kind=CorrectionKind(asked.kind),
        actor=asked.actor,
        reason=asked.reason,
        kept_ids=tuple(asked.report_ids),
        source=asked.source,
        start=asked.start,
        end=asked.end,
        windows=tuple(
            Replacement(UsageWindow(each.window_start, each.window_end), each.counters or asked.counters or {})
            for each in asked.windows
        ),
        events=tuple(NamedEvent(each.source, each.id, each.time) for each in asked.events),
    )


def to_wire_correction(correction: AppliedCorrection) -> dict[str, Any]:
    """A correction as kept, with what it changed and, if it was taken back, what that changed."""
    order, reversion = correction.order, correction.reversion
    return {
        "correction_id": order.correction_id,
        "organization_id": order.organization_id,
        "kind": order.kind.value,
        "actor": order.actor,
        "reason": order.reason,
        "applied_at": _instant(correction.applied_at),
        "report_ids": list(order.kept_ids),
        "source": order.source,
        "start": _instant(order.start),
        "end": _instant(order.end),
        "windows": [
            {
                "window_start": _instant(each.window.start),
                "window_end": _instant(each.window.end),
                "counters": dict(each.counters),
            }
            for each in order.windows
        ],
        "events": [{"source": each.source, "id": each.event_id, "time": _instant(each.time)} for each in order.events],
        "entered_report_ids": list(correction.entered_ids),
        "changes": msgspec.to_builtins(correction.effects),
        "is_in_force": correction.is_in_force,
        "reverted": None
        if reversion is None
        else {
            "actor": reversion.actor,
            "reason": reversion.reason,
            "at": _instant(reversion.at),
            "changes": msgspec.to_builtins(reversion.effects),
        },
    }


def _instant(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
