"""Answers to "why is it so much" and "what did we know then", with the period and the organization asked for (L5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.explanation import Explanation
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import CounterUsage


@dataclass(frozen=True, slots=True)
class UsageExplanation:
    """A counter of one organization and period, explained, beside the number that is stored and published."""

    organization: Organization
    period: BillingPeriod
    explanation: Explanation
    stored: CounterUsage
    counts_from: datetime | None = None
    """Windows that start earlier do not count for the meter."""

    @property
    def is_equal(self) -> bool:
        """Whether the explained total is the stored one; it always should be."""
        return self.explanation.usage.to_date == self.stored.to_date


@dataclass(frozen=True, slots=True)
class UsageAsOf:
    """What was known at an instant of each counter in one period, and what is known now."""

    organization: Organization
    period: BillingPeriod
    at: datetime
    then: Mapping[str, CounterUsage]
    now: Mapping[str, CounterUsage]
