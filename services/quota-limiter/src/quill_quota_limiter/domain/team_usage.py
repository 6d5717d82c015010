"""How much one team has used, as usage-ingest last said."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TeamQuantities:
    """Quantities of one billing period: complete days and today together, since a limit counts both (L6)."""

    period_start: datetime
    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TeamUsage:
    """One revision of a team's newest billing periods."""

    organization_id: str
    team_id: str
    revision: int
    periods: tuple[TeamQuantities, ...]

    def in_period(self, usage_key: str, period_start: datetime) -> int:
        """Units of a meter in the billing period that starts then; only an exact match counts (wire contract 7.3)."""
        for period in self.periods:
            if period.period_start == period_start:
                return period.quantities.get(usage_key, 0)
        return 0
