"""Usage as subscriptions knows it: a copy of usage-ingest's newest snapshot, never a number of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class MeterUsage:
    """Units of one meter in one billing period: finished days, the day still being counted, the maximum (L3, L6)."""

    complete: int = 0
    partial: int = 0
    maximum: int = 0

    @property
    def to_date(self) -> int:
        """Everything counted so far."""
        return self.complete + self.partial


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """All meters of one organization in the billing period that starts at ``starts``."""

    starts: datetime
    meters: Mapping[str, MeterUsage]


@dataclass(frozen=True, slots=True)
class UsageSnapshot:
    """The newest periods of one organization; of two snapshots the higher revision holds."""

    organization_id: str
    revision: int
    periods: tuple[PeriodUsage, ...] = field(default=())

    def in_period(self, starts: datetime) -> Mapping[str, MeterUsage]:
        """Meters of the billing period that starts then; empty when nothing was reported in it yet."""
        return next((period.meters for period in self.periods if period.starts == starts), {})
