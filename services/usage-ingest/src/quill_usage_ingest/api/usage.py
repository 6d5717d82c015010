"""``/v1/usage``: how much, from which reports, how fresh (L5)."""

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from quill_contracts.identifiers import Instant, UsageKey
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.problems import Problem

from quill_usage_ingest.api.archived import refusing_archived
from quill_usage_ingest.api.callers import Authorization, license_sources, not_known, require_reader
from quill_usage_ingest.api.event_series import event_meter_document
from quill_usage_ingest.api.usage_series import AskedSeries, series_document
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_month import month_name
from quill_usage_ingest.domain.usage_report import WindowKey
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.source_views import PostgresSourceViews
from quill_usage_ingest.usecases.read_freshness import read_freshness
from quill_usage_ingest.usecases.recompute import recompute_organization
from quill_usage_ingest.usecases.recompute_events import recompute_events
from quill_usage_ingest.wire.usage_view import to_wire_kept_report, to_wire_usage

REPORTS_PAGE_MAX: Final = 500
REPORT_ID_MAX: Final = 2**63 - 1
PERIODS_SHOWN: Final = 24
"""Newest periods in an answer that names none; older ones are asked for by their start."""


def router(  # noqa: C901 - a list of routes
    *, database: Database, keyring: Keyring, tokens: ApiTokens, clock: Clock, slots: CounterSlots
) -> APIRouter:
    """``/v1/usage``."""
    routes = APIRouter(prefix="/v1/usage/{organization_id}", tags=["usage"])

    async def readable(usage: PostgresUsage, organization_id: str, authorization: str | None) -> Organization:
        return require_reader(
            await usage.organization(organization_id),
            organization_id,
            authorization=authorization,
            keyring=keyring,
            tokens=tokens,
            now=clock.now(),
        )

    @routes.get("")
    async def show_usage(
        organization_id: str,
        meter: UsageKey | None = None,
        period_start: Instant | None = None,
        *,
        asked: AskedSeries,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Usage per period and meter; with ``meter`` also the cells of the period asked for, or of the newest.

        With ``from``, ``to``, ``interval`` or ``by`` also the meter over time, as ``series``: by team or source, and
        where events feed the meter by one of its dimensions.
        """
        if asked.is_asked and meter is None:
            raise Problem(400, "required", "meter: name the meter whose series is asked for", attr="meter")
        async with refusing_archived(), database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            organization = await readable(usage, organization_id, authorization)
            meters = MeterMap.of(await usage.metered_products())
            if meter is not None and not meters.knows(meter):
                raise Problem(404, "not_found", f"meter: the catalog has no meter {meter}", attr="meter")
            periods = await _periods(usage, organization_id, period_start)
            windows: list[tuple[WindowKey, WindowCells]] = []
            if meter in meters.counter_by_meter and periods:
                newest = periods[-1].period
                windows = await usage.windows_between(organization_id, newest.start, newest.end)
            oldest = periods[0].period.start if periods else clock.now()
            events = await usage.event_usage(meters, [organization_id], since=oldest)
            freshness = await read_freshness(
                organization_id,
                [held.period for held in periods],
                license_sources=license_sources(organization, keyring),
                usage=usage,
                sources=PostgresSourceViews(transaction),
            )
            document = to_wire_usage(
                organization,
                periods=periods,
                freshness=freshness,
                meters=meters,
                meter=meter,
                windows=windows,
                events=events,
            )
            if meter is not None and meter in meters.event_meters:
                document |= await event_meter_document(
                    asked,
                    organization,
                    meter=meters.event_meters[meter],
                    period=periods[-1].period if periods else None,
                    transaction=transaction,
                    now=clock.now(),
                )
            elif asked.is_asked and meter is not None:
                counter = meters.counter_by_meter[meter]
                document["series"] = await series_document(
                    asked,
                    organization,
                    counter=counter,
                    counts_from=meters.counts_from.get(meter),
                    transaction=transaction,
                    slots=slots,
                    now=clock.now(),
                )
        return document

    @routes.get("/reports")
    async def list_reports(
        organization_id: str,
        window_start: Instant | None = None,
        after_id: Annotated[int, Query(ge=0, le=REPORT_ID_MAX)] = 0,
        limit: Annotated[int, Query(ge=1, le=REPORTS_PAGE_MAX)] = 100,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """The reports behind the numbers, with what became of each; those of ``archived_months`` are not among them."""
        async with refusing_archived(), database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            await readable(usage, organization_id, authorization)
            archived = await usage.archived_months()
            kept = await usage.kept_reports(organization_id, window_start=window_start, after_id=after_id, limit=limit)
        return {
            "results": [to_wire_kept_report(report) for report in kept],
            "next_after_id": kept[-1].id if len(kept) == limit else None,
            "archived_months": [month_name(month) for month in sorted(archived)],
        }

    @routes.post("/recompute")
    async def recompute(organization_id: str, authorization: Authorization = None) -> dict[str, Any]:
        """Add up an organization's cells again; says which periods did not agree and were repaired."""
        tokens.require(authorization, "operator")

        async def work(transaction: Transaction) -> dict[str, Any]:
            usage = PostgresUsage(transaction, slots)
            if await usage.organization(organization_id) is None:
                raise not_known()
            events = PostgresEvents(transaction)
            await events.share_meters()
            result = await recompute_organization(organization_id, tx=usage)
            of_events = await recompute_events(organization_id, tx=usage, events=events)
            repaired = sorted({period.start for period in (*result.repaired, *of_events)})
            return {
                "organization_id": organization_id,
                "repaired_periods": [start.isoformat() for start in repaired],
                "retired_periods": result.retired,
            }

        return await database.run(work)

    return routes


async def _periods(usage: PostgresUsage, organization_id: str, period_start: datetime | None) -> list[PeriodUsage]:
    """The period asked for, or the newest ones, oldest first."""
    if period_start is None:
        return await usage.periods_in_force(organization_id, newest=PERIODS_SHOWN)
    periods = await usage.periods_in_force(organization_id, newest=None)
    asked = [held for held in periods if held.period.start == period_start]
    if not asked:
        raise Problem(404, "not_found", "period_start: no usage in this period", attr="period_start")
    return asked
