"""What two generations of reports say of the same organization and day, and when the older one can be retired."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from quill_usage_ingest.domain.usage_report import DAY, DayKey

SETTLED_AFTER: Final = timedelta(hours=24)
"""After a day's end both generations have had their say: v1 comes at 03:45, its latecomers at 10:00 UTC."""


class ComparisonState(StrEnum):
    """What came of comparing."""

    EQUAL = "equal"
    EQUAL_ZERO = "equal_zero"
    """v2 says that nothing was used, and v1 says it by silence."""
    DIFFERENT = "different"
    ONLY_V1 = "only_v1"
    ONLY_V2 = "only_v2"


AGREEING: Final = frozenset({ComparisonState.EQUAL, ComparisonState.EQUAL_ZERO})


@dataclass(frozen=True, slots=True)
class GenerationClaim:
    """The newest complete report of one generation for a day."""

    kept_id: int
    counters: Mapping[str, int]


class CounterDifference(NamedTuple):
    """One counter of which the two say different numbers; None where one does not name it."""

    counter: str
    v1: int | None
    v2: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides of one (organization, day, source), counter by counter."""

    key: DayKey
    state: ComparisonState
    differences: tuple[CounterDifference, ...]
    v1_report: int | None
    v2_report: int | None

    @property
    def fingerprint(self) -> bytes:
        """Of the state and every difference: an acceptance holds for exactly these."""
        return hashlib.sha256(repr((self.state.value, self.differences)).encode()).digest()


def compare(key: DayKey, v1: GenerationClaim | None, v2: GenerationClaim | None) -> Comparison | None:
    """Compare the newest complete claims of both generations; None when there is neither.

    A counter that is not named counts as zero, because counters come and go between releases (wire contract 5).
    """
    if v1 is None and v2 is None:
        return None
    said_by_v1, said_by_v2 = v1.counters if v1 else {}, v2.counters if v2 else {}
    differences = tuple(
        CounterDifference(counter, said_by_v1.get(counter), said_by_v2.get(counter))
        for counter in sorted({**said_by_v1, **said_by_v2})
        if said_by_v1.get(counter, 0) != said_by_v2.get(counter, 0)
    )
    if v2 is None:
        state = ComparisonState.ONLY_V1
    elif v1 is None:
        state = ComparisonState.ONLY_V2 if differences else ComparisonState.EQUAL_ZERO
    else:
        state = ComparisonState.DIFFERENT if differences else ComparisonState.EQUAL
    return Comparison(key, state, differences, v1.kept_id if v1 else None, v2.kept_id if v2 else None)


@dataclass(frozen=True, slots=True)
class DayTally:
    """How many organizations of one source and day came out how; ``accepted`` of those not agreeing were accepted."""

    source: str
    day: date
    states: Mapping[ComparisonState, int]
    accepted: int

    @property
    def organizations(self) -> int:
        return sum(self.states.values())

    @property
    def agreeing(self) -> int:
        return sum(count for state, count in self.states.items() if state in AGREEING)

    @property
    def is_equal(self) -> bool:
        """Every organization agrees, or its difference was accepted by a named person."""
        return 0 < self.organizations == self.agreeing + self.accepted


@dataclass(frozen=True, slots=True)
class RetirementVerdict:
    """Whether v1 can be retired for a source: ``equal_days`` days in a row up to the newest settled one were equal.

    ``broken_on`` is the newest settled day that was not, or was not compared at all; None when none was looked at.
    """

    source: str
    can_be_retired: bool
    equal_days: int
    needed_days: int
    since: date | None
    broken_on: date | None


def judge(source: str, tallies: Iterable[DayTally], *, now: datetime, needed_days: int) -> RetirementVerdict:
    """Count back from the newest settled day. A day without a comparison is no evidence and ends the row."""
    by_day = {tally.day: tally for tally in tallies if tally.source == source}
    oldest = min(by_day, default=None)
    day = newest_settled_day(now)
    since: date | None = None
    equal_days = 0
    while (tally := by_day.get(day)) is not None and tally.is_equal:
        since, equal_days = day, equal_days + 1
        day -= DAY
    was_looked_at = oldest is None or day >= oldest
    return RetirementVerdict(
        source=source,
        can_be_retired=equal_days >= needed_days,
        equal_days=equal_days,
        needed_days=needed_days,
        since=since,
        broken_on=day if was_looked_at else None,
    )


def newest_settled_day(now: datetime) -> date:
    """The last UTC day of which both generations have had their say."""
    return (now.astimezone(UTC) - SETTLED_AFTER - DAY).date()
