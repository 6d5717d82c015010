"""An organization as usage needs to know it: its schedule, its license, and what the daily answer says of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from quill_pricing.period import BillingSchedule


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
    """Price documents by meter of what is subscribed, to show what a correction would cost; nothing is billed here."""


@dataclass(frozen=True, slots=True)
class Organization:
    """The projection of one customer snapshot.

    ``customer_revision`` is that of the snapshot; ``usage_revision`` counts the versions of this organization's own
    period usage and is 0 while it has none.
    """

    organization_id: str
    license_id: str
    customer_revision: int
    schedule: BillingSchedule
    customer: CustomerFacts
    usage_revision: int = 0

    def is_spoken_for_by(self, license_id: str) -> bool:
        """Whether this license is the organization's own, or a further one on its account (L17, O3)."""
        return license_id == self.license_id or license_id in self.customer.further_license_ids


@dataclass(frozen=True, slots=True)
class UsageStanding:
    """As much of an organization as entering reports needs; ``sources`` are those that ever reported for it."""

    schedule: BillingSchedule
    usage_revision: int
    sources: Collection[str] = ()
