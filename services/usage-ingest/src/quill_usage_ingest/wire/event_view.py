"""Event meters for people and tools: a sentence, hours and groups, the events at their edges (L5)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quill_usage_ingest.domain.event_aggregate import Aggregate
from quill_usage_ingest.domain.event_book import EventWindowKey
from quill_usage_ingest.domain.event_meter import EventMeter, Group
from quill_usage_ingest.domain.explained_events import EventExplanation
from quill_usage_ingest.domain.meter_event import HOUR, Moment
from quill_usage_ingest.domain.usage_series import SeriesPoint, SeriesSpan
from quill_usage_ingest.wire.explanation import to_wire_totals


def to_wire_event_meter(meter: EventMeter) -> dict[str, Any]:
    """The definition, as the catalog has it; quantities are in units of 10^-decimals."""
    document = meter.document()
    return {
        name: document[name] for name in ("event_type", "aggregation", "value", "group_by", "decimals", "counts_from")
    }


def to_wire_event_explanation(explained: EventExplanation, *, parked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole explanation of an event meter in a period."""
    return {
        "organization_id": explained.organization.organization_id,
        "meter": explained.meter.usage_key,
        **to_wire_event_meter(explained.meter),
        "period_start": explained.period.start.isoformat(),
        "period_end": explained.period.end.isoformat(),
        "known_at": to_wire_totals(explained.known_at) if explained.known_at else None,
        "sentence": _sentence(explained, parked=len(parked)),
        "usage": to_wire_totals(explained.usage),
        "stored": to_wire_totals(explained.stored_usage),
        "is_equal": explained.is_equal,
        "is_recounting": explained.is_recounting,
        "is_from_events": explained.is_from_events,
        "events": explained.total.events if explained.total else 0,
        "left_out": explained.left_out,
        "voided": explained.voided,
        "windows": to_wire_windows(explained.windows, explained.meter, named=explained),
        "parked": list(parked),
    }


def to_wire_windows(
    windows: Iterable[tuple[EventWindowKey, Aggregate]], meter: EventMeter, *, named: EventExplanation | None = None
) -> list[dict[str, Any]]:
    """Hours in order, each with its groups; with ``named`` also the events at their edges."""
    found: dict[Any, dict[str, Any]] = {}
    for key, aggregate in windows:
        shown = found.setdefault(
            key.start,
            {"window_start": key.start.isoformat(), "window_end": (key.start + HOUR).isoformat(), "groups": []},
        )
        numbers: dict[str, Any] = {"quantity": aggregate.quantity, "events": aggregate.events}
        if named is not None:
            numbers |= {"first": _event(aggregate.first, named), "last": _event(aggregate.last, named)}
        if key.group is None:
            shown |= numbers
        else:
            shown["groups"].append({"dimensions": to_wire_dimensions(key.group, meter), **numbers})
    return list(found.values())


def to_wire_dimensions(group: Group, meter: EventMeter) -> dict[str, str | None]:
    """A group as dimensions by name."""
    return dict(zip(meter.group_by, group, strict=True))


def to_wire_event_series(
    span: SeriesSpan, by: str | None, lines: Mapping[str | None, tuple[int, Sequence[SeriesPoint]]]
) -> dict[str, Any]:
    """Lines in the form of every series."""
    return {
        "from": span.start.date().isoformat(),
        "to": span.end.date().isoformat(),
        "interval": span.interval.value,
        "by": by,
        "series": [
            {
                "key": key,
                "total": total,
                "points": [
                    {
                        "start": point.start.date().isoformat(),
                        "end": point.end.date().isoformat(),
                        "quantity": point.quantity,
                        "is_partial": point.is_partial,
                    }
                    for point in points
                ],
            }
            for key, (total, points) in sorted(lines.items(), key=lambda item: item[0] or "")
        ],
    }


def _event(moment: Moment, explained: EventExplanation) -> dict[str, Any]:
    event = explained.named[moment]
    return {"id": event.event_id, "source": event.source, "time": event.time.isoformat()}


_NUMBERS = {
    "sum": "the sum of {value}",
    "count": "their number",
    "max": "the largest {value}",
    "last": "the latest {value}",
    "unique_count": "the different values of {value}",
}


def _sentence(explained: EventExplanation, *, parked: int) -> str:
    meter = explained.meter
    where = f"from {explained.period.start.date()} to {explained.period.end.date()} (exclusive)"
    hours = len({key.start for key, _ in explained.windows})
    if explained.total is None:
        said = [f"No event of type {meter.event_type} counts {where}, so no {meter.usage_key} are counted."]
    else:
        how = _NUMBERS[meter.aggregation.value].format(value=meter.value)
        unit = f", in units of 10^-{meter.decimals}" if meter.decimals else ""
        made_of = f"{explained.total.events:,} {meter.event_type} events in {hours:,} hours"
        said = [f"{explained.usage.to_date:,} {meter.usage_key} {where}: {how} of {made_of}{unit}."]
    if explained.usage.maximum != explained.usage.to_date:
        said.append(f"The most ever counted is {explained.usage.maximum:,}.")
    if explained.left_out:
        said.append(f"{explained.left_out:,} kept events of the type do not fit the meter and do not count.")
    if explained.voided:
        said.append(f"{explained.voided:,} kept events of the type were voided and do not count.")
    if parked:
        said.append(f"{parked:,} records of this organization cannot be entered and wait as dead letters.")
    if explained.is_recounting:
        said.append("The meter is being counted anew and is not published until that is done.")
    elif not explained.is_equal:
        said.append(
            f"The stored total is {explained.stored_usage.to_date:,}: not equal, recompute it and look at the log."
        )
    return " ".join(said)
