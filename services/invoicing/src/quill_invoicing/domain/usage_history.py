"""What was known of a customer's usage, and when: the observations that billed quantities are made from (L12)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from quill_pricing.period import BillingPeriod


@dataclass(frozen=True, slots=True)
class Observation:
    """The period maximum of each meter at one instant.

    Attributes:
        revision: Rising number of the snapshot it came in.
        as_of: The newest report merged into it; the instant that limits are looked up at.
        maxima: Quantity by usage key.
        period_end: Where the period ended that it was made of; None for the period as it was, whatever that came to be.
    """

    revision: int
    as_of: datetime
    maxima: Mapping[str, int]
    period_end: datetime | None = None

    def tells_of(self, period: BillingPeriod) -> bool:
        """Whether all it counted lies in ``period``, given that it was made of a period with the same start.

        It does if it was made of this very period, and if nothing in it was counted after the period's end: then it
        holds no later day, though the period was longer when it was made.
        """
        return self.period_end in (None, period.end) or self.as_of <= period.end


@dataclass(frozen=True, slots=True)
class UsageHistory:
    """Every observation of one billing period, in order of revision.

    Attributes:
        corrected_revision: Observations below it were withdrawn by a named correction and no longer count (L3).
    """

    observations: tuple[Observation, ...]
    corrected_revision: int = 0

    @classmethod
    def of(cls, observations: Iterable[Observation], *, corrected_revision: int = 0) -> "UsageHistory":
        return cls(tuple(sorted(observations, key=lambda seen: seen.revision)), corrected_revision)

    @property
    def newest_revision(self) -> int:
        """The cut-off to write into a closing: 0 when nothing was ever reported."""
        return self.observations[-1].revision if self.observations else 0

    def telling_of(self, period: BillingPeriod) -> "UsageHistory":
        """Without the observations that hold days of another period: the period was cut after they were made (L21)."""
        return replace(self, observations=tuple(seen for seen in self.observations if seen.tells_of(period)))

    def of_meter(self, usage_key: str) -> tuple[tuple[datetime, int], ...]:
        """(as of, maximum) of one meter, without what was withdrawn."""
        return tuple(
            (seen.as_of, seen.maxima[usage_key])
            for seen in self.observations
            if seen.revision >= self.corrected_revision and usage_key in seen.maxima
        )


@dataclass(frozen=True, slots=True)
class ObservedPeriod:
    """An observation and the period it is of; ``corrected_revision`` 0 means that nothing was withdrawn."""

    period: BillingPeriod
    observation: Observation
    corrected_revision: int
