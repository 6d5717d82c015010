"""How much an organization has used, as usage-ingest last said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.billed_quantity import MeteredUsage
from quill_pricing.metered_usage import metered_usage

from quill_quota_limiter.domain.entitlement import Entitlement


@dataclass(frozen=True, slots=True)
class CutQuantities:
    """Quantities that were used in the billing period before ``at``, where a bill depends on it (L12)."""

    at: datetime
    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PeriodQuantities:
    """Quantities of one billing period: complete days and today together, since a limit counts both (L6).

    ``maxima``: the greatest that was ever published, which bills depend on (L3), of meters where it is another number.
    """

    period_start: datetime
    period_end: datetime
    as_of: datetime
    quantities: Mapping[str, int]
    cuts: tuple[CutQuantities, ...] = ()
    maxima: Mapping[str, int] = field(default_factory=dict)


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

    def metered(self, entitlement: Entitlement, period_start: datetime, *, billed: bool = False) -> MeteredUsage:
        """One meter in the billing period that starts then; nothing is used of what is not mentioned.

        Args:
            entitlement: says how the meter's usage comes about.
            period_start: of the billing period.
            billed: the greatest numbers ever published instead of those of now.
        """
        period = self.in_period(period_start)
        earlier = sorted(
            (each for each in self.periods if each.period_start < period_start), key=lambda each: each.period_start
        )
        return metered_usage(
            entitlement.usage_key,
            totals={} if period is None else _quantities(period, billed=billed),
            cuts={} if period is None else {cut.at: cut.quantities for cut in period.cuts},
            earlier=[_quantities(each, billed=billed) for each in reversed(earlier)] if entitlement.carried else (),
            aggregation=entitlement.aggregation,
            carried=entitlement.carried,
        )

    def is_counted_otherwise(self, period_start: datetime, *, now: datetime) -> bool:
        """Whether usage is counted now, but in a billing period that does not start when the schedule says.

        True for a moment after a change of schedule; if it lasts, two services disagree and nothing is limited.
        """
        return any(
            period.period_start <= now < period.period_end and period.period_start != period_start
            for period in self.periods
        )


def _quantities(period: PeriodQuantities, *, billed: bool) -> Mapping[str, int]:
    return {**period.quantities, **period.maxima} if billed else period.quantities
