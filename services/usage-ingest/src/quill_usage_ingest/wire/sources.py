"""Sources as they travel and as people ask about them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from quill_contracts.identifiers import Instant, OrganizationId
from quill_contracts.sources import SourceWatermark
from quill_contracts.sources import UsageSource as WireUsageSource
from quill_contracts.sources import Waiver as WireWaiver
from quill_contracts.topics import WATERMARKS

from quill_usage_ingest.domain.usage_source import SILENT_AFTER_HOURS, UsageSource, Waiver
from quill_usage_ingest.domain.watermark import WatermarkClaim

SILENT_AFTER_HOURS_MAX: Final = 24 * 366

Person = Annotated[str, Field(min_length=1, max_length=200)]
Reason = Annotated[str, Field(min_length=1, max_length=1_000)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DeclarationAsked(_Asked):
    """What an operator says of a source."""

    is_expected: bool
    silent_after_hours: Annotated[int, Field(ge=1, le=SILENT_AFTER_HOURS_MAX)] = SILENT_AFTER_HOURS
    is_retired: bool = False
    actor: Person
    reason: Reason


class WatermarkAsked(_Asked):
    """That a source has sent everything up to an instant; ``reset`` takes it back, to the beginning if null.

    A license needs neither actor nor reason, a person both.
    """

    complete_through: Instant | None
    reset: bool = False
    actor: Person | None = None
    reason: Reason | None = None


class WaiverAsked(_Asked):
    """That a source need not be waited for; with an organization, only for that one."""

    waiver_id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:-]+$")]
    through: Instant
    organization_id: OrganizationId | None = None
    actor: Person
    reason: Reason


class TakeBackAsked(_Asked):
    """Who takes a waiver back, and why."""

    actor: Person
    reason: Reason


def to_wire_source(source: UsageSource) -> WireUsageSource:
    """The snapshot of ``usage.sources.v1``."""
    return WireUsageSource(
        source=source.source,
        revision=source.revision,
        is_expected=source.is_expected,
        state=source.state.value,
        heard_at=source.heard_at,
        silent_since=source.silent_since,
        complete_through=source.complete.through,
        parked=source.parked,
        waivers=[
            WireWaiver(
                waiver_id=waiver.waiver_id,
                through=waiver.through,
                actor=waiver.actor,
                reason=waiver.reason,
                at=waiver.at,
                organization_id=waiver.organization_id,
            )
            for waiver in source.waivers_in_force
        ],
    )


def from_wire_watermark(wire: SourceWatermark, *, now: datetime) -> WatermarkClaim:
    """A source's own word. It was said now at the latest, or no reset could ever take it back."""
    return WatermarkClaim(
        source=wire.source,
        through=wire.complete_through,
        as_of=min(wire.as_of, now),
        origin=WATERMARKS.name,
        actor=f"source:{wire.source}",
    )


def to_view_source(source: UsageSource, waiting: Sequence[WatermarkClaim] = ()) -> dict[str, Any]:
    """A source for people: also what was said and is not entered yet, and waivers that were taken back."""
    return {
        "source": source.source,
        "revision": source.revision,
        "state": source.state.value,
        "is_expected": source.is_expected,
        "silent_after_hours": source.silent_after_hours,
        "heard_at": _text(source.heard_at),
        "silent_since": _text(source.silent_since),
        "complete_through": _text(source.complete.through),
        "complete_later": [
            {"start": span.start.isoformat(), "end": span.end.isoformat()} for span in source.complete.ahead
        ],
        "parked": source.parked,
        "waiting": [to_view_claim(claim) for claim in waiting],
        "waivers": [_waiver(waiver) for waiver in source.waivers],
    }


def to_view_claim(claim: WatermarkClaim) -> dict[str, Any]:
    """A claim that waits until what it speaks for is entered."""
    return {
        "start": _text(claim.start),
        "complete_through": claim.through.isoformat(),
        "as_of": claim.as_of.isoformat(),
        "origin": claim.origin,
        "actor": claim.actor,
    }


def _waiver(waiver: Waiver) -> Mapping[str, Any]:
    return {
        "waiver_id": waiver.waiver_id,
        "through": waiver.through.isoformat(),
        "organization_id": waiver.organization_id,
        "actor": waiver.actor,
        "reason": waiver.reason,
        "at": waiver.at.isoformat(),
        "taken_back_by": waiver.taken_back_by,
    }


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
