"""Every topic: its key, its one producing service, its readers, and how Kafka keeps it."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["log", "compacted"]
DAY_MS: Final = 24 * 60 * 60 * 1000
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
DEAD_SUFFIX: Final = ".dead"


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic. Names end in a major version; a topic has one producing service and one message type."""

    name: str
    key: str
    producer: str
    readers: tuple[str, ...]
    kind: Kind
    partitions: int = 4
    summary: str = ""
    message_bytes_max: int | None = None
    """For values beyond Kafka's usual mebibyte; None leaves the broker's own bound."""

    @property
    def dead(self) -> str:
        """Where consumers of this topic announce parked records."""
        return self.name + DEAD_SUFFIX

    @property
    def config(self) -> dict[str, str]:
        """Broker settings. Compaction waits a week, so that a reader that was down still sees each step (L12)."""
        size = {} if self.message_bytes_max is None else {"max.message.bytes": str(self.message_bytes_max)}
        if self.kind == "compacted":
            return {"cleanup.policy": "compact", "min.compaction.lag.ms": str(7 * DAY_MS), **size}
        return {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS), **size}


USAGE_REPORTS: Final = Topic(
    "usage.reports.v1",
    "organization_id",
    "regions, usage-ingest",
    ("usage-ingest",),
    "log",
    summary="What sources claim: absolute counts per organization and window.",
)
DAILY_REPORTS: Final = Topic(
    "usage.daily-reports.v1",
    "organization_id",
    "usage-ingest",
    ("usage-ingest",),
    "log",
    summary="PostHog's daily reports as its queue or bucket held them, not yet decoded.",
    message_bytes_max=MESSAGE_BYTES_MAX,
)
REPORT_RUNS: Final = Topic(
    "usage.report-runs.v1",
    "run_id",
    "usage-ingest",
    ("usage-ingest",),
    "log",
    partitions=1,
    summary="Pointers to runs of chunk files in a bucket.",
)
METER_EVENTS: Final = Topic(
    "usage.meter-events.v1",
    "organization_id",
    "products, usage-ingest",
    ("usage-ingest",),
    "log",
    summary="Single facts of use, as CloudEvents.",
)
WATERMARKS: Final = Topic(
    "usage.watermarks.v1",
    "source",
    "regions",
    ("usage-ingest",),
    "log",
    partitions=1,
    summary="A source's word that it has sent everything up to an instant.",
)
SOURCES: Final = Topic(
    "usage.sources.v1",
    "source",
    "usage-ingest",
    ("invoicing",),
    "compacted",
    partitions=1,
    summary="How far each source has told everything, who is silent, and what was waived.",
)
PERIOD_USAGE: Final = Topic(
    "usage.period-usage.v1",
    "organization_id",
    "usage-ingest",
    ("quota-limiter", "invoicing", "subscriptions"),
    "compacted",
    summary="Period-to-date usage and period maxima of one organization.",
)
LATE_USAGE: Final = Topic(
    "usage.late-usage.v1",
    "organization_id",
    "usage-ingest",
    ("invoicing",),
    "log",
    summary="Changed usage of billing periods older than those in the snapshot, one record per period.",
)
TEAM_USAGE: Final = Topic(
    "usage.team-usage.v1",
    "organization_id/team_id",
    "usage-ingest",
    ("quota-limiter",),
    "compacted",
    summary="Period-to-date usage of one team (project) of an organization.",
)
LIMIT_STATES: Final = Topic(
    "limits.states.v1",
    "organization_id",
    "quota-limiter",
    ("regions", "subscriptions", "console"),
    "compacted",
    summary="Who is limited on what, until when.",
)
LIMIT_TRANSITIONS: Final = Topic(
    "limits.transitions.v1",
    "organization_id",
    "quota-limiter",
    ("anyone",),
    "log",
    summary="Each change of a limit state with its evidence.",
)
LIMIT_THRESHOLDS: Final = Topic(
    "limits.thresholds.v1",
    "organization_id",
    "quota-limiter",
    ("anyone",),
    "log",
    summary="A share of a quota was reached: once per billing period, quota and share.",
)
CATALOG: Final = Topic(
    "subscriptions.catalog.v1",
    "product_key",
    "subscriptions",
    ("usage-ingest",),
    "compacted",
    partitions=1,
    summary="Products in force and the counters that feed their meters.",
)
CUSTOMERS: Final = Topic(
    "subscriptions.customers.v1",
    "organization_id",
    "subscriptions",
    ("usage-ingest", "quota-limiter", "invoicing", "licensing"),
    "compacted",
    summary="Complete snapshot per customer: schedule, items, limits, features.",
)
INVOICES: Final = Topic(
    "invoicing.invoices.v1",
    "organization_id",
    "invoicing",
    ("subscriptions", "console"),
    "log",
    summary="Each state an invoice passes through.",
)
CREDITS: Final = Topic(
    "invoicing.credits.v1",
    "organization_id",
    "invoicing",
    ("quota-limiter", "subscriptions"),
    "compacted",
    summary="Credit balance per customer.",
)
LICENSES: Final = Topic(
    "licensing.licenses.v1",
    "license_id",
    "licensing",
    ("usage-ingest", "quota-limiter", "subscriptions", "invoicing"),
    "compacted",
    partitions=1,
    summary="Licenses with sealed secrets: who may sign tokens.",
)

TOPICS: Final[tuple[Topic, ...]] = (
    USAGE_REPORTS,
    DAILY_REPORTS,
    REPORT_RUNS,
    METER_EVENTS,
    WATERMARKS,
    SOURCES,
    PERIOD_USAGE,
    LATE_USAGE,
    TEAM_USAGE,
    LIMIT_STATES,
    LIMIT_TRANSITIONS,
    LIMIT_THRESHOLDS,
    CATALOG,
    CUSTOMERS,
    INVOICES,
    CREDITS,
    LICENSES,
)
