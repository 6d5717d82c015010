"""What is known of usage in one billing period, by time of use: the newest snapshot is all there is to know.

A snapshot says what was used in the period and before each of its cuts. It is made again from all reports whenever one
is late or corrected, so nothing here depends on when something was heard (L12).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.billed_quantity import MeteredUsage
from quill_pricing.period import BillingPeriod


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """One period of a usage snapshot.

    Attributes:
        revision: of the snapshot it came in.
        customer_revision: the newest customer snapshot whose cuts and schedule it follows.
        meters: units by usage key: the greatest total ever published, or the last value of a gauge (L3).
        cuts: used before each cut, by instant and usage key. A meter that a cut does not name was not used before it.
    """

    period: BillingPeriod
    revision: int
    customer_revision: int = 0
    meters: Mapping[str, int] = field(default_factory=dict)
    cuts: Mapping[datetime, Mapping[str, int]] = field(default_factory=dict)

    def of_meter(self, usage_key: str, *, is_last_value: bool) -> MeteredUsage:
        """One meter's usage, as billing arithmetic takes it."""
        before = {at: used.get(usage_key, 0) for at, used in self.cuts.items()}
        return MeteredUsage(self.meters.get(usage_key, 0), before, is_last_value=is_last_value)


@dataclass(frozen=True, slots=True)
class KnownUsage:
    """What a bill of one period looks at.

    Attributes:
        current: None while nothing was reported in the period.
        earlier: the newest period before it with usage, whose last values go on where a meter is carried.
        other: a period with the same start and another end, as another schedule has it.
        followed_revision: the newest customer revision that usage follows, whatever period said so.
    """

    current: PeriodUsage | None = None
    earlier: PeriodUsage | None = None
    other: PeriodUsage | None = None
    followed_revision: int = 0

    @classmethod
    def of(
        cls,
        period: BillingPeriod,
        same_start: PeriodUsage | None,
        earlier: PeriodUsage | None,
        *,
        followed_revision: int,
    ) -> "KnownUsage":
        """From what is stored of the period's start and before it."""
        if same_start is None or same_start.period == period:
            return cls(same_start, earlier, followed_revision=followed_revision)
        return cls(None, earlier, same_start, followed_revision)

    @property
    def revision(self) -> int:
        """The cut-off to write into a closing: 0 when nothing was ever reported."""
        return self.current.revision if self.current is not None else 0

    def of_meter(self, usage_key: str, *, is_last_value: bool, is_carried: bool) -> MeteredUsage:
        """One meter's usage; a carried value that nothing changed in the period is the one it began with."""
        if self.current is not None and (not is_carried or usage_key in self.current.meters):
            return self.current.of_meter(usage_key, is_last_value=is_last_value)
        if is_carried and self.earlier is not None:
            return MeteredUsage(self.earlier.meters.get(usage_key, 0), is_last_value=is_last_value)
        return MeteredUsage(0, is_last_value=is_last_value)


NOTHING_KNOWN = KnownUsage()
