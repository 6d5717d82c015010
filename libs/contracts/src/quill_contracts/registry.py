"""Which message travels on which topic: the one table that schemas, goldens and the AsyncAPI document come from."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from quill_contracts import topics
from quill_contracts.dead_letters import DeadLetter
from quill_contracts.intakes import DailyReport, ReportRun
from quill_contracts.invoices import CreditBalance, Invoice
from quill_contracts.licenses import License
from quill_contracts.limits import LimitStates, LimitTransition, ThresholdReached
from quill_contracts.message import Message
from quill_contracts.meter_events import MeterEvent
from quill_contracts.sources import SourceWatermark, UsageSource
from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot
from quill_contracts.usage import LateUsage, PeriodUsageSnapshot, TeamUsageSnapshot, UsageReport

MESSAGES: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {
        topics.USAGE_REPORTS.name: UsageReport,
        topics.DAILY_REPORTS.name: DailyReport,
        topics.REPORT_RUNS.name: ReportRun,
        topics.METER_EVENTS.name: MeterEvent,
        topics.WATERMARKS.name: SourceWatermark,
        topics.SOURCES.name: UsageSource,
        topics.PERIOD_USAGE.name: PeriodUsageSnapshot,
        topics.LATE_USAGE.name: LateUsage,
        topics.TEAM_USAGE.name: TeamUsageSnapshot,
        topics.LIMIT_STATES.name: LimitStates,
        topics.LIMIT_TRANSITIONS.name: LimitTransition,
        topics.LIMIT_THRESHOLDS.name: ThresholdReached,
        topics.CATALOG.name: CatalogProduct,
        topics.CUSTOMERS.name: CustomerSnapshot,
        topics.INVOICES.name: Invoice,
        topics.CREDITS.name: CreditBalance,
        topics.LICENSES.name: License,
    }
)


class UnknownTopic(LookupError):
    """No message is registered for this topic."""


def message_type(topic: str) -> type[Message]:
    """The model of a topic's records; ``<topic>.dead`` carries `DeadLetter`.

    Raises:
        UnknownTopic: with the list of known topics.
    """
    if topic.endswith(topics.DEAD_SUFFIX) and topic.removesuffix(topics.DEAD_SUFFIX) in MESSAGES:
        return DeadLetter
    if topic not in MESSAGES:
        raise UnknownTopic(f"no such topic: {topic!r}; known: {', '.join(sorted(MESSAGES))}")
    return MESSAGES[topic]
