"""Usage for people and tools: periods, meters, and the cells and reports behind a number (L5)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from quill_usage_ingest.domain.freshness import Freshness
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.usage_cells import WindowCells, as_of_rank, is_complete
from quill_usage_ingest.domain.usage_report import WindowKey
from quill_usage_ingest.ports import KeptReport
from quill_usage_ingest.wire.freshness import to_wire_freshness
from quill_usage_ingest.wire.period_usage import to_wire_meters

EventUsage = Mapping[tuple[str, datetime, datetime], Mapping[str, tuple[int, int, int]]]


def to_wire_usage(
    organization: Organization,
    *,
    periods: Sequence[PeriodUsage],
    freshness: Sequence[Freshness],
    meters: MeterMap,
    meter: str | None,
    windows: Sequence[tuple[WindowKey, WindowCells]],
    events: EventUsage,
) -> dict[str, Any]:
    """Periods newest first, each with its freshness; with a meter only that one, and its cells by window and source.

    ``events`` is usage by organization and period that does not stand in the periods themselves: of meters that events
    feed, and of those that are counted anew.
    """
    shown = meters if meter is None else meters.only(meter)
    document: dict[str, Any] = {
        "organization_id": organization.organization_id,
        "revision": organization.usage_revision,
        "periods": [
            {**_period(held, shown, organization.organization_id, events), "freshness": to_wire_freshness(fresh)}
            for held, fresh in reversed(list(zip(periods, freshness, strict=True)))
        ],
    }
    if meter is not None and meter in meters.counter_by_meter:
        windows = [(key, held) for key, held in windows if meters.counts(meter, key.start)]
        counter = meters.counter_by_meter[meter]
        document["meter"] = meter
        document["counter"] = counter
        document["cells"] = [
            {
                "window_start": key.start.isoformat(),
                "window_end": held.window.end.isoformat(),
                "source": key.source,
                "quantity": cell.quantity,
                "completeness": "complete" if is_complete(cell.rank) else "partial",
                "as_of": as_of_rank(cell.rank).isoformat(),
            }
            for key, held in windows
            if (cell := held.cells.get(counter)) is not None
        ]
        document["sources"] = _by_source(counter, windows)
    return document


def to_wire_kept_report(report: KeptReport) -> dict[str, Any]:
    """A report without its body: what it was, how it came, what became of it."""
    return {
        "id": report.id,
        "report_id": report.report_id,
        "source": report.source,
        "window_start": report.window_start.isoformat(),
        "window_end": report.window_end.isoformat(),
        "completeness": report.completeness,
        "as_of": report.as_of.isoformat(),
        "received_at": report.received_at.isoformat(),
        "intake": report.intake,
        "topic": report.topic,
        "partition": report.partition,
        "offset": report.offset,
        "verdict": report.verdict,
        "correction": {"actor": report.correction_actor, "reason": report.correction_reason}
        if report.correction_actor
        else None,
        "note": report.note,
    }


def _period(usage: PeriodUsage, meters: MeterMap, organization_id: str, events: EventUsage) -> dict[str, Any]:
    of_events = events.get((organization_id, usage.period.start, usage.period.end), {})
    return {
        "period_start": usage.period.start.isoformat(),
        "period_end": usage.period.end.isoformat(),
        "as_of": usage.as_of.isoformat(),
        "revision": usage.revision,
        "meters": {
            **{key: held.model_dump() for key, held in to_wire_meters(usage, meters).items()},
            **{
                key: dict(zip(("complete", "partial", "maximum"), held, strict=True))
                for key, held in of_events.items()
                if meters.knows(key)
            },
        },
    }


def _by_source(counter: str, windows: Sequence[tuple[WindowKey, WindowCells]]) -> list[dict[str, Any]]:
    complete: dict[str, int] = {}
    partial: dict[str, int] = {}
    for key, held in windows:
        cell = held.cells.get(counter)
        if cell is not None:
            side = complete if is_complete(cell.rank) else partial
            side[key.source] = side.get(key.source, 0) + cell.quantity
    return [
        {"source": source, "complete": complete.get(source, 0), "partial": partial.get(source, 0)}
        for source in sorted({*complete, *partial})
    ]
