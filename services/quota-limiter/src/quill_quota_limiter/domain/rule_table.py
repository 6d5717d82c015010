"""The numbers a decision depends on: buffers, graces, exemptions. One table per rule version, never edited.

A change of any number is a new version beside the old one, because the evidence of a past decision names the version
it was taken with and must lead to the same decision again (L7). Tables are data: operators add them, migrations seed
version 1 with PostHog's numbers (wire contract 4).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

TRUST_SCORES: Final = (0, 3, 7, 10, 15)


@dataclass(frozen=True, slots=True)
class ResourceRules:
    """The peculiarities of one meter.

    Attributes:
        buffer: units above the quota that are still let through.
        minimum_grace_days: days of grace that even an untrusted customer gets.
        is_exempt: every unit costs us money at once, so neither trust nor ``never_drop_data`` holds the limit back.
            Whether a free trial does is a fact of the catalog (`Entitlement.in_trial`).
        is_paid_by_credits: limited as soon as the customer's credit balance is known and used up, without a grace.
        grace_days_by_trust: this meter's own days, instead of the table's; ``None`` for the table's.
    """

    buffer: int = 0
    minimum_grace_days: int = 0
    is_exempt: bool = False
    is_paid_by_credits: bool = False
    grace_days_by_trust: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class RuleTable:
    """All numbers a decision depends on, under one version."""

    version: int
    near_percent: int
    grace_days_by_trust: Mapping[int, int]
    resources: Mapping[str, ResourceRules] = field(default_factory=dict)

    def resource(self, usage_key: str) -> ResourceRules:
        """The rules of one meter; a meter without peculiarities has the plain ones (L10: never another meter's)."""
        return self.resources.get(usage_key, _PLAIN)

    def grace_days(self, usage_key: str, trust_score: int | None) -> int:
        """Days between going over and being limited: the larger of what trust and the meter give.

        A customer whom nobody has scored is trusted as one with score 0.
        """
        rules = self.resource(usage_key)
        by_trust = self.grace_days_by_trust if rules.grace_days_by_trust is None else rules.grace_days_by_trust
        earned = 0 if rules.is_exempt else by_trust.get(trust_score or 0, 0)
        return max(earned, rules.minimum_grace_days)


_PLAIN: Final = ResourceRules()
