"""An event meter over time, put together from its hours: whole, or by one of its dimensions (L5)."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from quill_usage_ingest.domain.event_aggregate import Aggregate, combined
from quill_usage_ingest.domain.event_book import EventWindowKey, Feed
from quill_usage_ingest.domain.event_meter import Aggregation, Group
from quill_usage_ingest.domain.usage_series import SeriesPoint, SeriesSpan, interval_start, next_interval
from quill_usage_ingest.ports import EventTransaction
from quill_usage_ingest.usecases.read_series import BreakdownTooLarge

WINDOWS_MAX: Final = 200_000
"""Hours and groups that one answer may be made of."""

Line = tuple[int, list[SeriesPoint]]
"""The number of the whole span, and one point per interval."""


async def read_event_series(
    organization_id: str, feed: Feed, span: SeriesSpan, *, by: str | None, events: EventTransaction, now: datetime
) -> dict[str | None, Line]:
    """Lines by what events say of the dimension; without one a single line under None.

    The numbers of a line are what the meter is: distinct values of two days are not added up, and a maximum is the
    larger of two.

    Raises:
        BreakdownTooLarge: more windows than `WINDOWS_MAX`.
    """
    windows = await events.event_windows_between(
        feed.feed_id, organization_id, span.start, span.end, limit=WINDOWS_MAX + 1
    )
    if len(windows) > WINDOWS_MAX:
        raise BreakdownTooLarge(f"the breakdown has more than {WINDOWS_MAX:,} rows; ask for fewer days")
    place = feed.meter.group_by.index(by) if by else None
    buckets = _buckets(windows, place)
    starts = span.starts()
    spans = [(max(start, span.start), min(next_interval(start, span.interval), span.end)) for start in starts]
    whole = len(spans)
    distinct: Mapping[tuple[int, str], int] = {}
    if feed.meter.aggregation is Aggregation.UNIQUE_COUNT and buckets:
        distinct = await events.distinct_values(
            feed.feed_id, organization_id, [*spans, (span.start, span.end)], buckets
        )
    position = {start: index for index, start in enumerate(starts)}
    sorted_in: dict[str, dict[int, list[Aggregate]]] = {bucket: {} for bucket in buckets.values()}
    if place is None:
        sorted_in.setdefault(_WHOLE, {})
    for key, aggregate in windows:
        if key.group in buckets:
            index = position[interval_start(key.start, span.interval)]
            sorted_in[buckets[key.group]].setdefault(index, []).append(aggregate)
    lines: dict[str | None, Line] = {}
    for bucket, found in sorted_in.items():

        def number(held: Sequence[Aggregate], index: int, bucket: str = bucket) -> int:
            together = combined(feed.meter.aggregation, held, distinct=distinct.get((index, bucket), 0))
            return together.quantity if together else 0

        points = [
            SeriesPoint(start, end, number(found.get(index, ()), index), is_partial=end > now)
            for index, (start, end) in enumerate(spans)
        ]
        total = number([aggregate for held in found.values() for aggregate in held], whole)
        lines[json.loads(bucket)] = (total, points)
    return lines


_WHOLE: Final = json.dumps(None)


def _buckets(windows: Sequence[tuple[EventWindowKey, Aggregate]], place: int | None) -> dict[Group | None, str]:
    """Which line each group belongs to: its value of the dimension, as JSON."""
    if place is None:
        return {None: _WHOLE}
    groups = {key.group for key, _ in windows if key.group is not None}
    return {group: json.dumps(group[place]) for group in groups}
