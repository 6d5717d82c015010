"""``/v1/usage/{organization}``: why a number is what it is, what was known when, and the bytes it came from (L5)."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from quill_contracts.identifiers import Instant, UsageKey
from quill_pricing.period import BillingPeriod
from quill_runtime import dead_letters
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.dead_letters import DeadLetter
from quill_runtime.problems import Problem

from quill_usage_ingest.api.archived import refusing_archived
from quill_usage_ingest.api.callers import Authorization, license_sources, require_reader
from quill_usage_ingest.domain.explained_events import EventExplanation
from quill_usage_ingest.domain.freshness import Freshness
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.usage_book import YEARS
from quill_usage_ingest.domain.usage_month import month_name
from quill_usage_ingest.store.claims import TooManyClaims, UnreadableClaim
from quill_usage_ingest.store.corrections import PostgresCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.source_views import PostgresSourceViews
from quill_usage_ingest.usecases.explain_events import TooManyEvents, explain_events
from quill_usage_ingest.usecases.explain_usage import explain_usage, usage_as_of
from quill_usage_ingest.usecases.read_freshness import read_freshness
from quill_usage_ingest.wire.event_view import to_wire_event_explanation
from quill_usage_ingest.wire.explanation import to_wire_as_of, to_wire_explanation
from quill_usage_ingest.wire.freshness import to_wire_freshness
from quill_usage_ingest.wire.usage_view import to_wire_kept_report

PARKED_SHOWN: Final = 100
ReportId = Annotated[int, Path(ge=1, le=2**63 - 1)]


def router(*, database: Database, keyring: Keyring, tokens: ApiTokens, clock: Clock, slots: CounterSlots) -> APIRouter:
    """``explain``, ``as-of`` and single reports; who may read usage may read why."""
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

    @routes.get("/explain")
    async def explain(
        organization_id: str,
        meter: UsageKey,
        at: Instant | None = None,
        period_start: Instant | None = None,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """One meter in the period asked for, or in that of ``at``, or in the running one: a sentence, then evidence."""
        async with _reading_claims(), database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            organization = await readable(usage, organization_id, authorization)
            meters = MeterMap.of(await usage.metered_products())
            period = _period(organization, at=at, period_start=period_start, now=clock.now())
            if meter in meters.event_meters:
                events = PostgresEvents(transaction)
                of_events = await explain_events(organization, period, meters.event_meters[meter], events=events, at=at)
                document = to_wire_event_explanation(of_events, parked=await _parked(transaction, organization_id))
                freshness = await _fresh(transaction, organization, period, keyring=keyring, slots=slots)
                return {**document, "freshness": to_wire_freshness(freshness)}
            explained = await explain_usage(
                organization,
                period,
                _counter(meters, meter),
                tx=usage,
                corrections=PostgresCorrections(transaction),
                counts_from=meters.counts_from.get(meter),
            )
            parked = await _parked(transaction, organization_id)
            freshness = await _fresh(transaction, organization, period, keyring=keyring, slots=slots)
        document = to_wire_explanation(explained, meter=meter, at=at, parked=parked)
        return {**document, "freshness": to_wire_freshness(freshness)}

    @routes.get("/as-of")
    async def show_as_of(
        organization_id: str, at: Instant, meter: UsageKey | None = None, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Totals of the period of ``at`` as they were known at that instant, beside those known now."""
        async with _reading_claims(), database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            organization = await readable(usage, organization_id, authorization)
            meters = MeterMap.of(await usage.metered_products())
            if meter is not None:
                if meter not in meters.event_meters:
                    _counter(meters, meter)
                meters = meters.only(meter)
            period = _period(organization, at=at, period_start=None, now=at)
            of_events, too_many = await _events_as_of(
                organization, period, at, meters=meters, events=PostgresEvents(transaction)
            )
            if too_many and meter is not None:
                raise too_many[0]
            answer = await usage_as_of(
                organization,
                period,
                at,
                counters=meters.counters,
                dated=meters.dated,
                tx=usage,
                corrections=PostgresCorrections(transaction),
            )
            freshness = await _fresh(transaction, organization, period, keyring=keyring, slots=slots, at=at)
        return {
            **to_wire_as_of(answer, meters=meters, events=of_events),
            "freshness": to_wire_freshness(freshness),
            "too_many_events": [str(each) for each in too_many],
        }

    @routes.get("/reports/{report_id}")
    async def show_report(
        organization_id: str, report_id: ReportId, authorization: Authorization = None
    ) -> dict[str, Any]:
        """One kept report with its exact bytes in base64, and what it was read as."""
        async with _reading_claims(), database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            await readable(usage, organization_id, authorization)
            found = await usage.kept_reports_of_ids(organization_id, [report_id])
            if report_id not in found:
                raise Problem(404, "not_found", await _no_such_report(usage), attr="report_id")
            kept = found[report_id]
            claims = await usage.kept_claims(organization_id, kept.window_start, kept.window_end, source=kept.source)
        claim = next(each for each in claims if each.kept.id == report_id)
        return {
            **to_wire_kept_report(kept),
            "counters": dict(claim.report.counters),
            "body_base64": base64.b64encode(claim.body).decode(),
        }

    return routes


@asynccontextmanager
async def _reading_claims() -> AsyncIterator[None]:
    """What cannot be explained is said with its reason."""
    try:
        async with refusing_archived():
            yield
    except (TooManyClaims, UnreadableClaim, TooManyEvents) as error:
        raise Problem(409, "cannot_be_explained", str(error)) from error


async def _events_as_of(
    organization: Organization, period: BillingPeriod, at: datetime, *, meters: MeterMap, events: PostgresEvents
) -> tuple[list[EventExplanation], list[TooManyEvents]]:
    """Every event meter as it was known, and why some cannot be told."""
    found: list[EventExplanation] = []
    too_many: list[TooManyEvents] = []
    for meter in meters.event_meters.values():
        try:
            found.append(await explain_events(organization, period, meter, events=events, at=at))
        except TooManyEvents as error:
            too_many.append(error)
    return found, too_many


async def _no_such_report(usage: PostgresUsage) -> str:
    archived = sorted(month_name(month) for month in await usage.archived_months())
    elsewhere = f"; reports of archived months ({', '.join(archived)}) are not here" if archived else ""
    return f"report_id: this organization has no such report{elsewhere}"


def _counter(meters: MeterMap, meter: str) -> str:
    counter = meters.counter_by_meter.get(meter)
    if counter is None:
        raise Problem(404, "not_found", f"meter: the catalog has no meter {meter}", attr="meter")
    return counter


def _period(
    organization: Organization, *, at: datetime | None, period_start: datetime | None, now: datetime
) -> BillingPeriod:
    """The period asked for by its start, else that of ``at``, else the running one."""
    attribute = "at" if period_start is None else "period_start"
    if at is not None and period_start is not None:
        raise Problem(400, "invalid_input", "at: give either at or period_start, not both", attr="at")
    asked = period_start or at or now
    if asked.year not in YEARS:
        raise Problem(400, "invalid_input", f"{attribute}: no billing period can hold it", attr=attribute)
    period = organization.schedules.period_containing(asked)
    if period_start is not None and period.start != period_start:
        detail = f"period_start: no period starts then; the one around it starts {period.start.isoformat()}"
        raise Problem(400, "invalid_input", detail, attr="period_start")
    return period


async def _fresh(
    transaction: Transaction,
    organization: Organization,
    period: BillingPeriod,
    *,
    keyring: Keyring,
    slots: CounterSlots,
    at: datetime | None = None,
) -> Freshness:
    (found,) = await read_freshness(
        organization.organization_id,
        [period],
        license_sources=license_sources(organization, keyring),
        usage=PostgresUsage(transaction, slots),
        sources=PostgresSourceViews(transaction),
        at=at,
    )
    return found


async def _parked(transaction: Transaction, organization_id: str) -> list[dict[str, Any]]:
    letters = await dead_letters.waiting(transaction, subject=organization_id, limit=PARKED_SHOWN)
    return [_letter(letter) for letter in letters]


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason_code": letter.reason_code,
        "attribute": letter.attribute,
        "detail": letter.detail,
        "parked_at": letter.parked_at.isoformat(),
    }
