"""What an organization used in its present billing period: what the answer to a report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.cut_usage import CutUsage
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import PeriodUsage


@dataclass(frozen=True, slots=True)
class CurrentUsage:
    """An organization with its present period and what it used in it; ``usage`` is None before the first report."""

    organization: Organization
    period: BillingPeriod
    usage: PeriodUsage | None
    meters: MeterMap
    event_usage: Mapping[str, int] = field(default_factory=dict)
    """Complete usage in the period of meters that events feed, and of those that are counted anew."""
    earlier_event_usage: Sequence[Mapping[str, int]] = ()
    """The same of the billing periods before, newest first; read only where a gauge is carried (K14)."""
    cuts: Mapping[datetime, CutUsage] = field(default_factory=dict)
    """What was used in the period before each instant that a bill depends on (L12)."""
