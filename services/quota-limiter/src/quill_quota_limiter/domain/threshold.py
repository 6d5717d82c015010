"""What of a quota or a price somebody wants to be told about, once per billing period."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from quill_quota_limiter.domain.spend_threshold import SpendReached

DEFAULT_PERCENTS: Final = (50, 80, 100)
ALL_METERS: Final = "*"
"""Names the setting of every meter that has none of its own."""


@dataclass(frozen=True, slots=True)
class ThresholdReached:
    """Usage has reached ``percent`` of ``quota`` in a billing period, or its cost an amount.

    With ``spent`` the quota is the units that the amount buys, all of which are used: 100 percent.
    """

    organization_id: str
    usage_key: str
    percent: int
    usage: int
    quota: int
    billing_limit_usd: int | None
    usage_revision: int
    customer_revision: int
    period_start: datetime
    period_end: datetime
    at: datetime
    spent: SpendReached | None = None

    @property
    def kind(self) -> Literal["units", "spend"]:
        """What was compared with the threshold."""
        return "units" if self.spent is None else "spend"

    @property
    def reached_id(self) -> str:
        """Equal for the same fact. Another quota is another fact: 80 % of it is news again. An amount stays itself."""
        period = self.period_start.isoformat()
        if self.spent is not None:
            amount = self.spent.amount
            return f"{self.organization_id}/{self.usage_key}/{period}/spend/{amount.currency}/{amount.amount_minor}"
        return f"{self.organization_id}/{self.usage_key}/{period}/{self.quota}/{self.percent}"

    @property
    def sentence(self) -> str:
        """The fact for a person."""
        until = f"{self.period_end.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        if self.spent is not None:
            amount, spend = (money.to_decimal_string() for money in (self.spent.amount, self.spent.spend))
            currency = self.spent.amount.currency
            return (
                f"{self.usage_key}: {amount} {currency} is reached, {spend} {currency} for {self.usage:,} used "
                f"in the period until {until}."
            )
        return (
            f"{self.usage_key}: {self.percent} % of the quota is used, {self.usage:,} of {self.quota:,} until {until}."
        )


def percents_for(usage_key: str, settings: Mapping[str, Sequence[int]]) -> Sequence[int]:
    """The shares to tell of a meter: its own setting, the organization's, or the default."""
    return settings.get(usage_key, settings.get(ALL_METERS, DEFAULT_PERCENTS))


def reached(percents: Sequence[int], *, usage: int | None, quota: int | None) -> tuple[int, ...]:
    """The shares that usage has reached, in rising order.

    Exact: no share is told a unit too early. No quota, no usage ever heard of, and a quota of nothing reach none: there
    is no share of them.
    """
    if usage is None or not quota:
        return ()
    return tuple(percent for percent in sorted(percents) if usage * 100 >= quota * percent)
