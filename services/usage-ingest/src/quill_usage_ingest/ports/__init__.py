"""What the use cases need of a store. Two stores keep it: Postgres and memory, held to one behaviour suite."""

from quill_usage_ingest.ports.meter_events import (
    ArrivedEvent,
    CounterRecount,
    EventRecount,
    EventTransaction,
    KeptEvent,
    MeterRecounts,
)
from quill_usage_ingest.ports.sources import SourceTransaction, SourceViews, Unfenced
from quill_usage_ingest.ports.teams import TeamTransaction, TeamUsageTransaction
from quill_usage_ingest.ports.usage import (
    SNAPSHOT_PERIODS,
    Arrival,
    ArrivedReport,
    Corrections,
    KeptClaim,
    KeptReport,
    TooManyCounters,
    TooManyWindows,
    UsageTransaction,
)

__all__ = [
    "SNAPSHOT_PERIODS",
    "Arrival",
    "ArrivedEvent",
    "ArrivedReport",
    "Corrections",
    "CounterRecount",
    "EventRecount",
    "EventTransaction",
    "KeptClaim",
    "KeptEvent",
    "KeptReport",
    "MeterRecounts",
    "SourceTransaction",
    "SourceViews",
    "TeamTransaction",
    "TeamUsageTransaction",
    "TooManyCounters",
    "TooManyWindows",
    "Unfenced",
    "UsageTransaction",
]
