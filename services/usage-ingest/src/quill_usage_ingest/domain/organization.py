"""An organization as usage needs to know it: its schedule, its license, and what the daily answer says of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.period import BillingSchedule
from quill_pricing.schedule_history import EndedSchedule, ScheduleChange, ScheduleHistory, Schedules

CUTS_KEPT: Final = timedelta(days=800)
"""Usage comes up to 400 days late, into a period that may be a year long (D6)."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something the customer may use, as PostHog's client reads it."""

    key: str
    name: str
    description: str = ""
    unit: str | None = None
    limit: int | None = None
    note: str | None = None
    is_plan_default: bool = True


@dataclass(frozen=True, slots=True)
class CustomerFacts:
    """What ``POST /api/usage`` answers beside usage. Quotas are in units of the meter; None is unlimited."""

    customer_id: str
    license_type: str
    has_active_subscription: bool = False
    never_drop_data: bool = False
    quotas: Mapping[str, int | None] = field(default_factory=dict)
    trust_scores: Mapping[str, int] = field(default_factory=dict)
    """By product key, as PostHog's client looks them up."""
    features: tuple[Feature, ...] = ()
    further_license_ids: tuple[str, ...] = ()
    """More instances billed on this account (O3)."""
    prices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Price documents by meter of what was paid lately: what a correction would cost. Nothing is billed here."""
    billing_terms: Mapping[str, tuple[BillingTerms, ...]] = field(default_factory=dict)
    """By meter: from when on its usage was charged, and up to which quantity."""
    free_trial_until: datetime | None = None
    """Exclusive end of a free trial."""


@dataclass(frozen=True, slots=True)
class Organization:
    """The projection of one customer snapshot.

    ``customer_revision`` is that of the snapshot; ``usage_revision`` counts the versions of this organization's own
    period usage and is 0 while it has none.

    Attributes:
        schedule: the one in force.
        ended_schedules: those before it, kept here: a snapshot knows only its own.
        cuts: the instants that a bill depends on, rising; kept here for as long as usage may come late.
        begins: what the snapshot says of when its schedule begins; None on what is stored, and for "at its anchor".
    """

    organization_id: str
    license_id: str
    customer_revision: int
    schedule: BillingSchedule
    customer: CustomerFacts
    usage_revision: int = 0
    ended_schedules: tuple[EndedSchedule, ...] = ()
    cuts: tuple[datetime, ...] = ()
    begins: ScheduleChange | None = field(default=None, compare=False)

    @property
    def schedules(self) -> Schedules:
        """What makes its billing periods (L21)."""
        return ScheduleHistory(self.schedule, self.ended_schedules) if self.ended_schedules else self.schedule

    def following(self, stored: "Organization") -> "Organization":
        """The projection of this snapshot after what was known until now: its schedule takes over at the cut (L21)."""
        change = self.begins or ScheduleChange(self.schedule, self.schedule.anchor, self.schedule.anchor)
        history = ScheduleHistory(stored.schedule, stored.ended_schedules).changed(change)
        oldest = change.begins - CUTS_KEPT
        cuts = tuple(sorted(at for at in {*stored.cuts, *self.cuts} if at >= oldest))
        return replace(self, usage_revision=stored.usage_revision, ended_schedules=history.ended, cuts=cuts)

    def is_spoken_for_by(self, license_id: str) -> bool:
        """Whether this license is the organization's own, or a further one on its account (L17, O3)."""
        return license_id == self.license_id or license_id in self.customer.further_license_ids


@dataclass(frozen=True, slots=True)
class UsageStanding:
    """As much of an organization as entering reports needs; ``sources`` are those that ever reported for it.

    ``cuts`` are those of `Organization`; most organizations have none, and pay nothing for it.
    """

    schedules: Schedules
    usage_revision: int
    sources: Collection[str] = ()
    cuts: Sequence[datetime] = ()
