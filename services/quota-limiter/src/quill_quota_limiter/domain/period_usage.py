"""How much an organization has used, as usage-ingest last said."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PeriodQuantities:
    """Quantities of one billing period: complete days and today together, since a limit counts both (L6)."""

    period_start: datetime
    period_end: datetime
    as_of: datetime
    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OrganizationUsage:
    """One revision of an organization's newest billing periods."""

    organization_id: str
    revision: int
    periods: tuple[PeriodQuantities, ...]

    def in_period(self, period_start: datetime) -> PeriodQuantities | None:
        """The usage of the billing period that starts then.

        Only an exact match counts: usage of another period, such as the one a plan change has just ended, would limit a
        customer on stale numbers (wire contract 7.3).
        """
        for period in self.periods:
            if period.period_start == period_start:
                return period
        return None

    def is_counted_otherwise(self, period_start: datetime, *, now: datetime) -> bool:
        """Whether usage is counted now, but in a billing period that does not start when the schedule says.

        True for a moment after a change of schedule; if it lasts, two services disagree and nothing is limited.
        """
        return any(
            period.period_start <= now < period.period_end and period.period_start != period_start
            for period in self.periods
        )
