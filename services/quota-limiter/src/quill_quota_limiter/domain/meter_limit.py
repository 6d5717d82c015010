"""One limit as it stands, whoever's it is: the state from the log beside the newest numbers."""

from dataclasses import dataclass

from quill_pricing.money import Money

from quill_quota_limiter.domain.limit_state import LimitState


@dataclass(frozen=True, slots=True)
class MeterLimit:
    """One meter's limit state beside the numbers and the rule of the newest evaluation."""

    state: LimitState
    usage: int
    quota: int | None
    rule: str
    rule_version: int
    told: tuple[int, ...] = ()
    """Percent of this quota that were told in this billing period."""
    told_spend: tuple[Money, ...] = ()
    """Amounts of cost that were told in this billing period."""
    reasons: int = 0
    """Changes of reason recorded so far."""

    @property
    def log_length(self) -> int:
        """Entries of the limit's log: transitions and changes of reason."""
        return self.state.sequence + self.reasons
