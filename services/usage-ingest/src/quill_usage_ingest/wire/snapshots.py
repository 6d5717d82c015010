"""The period-usage snapshot straight from packed rows: the contract's `PeriodUsageSnapshot` at msgspec's speed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

NEVER_REPORTED: Final = -1
"""In ``maximum``: the counter has no usage in this period."""


class PackedPeriod(Protocol):
    """A stored row of period usage: arrays by counter slot."""

    @property
    def period_start(self) -> datetime: ...
    @property
    def period_end(self) -> datetime: ...
    @property
    def as_of(self) -> datetime: ...
    @property
    def complete(self) -> Sequence[int]: ...
    @property
    def partial(self) -> Sequence[int]: ...
    @property
    def maximum(self) -> Sequence[int]: ...


CutsOf = Callable[[str, PackedPeriod], Iterable[tuple[datetime, Mapping[str, int]]]]
"""The cuts of an organization and period, rising, with what each meter had used before them."""
FurtherMeters = Callable[[str, PackedPeriod], Iterable[tuple[str, tuple[int, int, int]]]]
"""Meters of an organization and period with their complete, partial and maximum usage."""


class _Meter(msgspec.Struct, gc=False):
    complete: int
    partial: int
    maximum: int


class _Cut(msgspec.Struct, gc=False):
    at: datetime
    used: Mapping[str, int]


class _Period(msgspec.Struct, gc=False):
    period_start: datetime
    period_end: datetime
    as_of: datetime
    customer_revision: int
    meters: dict[str, _Meter]
    cuts: list[_Cut]


class _Snapshot(msgspec.Struct, gc=False):
    organization_id: str
    revision: int
    periods: list[_Period]
    sources: Sequence[str]


class _LateUsage(msgspec.Struct, gc=False):
    organization_id: str
    revision: int
    period: _Period


_encode: Final = msgspec.json.Encoder().encode


def encode_snapshot(
    organization_id: str,
    *,
    revision: int,
    periods: Sequence[PackedPeriod],
    places: Sequence[tuple[str, int]],
    further: FurtherMeters | None = None,
    sources: Sequence[str] = (),
    customer_revision: int = 0,
    cuts: CutsOf | None = None,
) -> bytes:
    """The message as bytes; ``places`` are the meters of today's catalog with the slots of their counters.

    A meter whose counter was never reported in a period is left out. ``further`` are meters that have no one slot;
    ``cuts`` is given where the organization has cuts. The bytes are a `PeriodUsageSnapshot`: a test holds the two
    together.
    """
    told = [_period(held, places, customer_revision) for held in periods]
    for held, period in zip(periods, told, strict=True):
        _complete(period, organization_id, held, further, cuts)
    return _encode(_Snapshot(organization_id, revision, told, sources))


def encode_late_usage(
    organization_id: str,
    *,
    revision: int,
    period: PackedPeriod,
    places: Sequence[tuple[str, int]],
    further: FurtherMeters | None = None,
    customer_revision: int = 0,
    cuts: CutsOf | None = None,
) -> bytes:
    """One period in the same shape, as a `LateUsage` of the contracts."""
    told = _period(period, places, customer_revision)
    _complete(told, organization_id, period, further, cuts)
    return _encode(_LateUsage(organization_id, revision, told))


def _complete(
    period: _Period, organization_id: str, held: PackedPeriod, further: FurtherMeters | None, cuts: CutsOf | None
) -> None:
    if further is not None:
        for meter, usage in further(organization_id, held):
            period.meters[meter] = _Meter(*usage)
    if cuts is not None:
        period.cuts = [_Cut(at, used) for at, used in cuts(organization_id, held)]


def _period(held: PackedPeriod, places: Sequence[tuple[str, int]], customer_revision: int) -> _Period:
    length = len(held.maximum)
    complete, partial, maximum = held.complete, held.partial, held.maximum
    return _Period(
        held.period_start,
        held.period_end,
        held.as_of,
        customer_revision,
        {
            meter: _Meter(complete[slot], partial[slot], maximum[slot])
            for meter, slot in places
            if slot < length and maximum[slot] != NEVER_REPORTED
        },
        [],
    )
