"""Usage as subscriptions knows it: a copy of usage-ingest's newest snapshot, never a number of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.billed_quantity import MeteredUsage
from quill_pricing.metered_usage import metered_usage


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
class UsageCut:
    """Units of every meter that were used in the billing period before ``at`` (L12)."""

    at: datetime
    used: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """All meters of one organization in the billing period that starts at ``starts``."""

    starts: datetime
    meters: Mapping[str, MeterUsage]
    cuts: tuple[UsageCut, ...] = ()


@dataclass(frozen=True, slots=True)
class Meter:
    """How a meter's usage comes about: ``last`` is a gauge, which may be carried into the next period."""

    usage_key: str
    aggregation: str = "sum"
    carried: bool = False


Measure = Callable[[MeterUsage], int]
"""Which of a meter's numbers is meant."""


@dataclass(frozen=True, slots=True)
class UsageSnapshot:
    """The newest periods of one organization; of two snapshots the higher revision holds."""

    organization_id: str
    revision: int
    periods: tuple[PeriodUsage, ...] = field(default=())

    def metered(self, meter: Meter, starts: datetime, measure: Measure) -> MeteredUsage:
        """One meter in the billing period that starts then; nothing is used of what was not reported."""
        period = next((each for each in self.periods if each.starts == starts), PeriodUsage(starts, {}))
        earlier = sorted((each for each in self.periods if each.starts < starts), key=lambda each: each.starts)
        return metered_usage(
            meter.usage_key,
            totals=_measured(period, measure),
            cuts={cut.at: cut.used for cut in period.cuts},
            earlier=[_measured(each, measure) for each in reversed(earlier)],
            aggregation=meter.aggregation,
            carried=meter.carried,
        )


def _measured(period: PeriodUsage, measure: Measure) -> dict[str, int]:
    return {usage_key: measure(usage) for usage_key, usage in period.meters.items()}
