"""The one place that knows every concrete part of usage-ingest. Nothing connects until it runs."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from quill_contracts.topics import DAILY_REPORTS, LICENSES, METER_EVENTS, USAGE_REPORTS
from quill_runtime import queues
from quill_runtime.assembly import Foundation, lay_foundation
from quill_runtime.consumer import Consumer
from quill_runtime.lifecycle import Component, Service
from quill_runtime.log_ends import read_log_ends
from quill_runtime.queues import SqsQueue

from quill_usage_ingest import consumers, jobs
from quill_usage_ingest.api import (
    backfill,
    corrections,
    daily_report,
    explanation,
    generations,
    meter_events,
    report_runs,
    sources,
    usage,
    usage_query,
)
from quill_usage_ingest.consumers.daily_reports import daily_reports
from quill_usage_ingest.consumers.meter_events import meter_events as events_of_meters
from quill_usage_ingest.consumers.queue import Copy, QueueIntake, pointer_from, report_from
from quill_usage_ingest.consumers.report_runs import RunWorker
from quill_usage_ingest.consumers.report_runs import report_runs as runs_of_pointers
from quill_usage_ingest.consumers.teams import counting_reports, daily_report_teams, report_teams
from quill_usage_ingest.consumers.watermarks import watermarks
from quill_usage_ingest.domain.watermark import LogEnds
from quill_usage_ingest.gateways import bucket
from quill_usage_ingest.gateways.bucket import S3Bucket
from quill_usage_ingest.jobs import ReportLogs
from quill_usage_ingest.settings import UsageIngestSettings
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.store.team_publication import TeamUsagePublication
from quill_usage_ingest.wire.queued_reports import daily_report_of

NAME = "usage-ingest"
REPORTS_GROUP = f"{NAME}.reports"
"""A consumer group per topic: members of one group that read different topics would make each other rebalance."""
DAILY_REPORTS_GROUP = f"{NAME}.daily-reports"
REPORT_RUNS_GROUP = f"{NAME}.report-runs"
METER_EVENTS_GROUP = f"{NAME}.meter-events"
ENTERING = {
    USAGE_REPORTS.name: REPORTS_GROUP,
    DAILY_REPORTS.name: DAILY_REPORTS_GROUP,
    METER_EVENTS.name: METER_EVENTS_GROUP,
}
"""The topics that usage is entered from: a watermark counts when these groups have passed what was in them."""


def build(settings: UsageIngestSettings) -> Service:
    """Put the service together.

    Raises:
        InvalidSealingKeys | InvalidApiTokens: naming the entry.
    """
    foundation = lay_foundation(NAME, settings)
    foundation.verify_keys_from(LICENSES.name, key_id_field="license_id", attributes=("type", "source"))
    slots = CounterSlots()
    heard = HeardSources()
    publication = SnapshotPublication(database=foundation.database, publisher=foundation.publisher, slots=slots)
    team_publication = TeamUsagePublication(database=foundation.database, publisher=foundation.publisher, slots=slots)
    consuming: list[Consumer[Any]] = [
        foundation.consumer(consumers.catalog(f"{NAME}.catalog", slots=slots)),
        foundation.consumer(consumers.customers(f"{NAME}.customers", slots=slots, outbox=foundation.outbox)),
        foundation.consumer(
            consumers.usage_reports(
                REPORTS_GROUP,
                park_as=settings.quill_kafka_group_prefix + REPORTS_GROUP,
                slots=slots,
                outbox=foundation.outbox,
                publication=publication,
                heard=heard,
            )
        ),
        foundation.consumer(report_teams(f"{NAME}.teams", slots=slots, publication=team_publication)),
        foundation.consumer(
            daily_reports(
                DAILY_REPORTS_GROUP,
                park_as=settings.quill_kafka_group_prefix + DAILY_REPORTS_GROUP,
                slots=slots,
                outbox=foundation.outbox,
                publication=publication,
                shadowed=settings.shadowed,
                heard=heard,
            )
        ),
        foundation.consumer(
            events_of_meters(
                METER_EVENTS_GROUP,
                park_as=settings.quill_kafka_group_prefix + METER_EVENTS_GROUP,
                slots=slots,
                outbox=foundation.outbox,
                publication=publication,
                heard=heard,
            )
        ),
        foundation.consumer(watermarks(f"{NAME}.watermarks", outbox=foundation.outbox, heard=heard)),
        foundation.consumer(runs_of_pointers(REPORT_RUNS_GROUP)),
        foundation.consumer(
            daily_report_teams(
                f"{DAILY_REPORTS_GROUP}.teams",
                slots=slots,
                read=counting_reports(daily_report_of, settings.shadowed),
                publication=team_publication,
            )
        ),
    ]
    working = [consumer for consumer in consuming if _is_done_here(consumer, settings)]
    return foundation.service(
        routers=[
            sources.router(
                database=foundation.database,
                outbox=foundation.outbox,
                keyring=foundation.keyring,
                tokens=foundation.tokens,
                clock=foundation.clock,
                heard=heard,
            ),
            report_runs.router(database=foundation.database, tokens=foundation.tokens),
            generations.router(database=foundation.database, tokens=foundation.tokens, clock=foundation.clock),
            daily_report.router(
                database=foundation.database,
                outbox=foundation.outbox,
                keyring=foundation.keyring,
                clock=foundation.clock,
                slots=slots,
                heard=heard,
                publication=publication,
            ),
            usage_query.router(
                database=foundation.database, keyring=foundation.keyring, clock=foundation.clock, slots=slots
            ),
            backfill.router(
                database=foundation.database, tokens=foundation.tokens, clock=foundation.clock, slots=slots
            ),
            explanation.router(
                database=foundation.database,
                keyring=foundation.keyring,
                tokens=foundation.tokens,
                clock=foundation.clock,
                slots=slots,
            ),
            meter_events.router(
                database=foundation.database,
                keyring=foundation.keyring,
                tokens=foundation.tokens,
                clock=foundation.clock,
                slots=slots,
                heard=heard,
            ),
            corrections.router(
                database=foundation.database, tokens=foundation.tokens, clock=foundation.clock, slots=slots
            ),
            usage.router(
                database=foundation.database,
                keyring=foundation.keyring,
                tokens=foundation.tokens,
                clock=foundation.clock,
                slots=slots,
            ),
        ],
        never_404_below=("/api",),
        consumers=working,
        components=[
            *jobs.jobs(
                database=foundation.database,
                outbox=foundation.outbox,
                clock=foundation.clock,
                slots=slots,
                publication=publication,
            ),
            *jobs.source_jobs(
                database=foundation.database,
                outbox=foundation.outbox,
                clock=foundation.clock,
                heard=heard,
                consumers=[consumer for consumer in working if consumer.consumption.group in ENTERING.values()],
                logs=_report_logs(settings),
                publication=publication,
            ),
            *(jobs.team_jobs(clock=foundation.clock, publication=team_publication) if _does_teams(settings) else ()),
            *_queue_intakes(settings, foundation),
        ],
    )


def _report_logs(settings: UsageIngestSettings) -> ReportLogs:
    """Where reports come by, under the names that this installation's groups have."""
    prefix = settings.quill_kafka_group_prefix

    async def ends() -> LogEnds:
        found = await read_log_ends(list(ENTERING), bootstrap_servers=settings.kafka_bootstrap_servers)
        return {(partition.topic, partition.number): end for partition, end in found.items()}

    return ReportLogs(
        groups={topic: prefix + group for topic, group in ENTERING.items()},
        parking=frozenset(prefix + group for group in (*ENTERING.values(), REPORT_RUNS_GROUP)),
        ends=ends,
    )


def _is_done_here(consumer: Consumer[Any], settings: UsageIngestSettings) -> bool:
    """Team rows are many times the work of totals: a replica of their own keeps them off the limit path."""
    is_teams = consumer.consumption.group.endswith(".teams")
    return _does_teams(settings) if is_teams else settings.usage_work != "teams"


def _does_teams(settings: UsageIngestSettings) -> bool:
    return settings.usage_work != "totals"


def _queue_intakes(settings: UsageIngestSettings, foundation: Foundation) -> list[Component]:
    """What is taken from queues and buckets; nothing unless a queue is named."""
    source = settings.usage_queue_source
    if source is None:
        return []
    endpoint_url, region = settings.aws_endpoint_url, settings.aws_region

    def intake(url: str, copy: Copy) -> QueueIntake:
        def open_queue() -> AbstractAsyncContextManager[SqsQueue]:
            return queues.opened(url, endpoint_url=endpoint_url, region=region)

        return QueueIntake(copy=copy, open_queue=open_queue, publisher=foundation.publisher)

    def open_bucket() -> AbstractAsyncContextManager[S3Bucket]:
        return bucket.opened(endpoint_url=endpoint_url, region=region)

    found: list[Component] = []
    if settings.usage_queue_v1_url is not None:
        found.append(intake(settings.usage_queue_v1_url, report_from(source)))
    if settings.usage_queue_v2_url is not None:
        found.append(intake(settings.usage_queue_v2_url, pointer_from(source)))
        found.append(
            RunWorker(
                database=foundation.database,
                outbox=foundation.outbox,
                publisher=foundation.publisher,
                clock=foundation.clock,
                open_bucket=open_bucket,
                buckets=settings.buckets,
                park_as=settings.quill_kafka_group_prefix + REPORT_RUNS_GROUP,
                shadowed=settings.shadowed,
            )
        )
    return found
