"""What quota-limiter publishes: the state of every limit, and each change with its evidence."""

from typing import Annotated, Literal

from pydantic import Field

from quill_contracts.identifiers import Instant, OrganizationId, PeriodTotal, Quantity, Revision, UsageKey
from quill_contracts.message import Message, WireModel

LimitStateName = Literal["within", "near", "suspended", "limited"]
"""``near``: 80 % or more of the quota. ``suspended``: over, but within its grace. ``limited``: usage is dropped."""


class LimitState(WireModel):
    """One meter of one organization: may it be used, until when not, and which rule said so."""

    state: LimitStateName
    usage: PeriodTotal
    quota: PeriodTotal | None
    limited_until: Instant | None = None
    suspended_until: Instant | None = None
    rule: str
    rule_version: int
    since: Instant


class LimitStates(Message):
    """All limit states of one organization (``limits.states.v1``)."""

    organization_id: OrganizationId
    revision: Revision
    evaluated_at: Instant
    period_start: Instant
    period_end: Instant
    states: dict[UsageKey, LimitState]


class LimitEvidence(WireModel):
    """Every input of a decision, so that it can be taken again and compared (L7)."""

    usage: PeriodTotal
    usage_revision: int
    usage_as_of: Instant | None
    quota: PeriodTotal | None
    allowance: Quantity
    billing_limit_usd: int | None
    subscribed: bool
    customer_revision: int
    trust_score: int | None
    never_drop_data: bool
    buffer: int
    grace_days: int
    period_start: Instant
    period_end: Instant
    previous: LimitStateName | None
    evaluated_at: Instant
    free_trial_until: Instant | None = None
    credit_balance_minor: int | None = None
    """What was left of the customer's credits; null when no balance was ever published."""


class LimitTransition(Message):
    """One change of one limit state (``limits.transitions.v1``)."""

    organization_id: OrganizationId
    usage_key: UsageKey
    sequence: int
    """Position in the (organization, meter) history, from 1."""
    from_state: LimitStateName | None
    to_state: LimitStateName
    at: Instant
    limited_until: Instant | None = None
    suspended_until: Instant | None = None
    rule: str
    rule_version: int
    sentence: str
    """The decision for a person to read."""
    evidence: LimitEvidence


class ThresholdReached(Message):
    """Usage reached a share of the quota (``limits.thresholds.v1``); told once for each ``reached_id``."""

    organization_id: OrganizationId
    usage_key: UsageKey
    reached_id: str
    """Names organization, meter, billing period, quota and share: the same id is the same fact sent again."""
    percent: Annotated[int, Field(ge=1, le=100)]
    usage: PeriodTotal
    quota: PeriodTotal
    billing_limit_usd: int | None
    """The billing limit that the quota was bought with; null where the quota is an allowance."""
    usage_revision: int
    customer_revision: int
    period_start: Instant
    period_end: Instant
    at: Instant
    sentence: str
    """The fact for a person to read."""
