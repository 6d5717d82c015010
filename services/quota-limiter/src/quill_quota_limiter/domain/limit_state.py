"""The state machine of one limit: where it stands, what moved it, and how the log is replayed (L7)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

StateName = Literal["within", "near", "suspended", "limited"]


@dataclass(frozen=True, slots=True)
class LimitState:
    """Where one meter of one organization stands; only a `Transition` moves it.

    Attributes:
        since: when the last transition happened.
        limited_until: exclusive end of the limit; set exactly when limited.
        suspended_until: exclusive end of the grace; set exactly when suspended.
        sequence: number of transitions so far.
    """

    name: StateName
    since: datetime
    sequence: int
    limited_until: datetime | None = None
    suspended_until: datetime | None = None

    def __post_init__(self) -> None:
        assert (self.limited_until is not None) == (self.name == "limited")
        assert (self.suspended_until is not None) == (self.name == "suspended")


@dataclass(frozen=True, slots=True)
class TeamUsed:
    """One team's part of a scope's usage, and the revision that said so; 0 when none ever did."""

    usage: int
    usage_revision: int


@dataclass(frozen=True, slots=True)
class ScopeEvidence:
    """What only a scope's decision looks at: what was set, and who used how much.

    ``teams`` are those that used something; the scope's usage is their sum. The numbers of the organization's quota
    (allowance aside, which money is bought beyond) say nothing here and stand at zero.
    """

    settings_revision: int
    money_minor: int | None
    currency: str | None
    teams: Mapping[str, TeamUsed]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Every input of a decision, so that it can be taken again and compared (L7).

    ``usage_revision`` is 0 and ``usage`` is 0 when no usage was ever heard of.
    """

    usage: int
    usage_revision: int
    usage_as_of: datetime | None
    quota: int | None
    allowance: int
    billing_limit_usd: int | None
    subscribed: bool
    customer_revision: int
    trust_score: int | None
    never_drop_data: bool
    buffer: int
    grace_days: int
    period_start: datetime
    period_end: datetime
    previous: StateName | None
    evaluated_at: datetime
    free_trial_until: datetime | None = None
    credit_balance_minor: int | None = None
    scope: ScopeEvidence | None = None
    in_trial: bool = True
    """A free trial includes the meter's product."""
    used: int | None = None
    """Everything used in the billing period, where ``usage``, which the quota was compared with, is another number."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of one limit, with the rule that made it and everything the rule looked at.

    ``scope`` names the team or project whose limit it is; ``None`` for the organization's own.
    """

    organization_id: str
    usage_key: str
    sequence: int
    from_state: StateName | None
    to_state: StateName
    at: datetime
    limited_until: datetime | None
    suspended_until: datetime | None
    rule: str
    rule_version: int
    sentence: str
    evidence: Evidence
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class ReasonChange:
    """Another rule decides, and the state stays as it is: recorded so that the log says why at any instant (L7).

    Attributes:
        sequence: number of transitions so far, which this does not raise.
        number: number of changes of reason so far, this one included.
        state: what holds before and after.
        from_rule: the reason before.
    """

    organization_id: str
    usage_key: str
    sequence: int
    number: int
    state: StateName
    at: datetime
    from_rule: str
    rule: str
    rule_version: int
    sentence: str
    evidence: Evidence
    scope: str | None = None


LogEntry = Transition | ReasonChange
"""What the log of a limit holds, in order."""


class BrokenSequence(ValueError):
    """A transition does not follow the state it is applied to: the log has a gap or was reordered."""


def evolve(state: LimitState | None, transition: Transition) -> LimitState:
    """The state after a transition.

    Raises:
        BrokenSequence: the transition is not the next one.
    """
    sequence = 0 if state is None else state.sequence
    if transition.sequence != sequence + 1 or transition.from_state != (state.name if state else None):
        raise BrokenSequence(
            f"{transition.organization_id}/{transition.usage_key}: {transition.sequence} does not follow {sequence}"
        )
    return LimitState(
        name=transition.to_state,
        since=transition.at,
        sequence=transition.sequence,
        limited_until=transition.limited_until,
        suspended_until=transition.suspended_until,
    )


def replay(log: Iterable[LogEntry]) -> LimitState | None:
    """The state a log leads to; ``None`` for an empty one. The last entry's rule is the reason.

    Raises:
        BrokenSequence: the log is not complete and in order.
    """
    state: LimitState | None = None
    for entry in log:
        if isinstance(entry, Transition):
            state = evolve(state, entry)
        elif state is None or (entry.sequence, entry.state) != (state.sequence, state.name):
            raise BrokenSequence(f"{entry.organization_id}/{entry.usage_key}: a reason of {entry.sequence} came late")
    return state
