"""``POST /api/usage``: PostHog's daily report (wire contract 5)."""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from quill_runtime.auth import Keyring, SignedCaller
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.outbox import Outbox
from quill_runtime.problems import Problem

from quill_usage_ingest.api.callers import Authorization, license_caller, not_yours
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.usage_book import Refusal
from quill_usage_ingest.domain.watermark import watermark_of_day
from quill_usage_ingest.ports import Arrival, ArrivedReport, TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.generation_marks import mark_comparisons
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.record_reports import CurrentUsage, NotYours, record_daily_report
from quill_usage_ingest.usecases.record_teams import record_teams
from quill_usage_ingest.wire.daily_reports import (
    DailyReport,
    InvalidDailyReport,
    from_wire_daily_report,
    to_usage_report,
)
from quill_usage_ingest.wire.period_usage import to_wire_billing_answer
from quill_usage_ingest.wire.team_reports import InvalidTeams, teams_of_daily_report

CLOUD: Final = "cloud"
"""Type of the licenses that stand for a region."""


def router(
    *, database: Database, outbox: Outbox, keyring: Keyring, clock: Clock, slots: CounterSlots, heard: HeardSources
) -> APIRouter:
    """``/api/usage``."""
    routes = APIRouter(tags=["usage"])

    @routes.post("/api/usage")
    async def report_day(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Take one organization's daily report; answer 200 with the billing object once it is durable."""
        now = clock.now()
        caller = license_caller(authorization, keyring, now)
        try:
            daily = from_wire_daily_report(await request.body())
            if caller.claims["organization_id"] != daily.organization_id:
                raise not_yours()
            current = await database.run(
                lambda transaction: _record(transaction, daily, outbox=outbox, caller=caller, slots=slots, now=now)
            )
        except InvalidDailyReport as error:
            raise Problem(400, error.code, str(error), attr=error.attribute) from error
        except InvalidTeams as error:
            raise Problem(400, "invalid_input", str(error), attr=error.attribute) from error
        except NotYours as error:
            raise not_yours() from error
        except TooManyCounters as error:
            raise Problem(400, "too_many_counters", str(error), attr=error.counter) from error
        if isinstance(current, Refusal):
            raise Problem(400, current.code, current.detail, attr=current.attribute)
        heard.note(caller.attributes["source"], now)
        return to_wire_billing_answer(
            current.organization,
            period=current.period,
            usage=current.usage,
            meters=current.meters,
            event_usage=current.event_usage,
        )

    return routes


async def _record(
    transaction: Transaction,
    daily: DailyReport,
    *,
    outbox: Outbox,
    caller: SignedCaller,
    slots: CounterSlots,
    now: datetime,
) -> CurrentUsage | Refusal:
    usage = PostgresUsage(transaction, slots)
    meters = MeterMap.of(await usage.metered_products())
    report, note = to_usage_report(daily, source=caller.attributes["source"], metered_counters=meters.counters, now=now)
    teams = teams_of_daily_report(daily.fields, report, metered_counters=meters.counters)
    arrived = ArrivedReport(report, Arrival("http", daily.body, note=note))
    current = await record_daily_report(arrived, license_id=caller.key_id, tx=usage, now=now)
    if isinstance(current, CurrentUsage):
        on_account = replace(report, organization_id=current.organization.organization_id)
        await record_teams([replace(teams, report=on_account)], tx=PostgresTeams(transaction, slots), now=now)
        await mark_comparisons(transaction, [on_account])
        # A region reports many organizations; only an instance's source has told everything with one report.
        claim = watermark_of_day(on_account, actor=f"license:{caller.key_id}")
        if claim is not None and caller.attributes["type"] != CLOUD:
            await PostgresSources(transaction, outbox).add_claims([claim], now=now)
        account, period = current.organization.organization_id, current.period
        found = await usage.event_usage(current.meters, [account], since=period.start)
        of_events = found.get((account, period.start, period.end), {})
        return replace(current, event_usage={meter: complete for meter, (complete, _, _) in of_events.items()})
    return current
