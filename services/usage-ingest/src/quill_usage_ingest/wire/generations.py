"""The comparison of report generations over HTTP."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import ROUND_DOWN, Decimal
from itertools import groupby
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from quill_contracts.identifiers import SourceName

from quill_usage_ingest.domain.generation_comparison import (
    ComparisonState,
    CounterDifference,
    DayTally,
    RetirementVerdict,
)

_SHARE_PLACES: Final = Decimal("0.000001")


class AcceptanceAsked(BaseModel):
    """Who accepts the difference of one organization, day and source, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    organization_id: Annotated[str, Field(min_length=1, max_length=200)]
    day: date
    source: SourceName
    actor: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


def to_wire_summary(tallies: Sequence[DayTally], verdicts: Mapping[str, RetirementVerdict]) -> list[dict[str, Any]]:
    """Per source: how many days and organization-days agree, and whether v1 can be retired."""
    found = []
    for source, own in groupby(tallies, key=lambda tally: tally.source):
        days = list(own)
        organization_days = sum(tally.organizations for tally in days)
        agreeing = sum(tally.agreeing for tally in days)
        found.append(
            {
                "source": source,
                "days": len(days),
                "days_equal": sum(1 for tally in days if tally.is_equal),
                "organization_days": organization_days,
                "organization_days_agreeing": agreeing,
                "share_agreeing": share(agreeing, organization_days),
                "states": {state.value: _count(days, state) for state in ComparisonState},
                "accepted": sum(tally.accepted for tally in days),
                "v1_retirement": to_wire_verdict(verdicts[source]),
            }
        )
    return found


def share(part: int, whole: int) -> str:
    """Rounded down, so that only all of it is ``1.000000``."""
    return str((Decimal(part) / Decimal(whole)).quantize(_SHARE_PLACES, ROUND_DOWN)) if whole else "0.000000"


def _count(days: Iterable[DayTally], state: ComparisonState) -> int:
    return sum(tally.states.get(state, 0) for tally in days)


def to_wire_verdict(verdict: RetirementVerdict) -> dict[str, Any]:
    """The verdict with its one sentence for people."""
    if verdict.can_be_retired:
        sentence = f"v1 can be retired for {verdict.source}: equal every day since {verdict.since}"
    else:
        sentence = (
            f"v1 cannot be retired for {verdict.source} yet: {verdict.equal_days} of {verdict.needed_days} days in a"
            " row are equal"
        )
        if verdict.broken_on is not None:
            sentence += f"; {verdict.broken_on} is different or was not compared"
    return {
        "can_be_retired": verdict.can_be_retired,
        "since": verdict.since.isoformat() if verdict.since else None,
        "equal_days": verdict.equal_days,
        "needed_days": verdict.needed_days,
        "broken_on": verdict.broken_on.isoformat() if verdict.broken_on else None,
        "sentence": sentence,
    }


def to_wire_difference(difference: CounterDifference) -> dict[str, Any]:
    """One counter with both numbers; null where a side does not name it."""
    return difference._asdict()
