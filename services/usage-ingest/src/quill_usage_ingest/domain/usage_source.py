"""A source of usage and its life: heard, expected, silent, complete through, waived, retired (L20).

What happens to it are events; the state is their fold. Only ``heard_at`` moves between events, and the number of parked
reports and the published revision are kept beside.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from quill_usage_ingest.domain.complete_through import NOTHING_TOLD, CompleteThrough, Span
from quill_usage_ingest.domain.watermark import WatermarkClaim

SILENT_AFTER_HOURS: Final = 26
"""A daily report and two hours."""
WAIVERS_MAX: Final = 1_000
"""Of one source, ever; a person makes each."""
CLOCKWORK: Final = "clock"
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)


def is_source_name(text: str) -> bool:
    """Whether a source of this name can be watched. Meter events may name any text; then nobody waits for it."""
    return _NAME.fullmatch(text) is not None


class SourceState(StrEnum):
    """What the state of a source is called outside."""

    REPORTING = "reporting"
    SILENT = "silent"
    RETIRED = "retired"


class WaiverRefused(Exception):
    """The waiver cannot be made or taken back; ``code`` for machines, the text for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class NotBack(ValueError):
    """A reset must name an instant before the present watermark."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """A named person's word that the source need not be waited for up to ``through``."""

    waiver_id: str
    through: datetime
    actor: str
    reason: str
    at: datetime
    organization_id: str | None = None
    taken_back_by: str | None = None

    def says_the_same_as(self, other: "Waiver") -> bool:
        """Apart from when it was made and whether it was taken back."""
        return replace(self, at=other.at, taken_back_by=other.taken_back_by) == other


@dataclass(frozen=True, slots=True)
class FirstHeard:
    """A report or a word of the source arrived, and it was not known before."""

    at: datetime


@dataclass(frozen=True, slots=True)
class HeardAgain:
    """A silent source was heard of."""

    at: datetime


@dataclass(frozen=True, slots=True)
class FellSilent:
    """An expected source has not been heard of for longer than it may be: overdue ``since``."""

    since: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Declared:
    """A person said what is expected of the source."""

    is_expected: bool
    silent_after_hours: int
    is_retired: bool
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Advanced:
    """A claim was found entered: more is complete."""

    through: datetime | None
    ahead: tuple[Span, ...]
    origin: str
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SetBack:
    """A person took the watermark back to ``through``; what was said until ``at`` counts no longer."""

    through: datetime | None
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Waived:
    """A waiver came into force."""

    waiver: Waiver


@dataclass(frozen=True, slots=True)
class WaiverTakenBack:
    """A waiver counts no longer for what is not closed yet."""

    waiver_id: str
    actor: str
    reason: str
    at: datetime


SourceEvent = FirstHeard | HeardAgain | FellSilent | Declared | Advanced | SetBack | Waived | WaiverTakenBack


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSource:
    """What is known of one source.

    Attributes:
        version: Of its event stream.
        revision: Of the newest snapshot published of it.
        parked: Its reports that wait as dead letters.
    """

    source: str
    version: int = 0
    revision: int = 0
    parked: int = 0
    is_expected: bool = False
    expected_at: datetime | None = None
    silent_after_hours: int = SILENT_AFTER_HOURS
    is_retired: bool = False
    heard_at: datetime | None = None
    silent_since: datetime | None = None
    complete: CompleteThrough = NOTHING_TOLD
    set_back_at: datetime | None = None
    waivers: tuple[Waiver, ...] = ()

    @property
    def state(self) -> SourceState:
        if self.is_retired:
            return SourceState.RETIRED
        return SourceState.REPORTING if self.silent_since is None else SourceState.SILENT

    @property
    def waivers_in_force(self) -> tuple[Waiver, ...]:
        return tuple(waiver for waiver in self.waivers if waiver.taken_back_by is None)

    @property
    def overdue_at(self) -> datetime | None:
        """When it will have been silent for too long; None when nobody waits for it."""
        begun = [instant for instant in (self.heard_at, self.expected_at) if instant is not None]
        if not self.is_expected or not begun:
            return None
        return max(begun) + timedelta(hours=self.silent_after_hours)

    # -- decisions -------------------------------------------------------------------------------------------------

    def hear(self, at: datetime) -> list[SourceEvent]:
        """Something of it arrived at ``at``."""
        if self.heard_at is None:
            return [FirstHeard(at), HeardAgain(at)] if self.silent_since is not None else [FirstHeard(at)]
        return [HeardAgain(at)] if self.silent_since is not None and at > self.heard_at else []

    def watch(self, now: datetime) -> list[SourceEvent]:
        """Whether the silence has lasted too long by ``now``."""
        overdue_at = self.overdue_at
        if overdue_at is None or self.silent_since is not None or now < overdue_at:
            return []
        return [FellSilent(overdue_at, now)]

    def declare(
        self, *, is_expected: bool, silent_after_hours: int, is_retired: bool, actor: str, reason: str, now: datetime
    ) -> list[SourceEvent]:
        """A person's word; nobody waits for a retired source. Saying the same again changes nothing."""
        said = Declared(is_expected and not is_retired, silent_after_hours, is_retired, actor, reason, now)
        before = (self.is_expected, self.silent_after_hours, self.is_retired)
        return [] if (said.is_expected, silent_after_hours, is_retired) == before else [said]

    def advance(self, claim: WatermarkClaim, *, now: datetime) -> list[SourceEvent]:
        """Take in a claim whose reports were entered; one that says nothing new, or that was taken back, is none."""
        if self.set_back_at is not None and claim.as_of <= self.set_back_at:
            return []
        complete = claim.added_to(self.complete)
        if complete == self.complete:
            return []
        return [Advanced(complete.through, complete.ahead, claim.origin, claim.actor, claim.reason, now)]

    def set_back(self, through: datetime | None, *, actor: str, reason: str, now: datetime) -> list[SourceEvent]:
        """Take the watermark back; the only way it falls.

        Raises:
            NotBack: it would not fall.
        """
        if self.complete == CompleteThrough(through):
            return []
        if through is not None and (self.complete.through is None or through > self.complete.through):
            raise NotBack("complete_through: a reset goes back; give an instant before the present watermark")
        return [SetBack(through, actor, reason, now)]

    def waive(self, waiver: Waiver) -> list[SourceEvent]:
        """Bring a waiver into force; the same again changes nothing.

        Raises:
            WaiverRefused: the id is known with another content or was taken back, or there are too many.
        """
        known = self._waiver(waiver.waiver_id)
        if known is None:
            if len(self.waivers) >= WAIVERS_MAX:
                raise WaiverRefused("too_many_waivers", f"waiver_id: {self.source} has {WAIVERS_MAX} waivers already")
            return [Waived(waiver)]
        if known.taken_back_by is not None:
            raise WaiverRefused("waiver_taken_back", "waiver_id: this waiver was taken back; choose another id")
        if not known.says_the_same_as(waiver):
            raise WaiverRefused("waiver_conflict", "waiver_id: is known with another content; choose another id")
        return []

    def take_back(self, waiver_id: str, *, actor: str, reason: str, now: datetime) -> list[SourceEvent]:
        """Take a waiver back; what was closed by it stays closed. Again changes nothing.

        Raises:
            WaiverRefused: there is none of this id.
        """
        known = self._waiver(waiver_id)
        if known is None:
            raise WaiverRefused("unknown_waiver", f"waiver_id: {self.source} has no such waiver")
        return [] if known.taken_back_by is not None else [WaiverTakenBack(waiver_id, actor, reason, now)]

    def _waiver(self, waiver_id: str) -> Waiver | None:
        return next((waiver for waiver in self.waivers if waiver.waiver_id == waiver_id), None)

    # -- evolution -------------------------------------------------------------------------------------------------

    def heard(self, at: datetime) -> "UsageSource":
        """With the newest instant at which something of it arrived."""
        return replace(self, heard_at=at if self.heard_at is None else max(self.heard_at, at))

    def evolved(self, event: SourceEvent) -> "UsageSource":  # noqa: PLR0911 - one per kind of event
        """The state after one event."""
        after = replace(self, version=self.version + 1)
        match event:
            case FirstHeard(at):
                return after.heard(at)
            case HeardAgain(at):
                return replace(after.heard(at), silent_since=None)
            case FellSilent(since):
                return replace(after, silent_since=since)
            case Declared():
                return after._declared(event)  # noqa: SLF001 - itself
            case Advanced(through, ahead):
                return replace(after, complete=CompleteThrough(through, ahead))
            case SetBack(through=through, at=at):
                return replace(after, complete=CompleteThrough(through), set_back_at=at)
            case Waived(waiver):
                return replace(after, waivers=(*self.waivers, waiver))
            case WaiverTakenBack(waiver_id, actor):
                waivers = tuple(
                    replace(waiver, taken_back_by=actor) if waiver.waiver_id == waiver_id else waiver
                    for waiver in self.waivers
                )
                return replace(after, waivers=waivers)
            case _:
                assert_never(event)

    def _declared(self, event: Declared) -> "UsageSource":
        since = self.expected_at if self.is_expected else event.at
        after = replace(
            self,
            is_expected=event.is_expected,
            expected_at=since if event.is_expected else None,
            silent_after_hours=event.silent_after_hours,
            is_retired=event.is_retired,
        )
        overdue_at = after.overdue_at
        is_overdue = overdue_at is not None and overdue_at <= event.at
        return after if is_overdue else replace(after, silent_since=None)
