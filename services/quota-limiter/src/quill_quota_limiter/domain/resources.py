"""What differs between meters: buffers, minimum grace, exemptions. One table per rule version, never edited in place.

The numbers are PostHog's (wire contract 4). A change of any of them is a new version beside the old one, because the
evidence of a past decision names the version it was taken with and must lead to the same decision again (L7).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

RULE_VERSION: Final = 1
"""The table that decides today."""


@dataclass(frozen=True, slots=True)
class ResourceRules:
    """The peculiarities of one meter.

    Attributes:
        buffer: units above the quota that are still let through.
        minimum_grace_days: days of grace that even an untrusted customer gets.
        is_exempt: every unit costs us money at once, so neither trust nor ``never_drop_data`` holds the limit back.
    """

    buffer: int = 0
    minimum_grace_days: int = 0
    is_exempt: bool = False


@dataclass(frozen=True, slots=True)
class RuleTable:
    """All numbers a decision depends on, under one version."""

    version: int
    near_percent: int
    grace_days_by_trust: Mapping[int, int]
    resources: Mapping[str, ResourceRules]

    def resource(self, usage_key: str) -> ResourceRules:
        """The rules of one meter; a meter without peculiarities has the plain ones (L10: never another meter's)."""
        return self.resources.get(usage_key, _PLAIN)

    def grace_days(self, usage_key: str, trust_score: int | None) -> int:
        """Days between going over and being limited: the larger of what trust and the meter give."""
        rules = self.resource(usage_key)
        earned = 0 if rules.is_exempt or trust_score is None else self.grace_days_by_trust.get(trust_score, 0)
        return max(earned, rules.minimum_grace_days)


_PLAIN: Final = ResourceRules()

RULE_TABLES: Final[Mapping[int, RuleTable]] = MappingProxyType(
    {
        1: RuleTable(
            version=1,
            near_percent=80,
            grace_days_by_trust=MappingProxyType({0: 0, 3: 0, 7: 1, 10: 3, 15: 5}),
            resources=MappingProxyType(
                {
                    "recordings": ResourceRules(buffer=1_000),
                    "feature_flag_requests": ResourceRules(minimum_grace_days=2),
                    "ai_credits": ResourceRules(is_exempt=True),
                    "signals_credits": ResourceRules(is_exempt=True),
                    "posthog_code_credits": ResourceRules(is_exempt=True),
                }
            ),
        ),
    }
)
