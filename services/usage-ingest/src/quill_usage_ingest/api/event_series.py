"""The part of ``GET /v1/usage/{org}?meter=…`` that a meter fed by events adds: its hours, groups, and series (L5)."""

from datetime import datetime
from typing import Any, Final

from quill_pricing.period import BillingPeriod
from quill_runtime.database import Transaction
from quill_runtime.problems import Problem

from quill_usage_ingest.api.usage_series import SeriesQuestion
from quill_usage_ingest.domain.event_meter import EventMeter
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.usecases.read_event_series import read_event_series
from quill_usage_ingest.usecases.read_series import BreakdownTooLarge
from quill_usage_ingest.wire.event_view import to_wire_event_meter, to_wire_event_series, to_wire_windows

WINDOWS_SHOWN: Final = 10_000
"""Hours and groups of the period that are shown; the series tells of all."""


async def event_meter_document(
    question: SeriesQuestion,
    organization: Organization,
    *,
    meter: EventMeter,
    period: BillingPeriod | None,
    transaction: Transaction,
    now: datetime,
) -> dict[str, Any]:
    """What to add to the answer for this meter.

    Raises:
        Problem: 400 for a dimension the meter does not have, or a span that is too large.
    """
    if question.by is not None and question.by not in meter.group_by:
        choices = ", ".join(meter.group_by) or "none: the meter has no dimensions"
        raise Problem(400, "invalid_input", f"by: must be one of {choices}", attr="by")
    events = PostgresEvents(transaction)
    document: dict[str, Any] = {
        "meter": meter.usage_key,
        **to_wire_event_meter(meter),
        "windows": [],
        "windows_are_cut": False,
    }
    feed = next((each for each in await events.feeds() if each.meter == meter), None)
    if feed is None:
        return document
    organization_id = organization.organization_id
    if period is not None:
        windows = await events.event_windows_between(
            feed.feed_id, organization_id, period.start, period.end, limit=WINDOWS_SHOWN
        )
        document["windows"] = to_wire_windows(windows, meter)
        document["windows_are_cut"] = len(windows) == WINDOWS_SHOWN
    if question.is_asked:
        span = question.span(organization, now=now)
        try:
            lines = await read_event_series(organization_id, feed, span, by=question.by, events=events, now=now)
        except BreakdownTooLarge as error:
            raise Problem(400, "usage_breakdown_too_large", str(error), attr="by") from error
        document["series"] = to_wire_event_series(span, question.by, lines)
    return document
