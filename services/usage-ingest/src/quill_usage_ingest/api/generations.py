"""``/v1/generations``: do both generations of reports say the same, so that v1 can be retired?"""

from datetime import date, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from quill_contracts.identifiers import SourceName
from quill_runtime.auth import ApiTokens
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.problems import Problem

from quill_usage_ingest.api.callers import Authorization
from quill_usage_ingest.domain.generation_comparison import (
    AGREEING,
    ComparisonState,
    CounterDifference,
    judge,
    newest_settled_day,
)
from quill_usage_ingest.domain.usage_book import YEARS
from quill_usage_ingest.store.generations import ComparisonKey, KeptComparison, PostgresGenerations
from quill_usage_ingest.wire.generations import AcceptanceAsked, to_wire_difference, to_wire_summary

DAYS_MAX: Final = 366
DAYS_SHOWN: Final = 31
PAGE_MAX: Final = 500
NEEDED_DAYS: Final = 14
_SEPARATOR: Final = "|"

FirstDay = Annotated[date | None, Query(alias="from")]
EndDay = Annotated[date | None, Query(alias="to")]
States = Annotated[list[ComparisonState] | None, Query(alias="state")]


def router(*, database: Database, tokens: ApiTokens, clock: Clock) -> APIRouter:
    """Comparisons; every call needs a token with the scope ``operator``."""
    routes = APIRouter(prefix="/v1/generations/comparison", tags=["generations"])

    @routes.get("")
    async def show(
        *,
        first: FirstDay = None,
        end: EndDay = None,
        state: States = None,
        source: SourceName | None = None,
        needed_days: Annotated[int, Query(ge=1, le=DAYS_MAX)] = NEEDED_DAYS,
        after: Annotated[str | None, Query(max_length=500)] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Summary and verdict per source, and the organization-days in a state; without one, those not agreeing.

        ``from`` is the first day, ``to`` the first not included, ``needed_days`` how many days in a row must be equal
        before v1 can be retired.
        """
        tokens.require(authorization, "operator")
        now = clock.now()
        start, stop = _span(first, end, now.date())
        states = state or [each for each in ComparisonState if each not in AGREEING]
        looked_back_to = newest_settled_day(now) - timedelta(days=needed_days)
        async with database.begin() as transaction:
            generations = PostgresGenerations(transaction)
            tallies = await generations.tallies(start, stop, source=source)
            evidence = await generations.tallies(
                min(start, looked_back_to), now.date() + timedelta(days=1), source=source
            )
            page = await generations.page(start, stop, source=source, states=states, after=_parsed(after), limit=limit)
        sources = {tally.source for tally in tallies}
        verdicts = {each: judge(each, evidence, now=now, needed_days=needed_days) for each in sources}
        return {
            "from": start.isoformat(),
            "to": stop.isoformat(),
            "summary": to_wire_summary(tallies, verdicts),
            "results": [_comparison(each) for each in page],
            "next_after": _SEPARATOR.join(map(str, page[-1].key)) if len(page) == limit else None,
        }

    @routes.post("/accept")
    async def accept(asked: AcceptanceAsked, authorization: Authorization = None) -> dict[str, Any]:
        """A named person accepts one difference with a reason; it counts as agreeing while it stays what it is."""
        tokens.require(authorization, "operator")
        now = clock.now()
        key = ComparisonKey(asked.day, asked.source, asked.organization_id)

        async def work(transaction: Transaction) -> dict[str, Any]:
            generations = PostgresGenerations(transaction)
            found = await generations.find(key)
            if found is None:
                detail = "organization_id: nothing was compared for this organization, day and source"
                raise Problem(404, "not_found", detail, attr="organization_id")
            if found.state in AGREEING:
                raise Problem(409, "nothing_to_accept", "both generations say the same; there is nothing to accept")
            if found.accepted_at is None:
                await generations.accept(found, actor=asked.actor, reason=asked.reason, now=now)
            elif (found.accepted_by, found.accepted_reason) != (asked.actor, asked.reason):
                detail = f"accepted by {found.accepted_by} already: {found.accepted_reason}"
                raise Problem(409, "nothing_to_accept", detail)
            accepted = await generations.find(key)
            if accepted is None:
                raise AssertionError("the row is held by this transaction")
            return _comparison(accepted)

        return await database.run(work)

    return routes


def _span(first: date | None, end: date | None, today: date) -> tuple[date, date]:
    for name, given in (("from", first), ("to", end)):
        if given is not None and given.year not in YEARS:
            raise Problem(400, "invalid_input", f"{name}: no report can be of that year", attr=name)
    stop = end or today + timedelta(days=1)
    start = first or stop - timedelta(days=DAYS_SHOWN)
    if not start < stop <= start + timedelta(days=DAYS_MAX):
        raise Problem(400, "invalid_input", f"to: must be after from, and at most {DAYS_MAX} days after it", attr="to")
    return start, stop


def _parsed(after: str | None) -> ComparisonKey | None:
    if after is None:
        return None
    try:
        day, source, organization_id = after.split(_SEPARATOR, 2)
        return ComparisonKey(date.fromisoformat(day), source, organization_id)
    except ValueError as error:
        detail = "after: give the next_after of an earlier answer"
        raise Problem(400, "invalid_input", detail, attr="after") from error


def _comparison(kept: KeptComparison) -> dict[str, Any]:
    return {
        "organization_id": kept.key.organization_id,
        "day": kept.key.day.isoformat(),
        "source": kept.key.source,
        "state": kept.state.value,
        "differing_counters": kept.differing,
        "differences": [to_wire_difference(CounterDifference(*each)) for each in kept.differences],
        "v1_report_id": kept.v1_report,
        "v2_report_id": kept.v2_report,
        "compared_at": kept.compared_at.isoformat(),
        "accepted": None
        if kept.accepted_at is None
        else {"actor": kept.accepted_by, "reason": kept.accepted_reason, "at": kept.accepted_at.isoformat()},
    }
