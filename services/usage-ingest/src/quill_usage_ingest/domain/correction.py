"""Corrections: a named person takes reports out of count, or says what windows really held (L3, L20)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.correction_effects import PeriodEffect
from quill_usage_ingest.domain.evidence import OutOfCount
from quill_usage_ingest.domain.meter_event import Moment, name_of
from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_report import Correction, UsageReport, UsageWindow

REPORTS_MAX: Final = 1_000
"""Reports or windows that one correction may name: a month of half-hourly ones is a range, a year is a backfill."""


class CorrectionKind(StrEnum):
    """What a correction does."""

    VOID = "void"
    REPLACE = "replace"
    VOID_EVENTS = "void-events"


class NamedEvent(NamedTuple):
    """A kept meter event as people find it: who sent it, under which id, and when it happened."""

    source: str
    event_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Replacement:
    """What one window really held, for the counters named; the others keep what the source says."""

    window: UsageWindow
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CorrectionOrder:
    """What a person wants done. ``correction_id`` is theirs: the same id with the same content is a repeat.

    A void names kept reports or kept meter events; a replacement names a source, a span, and every window the source
    reported in it.
    """

    correction_id: str
    organization_id: str
    kind: CorrectionKind
    actor: str
    reason: str
    kept_ids: tuple[int, ...] = ()
    source: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    windows: tuple[Replacement, ...] = ()
    events: tuple[NamedEvent, ...] = ()

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Where the events it names stand among the organization's."""
        return tuple(
            Moment(each.time, name_of(self.organization_id, each.source, each.event_id)) for each in self.events
        )

    @property
    def content_hash(self) -> bytes:
        """Of everything asked for, in an order that does not depend on how it was written."""
        windows = sorted(
            (each.window.start.isoformat(), each.window.end.isoformat(), sorted(each.counters.items()))
            for each in self.windows
        )
        content = (
            self.correction_id,
            self.organization_id,
            self.kind.value,
            self.actor,
            self.reason,
            sorted(self.kept_ids),
            self.source,
            self.start.isoformat() if self.start else None,
            self.end.isoformat() if self.end else None,
            windows,
        )
        if self.events:  # what was kept before events could be voided keeps its hash
            events = sorted((each.source, each.event_id, each.time.isoformat()) for each in self.events)
            return hashlib.sha256(repr((*content, events)).encode()).digest()
        return hashlib.sha256(repr(content).encode()).digest()

    def replacement_report(self, replacement: Replacement, *, as_of: datetime) -> UsageReport:
        """One window of the replacement as the report that is kept and entered."""
        content = repr((self.content_hash, replacement.window.start.isoformat()))
        return UsageReport(
            report_id=f"correction:{self.correction_id}:{replacement.window.start.isoformat()}",
            organization_id=self.organization_id,
            source=self.source or "",
            window=replacement.window,
            completeness=Completeness.CORRECTED,
            as_of=as_of,
            counters=replacement.counters,
            content_hash=hashlib.sha256(content.encode()).digest(),
            correction=Correction(self.actor, self.reason),
        )


@dataclass(frozen=True, slots=True)
class TakenOut:
    """A report that a correction took out of count, and what its verdict was before anybody did."""

    kept_id: int
    window_start: datetime
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Reversion:
    """Who took a correction back."""

    actor: str
    reason: str
    at: datetime
    effects: tuple[PeriodEffect, ...]


@dataclass(frozen=True, slots=True)
class AppliedCorrection:
    """A correction as kept: what was asked, what it touched, what it changed, and whether it was taken back."""

    order: CorrectionOrder
    applied_at: datetime
    taken_out: tuple[TakenOut, ...]
    entered_ids: tuple[int, ...]
    effects: tuple[PeriodEffect, ...]
    reversion: Reversion | None = None

    @property
    def is_in_force(self) -> bool:
        return self.reversion is None

    def reverted(self, reversion: Reversion) -> "AppliedCorrection":
        return replace(self, reversion=reversion)

    def spans_out_of_count(self) -> dict[int, OutOfCount]:
        """For each report it ever kept from counting, when and by whom: voided ones, and replacements taken back."""
        order, reversion = self.order, self.reversion
        spans = {
            taken.kept_id: OutOfCount(
                order.correction_id,
                order.actor,
                order.reason,
                self.applied_at,
                reversion.at if reversion else None,
            )
            for taken in self.taken_out
        }
        if reversion is not None:
            by = OutOfCount(order.correction_id, reversion.actor, reversion.reason, reversion.at)
            spans |= dict.fromkeys(self.entered_ids, by)
        return spans


class InvalidCorrection(ValueError):
    """What was asked cannot be done; names the field and the fix."""

    def __init__(self, code: str, detail: str, attribute: str) -> None:
        super().__init__(detail)
        self.code = code
        self.attribute = attribute
