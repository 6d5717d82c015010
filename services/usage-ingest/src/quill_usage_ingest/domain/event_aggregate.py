"""What the events of one span come to, and how spans are put together (L2, L3).

Putting together is commutative and associative, and every event enters once, so no order and no cut of a set of events
gives another number. Distinct values are the exception: whether a value is new in a span is for who keeps them to say.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from quill_usage_ingest.domain.event_meter import Aggregation, Measured
from quill_usage_ingest.domain.meter_event import MeterEvent, Moment
from quill_usage_ingest.domain.period_usage import CounterUsage


class Aggregate(NamedTuple):
    """Events of one meter in one span.

    Attributes:
        quantity: the number, in the meter's smallest unit.
        first: the earliest event by time, then name.
        last: the latest one.
    """

    events: int
    quantity: int
    first: Moment
    last: Moment

    @property
    def usage(self) -> CounterUsage:
        """As period usage. An event is whole when it comes, and no source counts it any further: no partial (L6).

        The maximum is the number itself: it falls by a correction alone, but for ``last``, which bills its last value.
        """
        return CounterUsage(self.quantity, 0, self.quantity)


def aggregate_of(event: MeterEvent, measured: Measured, *, is_new_value: bool = False) -> Aggregate:
    """One event alone; ``is_new_value`` says of a distinct value that its span did not have it yet."""
    quantity = measured.quantity if measured.value is None else int(is_new_value)
    return Aggregate(1, quantity, event.moment, event.moment)


def nothing_at(start: datetime) -> Aggregate:
    """A span whose events are all voided: it stays, so that a meter that was published goes on being published as 0."""
    moment = Moment(start, b"")
    return Aggregate(0, 0, moment, moment)


def put_together(aggregation: Aggregation, one: Aggregate | None, other: Aggregate) -> Aggregate:
    """Both spans as one. Distinct values must be new in what they are put to; a span without events adds nothing."""
    if one is None or not one.events:
        return other
    if not other.events:
        return one
    match aggregation:
        case Aggregation.SUM | Aggregation.COUNT | Aggregation.UNIQUE_COUNT:
            quantity = one.quantity + other.quantity
        case Aggregation.MAX:
            quantity = max(one.quantity, other.quantity)
        case Aggregation.LAST:
            quantity = max(one, other, key=lambda aggregate: aggregate.last).quantity
    return Aggregate(one.events + other.events, quantity, min(one.first, other.first), max(one.last, other.last))


def combined(aggregation: Aggregation, spans: Iterable[Aggregate], *, distinct: int = 0) -> Aggregate | None:
    """Many spans as one; ``distinct`` are the different values in all of them, which no span knows by itself."""
    whole: Aggregate | None = None
    for span in spans:
        whole = put_together(aggregation, whole, span)
    if whole is not None and aggregation is Aggregation.UNIQUE_COUNT:
        return whole._replace(quantity=distinct)
    return whole
