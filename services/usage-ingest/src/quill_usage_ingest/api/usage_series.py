"""``GET /v1/usage/{org}?meter=…&interval=…``: one meter over time, whole, by source or by team (L5, L6)."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from quill_runtime.database import Transaction
from quill_runtime.problems import Problem

from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.usage_report import DAY
from quill_usage_ingest.domain.usage_series import Amount, SeriesInterval, SeriesSpan, series
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.read_series import (
    BreakdownTooLarge,
    amount_of,
    read_source_amounts,
    read_team_amounts,
)

RANGE_DAYS_MAX: Final = 366


class SeriesBy(StrEnum):
    """What a series is told apart by."""

    TEAM = "team"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class SeriesQuestion:
    """What the address asks for: days from ``start`` up to and not including ``end``."""

    start: date | None
    end: date | None
    interval: SeriesInterval | None
    by: str | None

    @property
    def is_asked(self) -> bool:
        return (self.start, self.end, self.interval, self.by) != (None, None, None, None)

    def span(self, organization: Organization, *, now: datetime) -> SeriesSpan:
        """The days meant: by default those of the present billing period, up to and including today.

        Raises:
            Problem: 400 for a span that is empty or too long.
        """
        end = _midnight(self.end) if self.end else datetime(now.year, now.month, now.day, tzinfo=UTC) + DAY
        start = _midnight(self.start) if self.start else organization.schedules.period_containing(end - DAY).start
        start = datetime(start.year, start.month, start.day, tzinfo=UTC)
        if start >= end:
            raise Problem(400, "invalid_input", "to: must be a day after from; it is not included", attr="to")
        if (end - start).days > RANGE_DAYS_MAX:
            detail = f"from: ask for at most {RANGE_DAYS_MAX} days at a time"
            raise Problem(400, "usage_date_range_too_long", detail, attr="from")
        return SeriesSpan(start, end, self.interval or SeriesInterval.DAY)


def series_question(
    start: Annotated[date | None, Query(alias="from", description="First day, UTC.")] = None,
    end: Annotated[date | None, Query(alias="to", description="First day not included, UTC.")] = None,
    interval: SeriesInterval | None = None,
    by: Annotated[
        str | None, Query(max_length=100, description="team, source, or a dimension of a meter that events feed.")
    ] = None,
) -> SeriesQuestion:
    """The part of the address that asks for a series."""
    return SeriesQuestion(start, end, interval, by)


AskedSeries = Annotated[SeriesQuestion, Depends(series_question)]


async def series_document(
    question: SeriesQuestion,
    organization: Organization,
    *,
    counter: str,
    counts_from: datetime | None,
    transaction: Transaction,
    slots: CounterSlots,
    now: datetime,
) -> dict[str, Any]:
    """The series as JSON: exact integers, and ``is_partial`` where a source still counts or the interval is not over.

    Raises:
        Problem: 400 for a span or a breakdown that is too large.
    """
    if question.by not in (None, *SeriesBy):
        raise Problem(400, "invalid_input", f"by: must be one of {', '.join(SeriesBy)}", attr="by")
    span = question.span(organization, now=now)
    counted = span if counts_from is None else replace(span, start=min(max(span.start, counts_from), span.end))
    amounts: dict[str | None, list[Amount]] = {} if question.by else {None: []}
    organization_id = organization.organization_id
    if question.by == SeriesBy.TEAM:
        try:
            rows = await read_team_amounts(
                organization_id, counted, counters={counter}, team_ids=None, tx=PostgresTeams(transaction, slots)
            )
        except BreakdownTooLarge as error:
            raise Problem(400, "usage_breakdown_too_large", str(error), attr="by") from error
        for row in rows:
            amounts.setdefault(row.team_id, []).append(amount_of(row, counted))
    else:
        usage = PostgresUsage(transaction, slots)
        for source, _, amount in await read_source_amounts(
            organization_id, counted, counters=frozenset({counter}), tx=usage
        ):
            amounts.setdefault(source if question.by else None, []).append(amount)
    return {
        "from": span.start.date().isoformat(),
        "to": span.end.date().isoformat(),
        "interval": span.interval.value,
        "by": question.by,
        "series": [
            {
                "key": key,
                "total": sum(amount.quantity for amount in held),
                "points": [
                    {
                        "start": point.start.date().isoformat(),
                        "end": point.end.date().isoformat(),
                        "quantity": point.quantity,
                        "is_partial": point.is_partial,
                    }
                    for point in series(span, held, now=now)
                ],
            }
            for key, held in sorted(amounts.items(), key=lambda item: item[0] or "")
        ],
    }


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
