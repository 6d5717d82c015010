"""``POST /v1/usage/reports``: reports from a file, up to 500 at a time, with a dry run."""

from collections import Counter
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from quill_runtime.auth import ApiTokens
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.problems import Problem

from quill_usage_ingest.api.callers import Authorization
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.usage_book import Refusal
from quill_usage_ingest.domain.usage_report import UsageReport
from quill_usage_ingest.ports import Arrival, ArrivedReport, TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.backfill import Backfilled, backfill_reports
from quill_usage_ingest.wire.backfill import (
    BackfillAsked,
    BackfillLine,
    InvalidBackfill,
    from_wire_backfill,
    from_wire_backfill_line,
)

Answer = list[tuple[UsageReport | None, Backfilled]]


class _DryRun(Exception):
    """Carries the answer out of a transaction that is to be given up."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("a dry run changes nothing")
        self.answer = answer


def router(*, database: Database, tokens: ApiTokens, clock: Clock, slots: CounterSlots) -> APIRouter:
    """Backfill; services and operators only."""
    routes = APIRouter(tags=["usage"])

    @routes.post("/v1/usage/reports")
    async def backfill(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Enter reports in order; lines that cannot be entered are answered with their reason and left out."""
        tokens.require(authorization, "operator", "service")
        now = clock.now()
        try:
            asked = from_wire_backfill(await request.body())
        except InvalidBackfill as error:
            raise Problem(400, "invalid_input", str(error), attr="reports") from error

        async def work(transaction: Transaction) -> Answer:
            answer = await _enter(PostgresUsage(transaction, slots), asked, now=now)
            if asked.dry_run:
                raise _DryRun(answer)
            return answer

        try:
            answer = await database.run(work)
        except _DryRun as dry:
            answer = dry.answer
        except TooManyCounters as error:
            raise Problem(400, "too_many_counters", str(error), attr=error.counter) from error
        outcomes = Counter(_outcome(each) for _, each in answer)
        return {
            "dry_run": asked.dry_run,
            "outcomes": dict(sorted(outcomes.items())),
            "results": [_result(index, report, each) for index, (report, each) in enumerate(answer)],
        }

    return routes


async def _enter(usage: PostgresUsage, asked: BackfillAsked, *, now: datetime) -> Answer:
    counters = MeterMap.of(await usage.metered_products()).counters
    lines = [from_wire_backfill_line(line, asked, metered_counters=counters, now=now) for line in asked.reports]
    read = [line for line in lines if isinstance(line, BackfillLine)]
    entered = iter(
        await backfill_reports(
            [ArrivedReport(line.report, Arrival("backfill", line.body, note=line.note)) for line in read],
            tx=usage,
            now=now,
        )
    )
    return [
        (line.report, next(entered)) if isinstance(line, BackfillLine) else (None, Backfilled(line)) for line in lines
    ]


def _outcome(each: Backfilled) -> str:
    return "refused" if isinstance(each.outcome, Refusal) else each.outcome.value


def _result(index: int, report: UsageReport | None, each: Backfilled) -> dict[str, Any]:
    refusal = each.outcome if isinstance(each.outcome, Refusal) else None
    return {
        "index": index,
        "organization_id": report.organization_id if report else None,
        "report_id": report.report_id if report else None,
        "outcome": _outcome(each),
        "code": refusal.code if refusal else None,
        "detail": refusal.detail if refusal else None,
        "attr": (refusal.attribute or None) if refusal else None,
        "changes": {
            counter: {"before": change.before.quantity, "after": change.after.quantity}
            for counter, change in sorted(each.changes.items())
        },
    }
