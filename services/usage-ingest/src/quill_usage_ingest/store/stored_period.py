"""A row of period usage as it is published."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple


class StoredPeriod(NamedTuple):
    """A period as it is published: arrays by counter slot (`PackedPeriod`)."""

    organization_id: str
    period_start: datetime
    period_end: datetime
    as_of: datetime
    complete: Sequence[int]
    partial: Sequence[int]
    maximum: Sequence[int]
