"""Billing limits: the most a customer wants to spend on a product per billing period."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class BillingLimits:
    """Limits by product key in whole dollars, now and from the next billing period.

    A change that starts next period is kept together with its instant and folded in by `at`. So it counts from that
    instant on, whether or not a job ran by then (L9, L21).
    """

    in_force: Mapping[str, int] = field(default_factory=dict)
    next_period: Mapping[str, int | None] = field(default_factory=dict)
    """What changes at ``next_period_starts``; ``None`` removes a limit."""
    next_period_starts: datetime | None = None

    def __post_init__(self) -> None:
        if any(limit < 0 for limit in self.in_force.values()):
            raise ValueError("a billing limit is zero or more dollars")
        if bool(self.next_period) != (self.next_period_starts is not None):
            raise ValueError("limits of the next period need the instant it starts, and only they do")

    def at(self, now: datetime) -> "BillingLimits":
        """The same limits seen at ``now``: a change whose instant has come is in force."""
        if self.next_period_starts is None or now < self.next_period_starts:
            return self
        return BillingLimits(in_force=_merged(self.in_force, self.next_period))

    def changed(self, limits: Mapping[str, int | None]) -> "BillingLimits":
        """Set (dollars) or remove (``None``) limits at once; a limit set by hand outlives the period it was set in."""
        waiting = {key: limit for key, limit in self.next_period.items() if key not in limits}
        return BillingLimits(
            in_force=_merged(self.in_force, limits),
            next_period=waiting,
            next_period_starts=self.next_period_starts if waiting else None,
        )

    def ending_with_period(self, product_keys: frozenset[str], *, next_period_starts: datetime) -> "BillingLimits":
        """Let the limits of these products end with the current billing period; without a limit there is no effect."""
        ending: dict[str, int | None] = dict.fromkeys(sorted(product_keys & self.in_force.keys()))
        waiting = {**self.next_period, **ending}
        return BillingLimits(
            in_force=self.in_force,
            next_period=waiting,
            next_period_starts=next_period_starts if waiting else None,
        )


def _merged(limits: Mapping[str, int], changes: Mapping[str, int | None]) -> dict[str, int]:
    merged = {**limits, **changes}
    return {key: limit for key, limit in sorted(merged.items()) if limit is not None}
