"""What quota-limiter publishes: the state of every limit, and each change with its evidence."""

from typing import Annotated, Literal

from pydantic import Field

from quill_contracts.identifiers import (
    Currency,
    Instant,
    OrganizationId,
    PeriodTotal,
    Quantity,
    Revision,
    TeamId,
    UsageKey,
)
from quill_contracts.message import Message, WireModel

ThresholdKind = Literal["units", "spend"]
LimitStateName = Literal["within", "near", "suspended", "limited"]
"""``near``: 80 % or more of the quota. ``suspended``: over, but within its grace. ``limited``: usage is dropped."""

SCOPES_PER_MESSAGE_MAX = 2_000
ScopeKind = Literal["team", "project"]
ScopeId = Annotated[str, Field(max_length=205, pattern=r"^(team:[^\x00]+|project:[A-Za-z0-9_.-]+)$")]


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


class ScopeStates(WireModel):
    """The limits of one team or project of an organization, set by a person and decided beside the organization's.

    ``scope`` is ``team:<id>`` or ``project:<name>``. A team is limited when the organization, its project or itself is:
    the tightest holds (L10).
    """

    scope: ScopeId
    kind: ScopeKind
    teams: list[TeamId]
    states: dict[UsageKey, LimitState]


class LimitStates(Message):
    """All limit states of one organization (``limits.states.v1``)."""

    organization_id: OrganizationId
    revision: Revision
    evaluated_at: Instant
    period_start: Instant
    period_end: Instant
    states: dict[UsageKey, LimitState]
    """The organization's own."""
    scopes: Annotated[list[ScopeStates], Field(max_length=SCOPES_PER_MESSAGE_MAX)] = []
    """Of its teams and projects, those that are limited first."""
    scopes_left_out: Annotated[int, Field(ge=0)] = 0
    """How many more there are than fit; ``limits.transitions.v1`` and the service tell of each of them."""


class TeamUsed(WireModel):
    """One team's part of a scope's usage, and the revision of ``usage.team-usage.v1`` that said so."""

    usage: PeriodTotal
    usage_revision: int


class ScopeEvidence(WireModel):
    """What only the decision of a scope looks at: the settings' revision, what was set in money, who used how much."""

    settings_revision: int
    money_minor: int | None = None
    currency: Currency | None = None
    teams: dict[TeamId, TeamUsed]


class LimitEvidence(WireModel):
    """Every input of a decision, so that it can be taken again and compared (L7)."""

    usage: PeriodTotal
    """What the quota was compared with: what is charged of the billing period while the meter is paid, else all."""
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
    in_trial: bool = True
    """A free trial includes the meter's product: it lifts the quota while it runs, unless the product is subscribed."""
    used: PeriodTotal | None = None
    """Everything used in the billing period, where that is another number than ``usage``."""
    scope: ScopeEvidence | None = None
    """Null for the organization's own limit. Else the usage is the sum over ``teams``; trust, graces and buffer decided
    nothing."""


class LimitTransition(Message):
    """One change of one limit state (``limits.transitions.v1``)."""

    organization_id: OrganizationId
    usage_key: UsageKey
    sequence: int
    """Position in the (organization, scope, meter) history, from 1."""
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
    scope: ScopeId | None = None
    """Whose limit it is: a team's or a project's; null for the organization's own."""


class ThresholdReached(Message):
    """Usage reached a share of the quota, or its cost an amount (``limits.thresholds.v1``); once per ``reached_id``.

    Who does not know ``kind`` reads a spend threshold as 100 percent of the units that its amount buys, which is true.
    """

    organization_id: OrganizationId
    usage_key: UsageKey
    reached_id: str
    """Names organization, meter, billing period and threshold: quota and share, or ``spend``, currency and amount. The
    same id is the same fact sent again."""
    percent: Annotated[int, Field(ge=1, le=100)]
    """Of the quota; 100 for a spend threshold."""
    usage: PeriodTotal
    quota: PeriodTotal
    """For a spend threshold the fewest units that cost ``amount_minor``, never more than ``usage``."""
    billing_limit_usd: int | None
    """The billing limit that the quota was bought with; null where it is an allowance, and for a spend threshold."""
    usage_revision: int
    customer_revision: int
    period_start: Instant
    period_end: Instant
    at: Instant
    sentence: str
    """The fact for a person to read."""
    kind: ThresholdKind = "units"
    amount_minor: Annotated[int, Field(ge=1)] | None = None
    """The spend threshold in minor units of ``currency``; null for one in units, like the next two."""
    spend_minor: Annotated[int, Field(ge=1)] | None = None
    """What the meter cost in the billing period when this was told: ``amount_minor`` or more."""
    currency: Currency | None = None
