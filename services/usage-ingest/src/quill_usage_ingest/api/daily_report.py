"""``POST /api/usage``: PostHog's daily report (wire contract 5)."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, Request
from quill_contracts.licenses import CLOUD, LicenseType
from quill_runtime.auth import Keyring, SignedCaller
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.outbox import MessageTooLarge, Outbox
from quill_runtime.problems import Problem

from quill_usage_ingest.api.callers import Authorization, arriving_license, not_yours
from quill_usage_ingest.domain.current_usage import CurrentUsage
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.usage_book import Refusal
from quill_usage_ingest.domain.watermark import watermark_of_day
from quill_usage_ingest.ports import SNAPSHOT_PERIODS, Arrival, ArrivedReport, TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.early_reports import TooManyEarlyReports, keep_early_report
from quill_usage_ingest.store.generation_marks import mark_comparisons
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.record_reports import NotYours, OrganizationUnknown, record_daily_report
from quill_usage_ingest.usecases.record_teams import record_teams
from quill_usage_ingest.wire.daily_reports import (
    DailyReport,
    InvalidDailyReport,
    from_wire_daily_report,
    to_usage_report,
)
from quill_usage_ingest.wire.period_usage import to_wire_billing_answer, to_wire_unknown_customer
from quill_usage_ingest.wire.queued_reports import to_queued_report
from quill_usage_ingest.wire.team_reports import InvalidTeams, teams_of_daily_report

_LATER: Final = {"Retry-After": "60"}


def router(
    *,
    database: Database,
    outbox: Outbox,
    keyring: Keyring,
    clock: Clock,
    slots: CounterSlots,
    heard: HeardSources,
    publication: SnapshotPublication,
) -> APIRouter:
    """``/api/usage``."""
    routes = APIRouter(tags=["usage"])

    @routes.post("/api/usage")
    async def report_day(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Take one organization's daily report; answer 200 with the billing object once it is durable.

        A report for an organization that is not known yet is kept, and enters when its first customer snapshot arrives.
        PostHog's client raises on anything but 200, so the answer is 200 with a billing object that says nothing.
        """
        now = clock.now()
        caller = await arriving_license(authorization, keyring, now)
        try:
            daily = from_wire_daily_report(await request.body())
            if caller.claims["organization_id"] != daily.organization_id:
                raise not_yours()
            current = await database.run(
                lambda transaction: _record(transaction, daily, outbox=outbox, caller=caller, slots=slots, now=now)
            )
        except OrganizationUnknown:
            await _keep_early(database, daily, outbox=outbox, caller=caller, now=now)
            heard.note(caller.attributes["source"], now)
            return to_wire_unknown_customer(caller.attributes["type"])
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
        # GET /api/billing waits for what Kafka has confirmed, so it is not older than this answer.
        await publication.confirm_due()
        return to_wire_billing_answer(current, now=now)

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
    current = await record_daily_report(
        arrived, license_id=caller.key_id, is_of_region=_is_of_region(caller), tx=usage, now=now
    )
    if isinstance(current, CurrentUsage):
        on_account = replace(report, organization_id=current.organization.organization_id)
        await record_teams([replace(teams, report=on_account)], tx=PostgresTeams(transaction, slots), now=now)
        await mark_comparisons(transaction, [on_account])
        # A region reports many organizations; only an instance's source has told everything with one report.
        claim = watermark_of_day(on_account, actor=f"license:{caller.key_id}")
        if claim is not None and not _is_of_region(caller):
            await PostgresSources(transaction, outbox).add_claims([claim], now=now)
        return await _with_event_usage(current, usage)
    return current


async def _with_event_usage(current: CurrentUsage, usage: PostgresUsage) -> CurrentUsage:
    """With what meters that events feed used, in the periods before too where one of them is carried."""
    account = current.organization.organization_id
    periods = [current.period]
    if any(meter.carried for meter in current.meters.event_meters.values()):
        for _ in range(SNAPSHOT_PERIODS - 1):
            before = periods[-1].start - timedelta(microseconds=1)
            periods.append(current.organization.schedules.period_containing(before))
    found = await usage.event_usage(current.meters, [account], since=periods[-1].start)
    present, *earlier = (
        {meter: complete for meter, (complete, _, _) in found.get((account, each.start, each.end), {}).items()}
        for each in periods
    )
    return replace(current, event_usage=present, earlier_event_usage=earlier)


async def _keep_early(
    database: Database, daily: DailyReport, *, outbox: Outbox, caller: SignedCaller, now: datetime
) -> None:
    """Keep a good report of an organization nobody knows.

    Raises:
        Problem: 429 when the license has too many of them, 503 when it is too large to be kept; send it again.
    """
    report, _ = to_usage_report(daily, source=caller.attributes["source"], metered_counters=(), now=now)
    license_type: LicenseType = caller.attributes["type"]  # type: ignore[assignment]
    queued = to_queued_report(daily.body, report, license_id=caller.key_id, license_type=license_type)

    async def keep(transaction: Transaction) -> None:
        await keep_early_report(
            transaction,
            queued,
            organization_id=daily.organization_id,
            is_of_region=_is_of_region(caller),
            outbox=outbox,
            now=now,
        )

    unknown = (
        "organization_id: this organization is not known yet; ask for its billing once, then send the report again"
    )
    try:
        await database.run(keep)
    except TooManyEarlyReports as error:
        raise Problem(429, "too_many_reports", unknown, attr="organization_id", headers=_LATER) from error
    except MessageTooLarge as error:
        raise Problem(503, "unknown_organization", unknown, attr="organization_id", headers=_LATER) from error


def _is_of_region(caller: SignedCaller) -> bool:
    return caller.attributes["type"] == CLOUD
