"""What usage-ingest does by the clock: publishing what is due, letting waiting reports in, audits, partitions."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import Gauge
from quill_runtime import positions
from quill_runtime.clock import Clock
from quill_runtime.consumer import Consumer
from quill_runtime.database import Database
from quill_runtime.jobs import PeriodicJob
from quill_runtime.outbox import Outbox

from quill_usage_ingest.domain.usage_source import SourceState, UsageSource
from quill_usage_ingest.domain.watermark import LogEnds
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.event_recounts import EventRecounts
from quill_usage_ingest.store.generations import PostgresGenerations
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.meter_recounts import CounterRecounts
from quill_usage_ingest.store.parked_claims import read_parked
from quill_usage_ingest.store.parked_reports import known_among_parked, replay_parked_reports
from quill_usage_ingest.store.partitions import Partitions
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.store.team_publication import TeamUsagePublication
from quill_usage_ingest.store.team_rebuilds import TeamRebuilds
from quill_usage_ingest.usecases.change_source import hear_sources, watch_sources
from quill_usage_ingest.usecases.compare_generations import compare_generations
from quill_usage_ingest.usecases.promote_watermarks import promote_watermarks
from quill_usage_ingest.usecases.recompute import Recomputed, audit_organizations
from quill_usage_ingest.usecases.recompute_events import recompute_events

PUBLISH_EVERY_SECONDS: Final = 0.25
REPLAY_EVERY_SECONDS: Final = 5.0
REPLAY_ORGANIZATIONS_MAX: Final = 100
AUDIT_EVERY_SECONDS: Final = 60.0
REBUILD_TEAMS_EVERY_SECONDS: Final = 1.0
RECOUNT_EVERY_SECONDS: Final = 1.0
AUDIT_BATCH: Final = 50
PARTITIONS_EVERY_SECONDS: Final = 3_600.0
"""Partitions are made months ahead; the first run comes at the start."""
COMPARE_EVERY_SECONDS: Final = 5.0
COMPARE_BATCH: Final = 500
COMPARE_BATCHES_MAX: Final = 200
"""In one run: a day of a hundred thousand organizations."""
HEAR_EVERY_SECONDS: Final = 2.0
WATCH_EVERY_SECONDS: Final = 5.0
PROMOTE_EVERY_SECONDS: Final = 1.0

SOURCE_SILENT: Final = Gauge("quill_source_silent", "1 while an expected source is silent", ["source"])
SOURCE_COMPLETE_THROUGH: Final = Gauge(
    "quill_source_complete_through_seconds", "Unix time up to which a source has told everything", ["source"]
)
SOURCE_PARKED: Final = Gauge("quill_source_parked_reports", "Reports of a source that wait as dead letters", ["source"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReportLogs:
    """The logs that reports come by.

    Attributes:
        groups: By topic, the consumer group that enters its reports.
        parking: Every consumer group whose dead letters are reports.
        ends: Where the logs end now.
    """

    groups: Mapping[str, str]
    parking: frozenset[str]
    ends: Callable[[], Awaitable[LogEnds]]


def source_jobs(
    *,
    database: Database,
    outbox: Outbox,
    clock: Clock,
    heard: HeardSources,
    consumers: Sequence[Consumer[Any]],
    logs: ReportLogs,
    publication: SnapshotPublication,
) -> list[PeriodicJob]:
    """What keeps the state of sources: who was heard of, who is silent, whose watermark may count."""
    upkeep = SourceUpkeep(
        database=database, outbox=outbox, heard=heard, consumers=consumers, logs=logs, publication=publication
    )
    every = {
        "hear-sources": (HEAR_EVERY_SECONDS, upkeep.hear),
        "watch-sources": (WATCH_EVERY_SECONDS, upkeep.watch),
        "promote-watermarks": (PROMOTE_EVERY_SECONDS, upkeep.promote),
    }
    return [
        PeriodicJob(name=name, every_seconds=seconds, run=run, clock=clock) for name, (seconds, run) in every.items()
    ]


def jobs(
    *, database: Database, outbox: Outbox, clock: Clock, slots: CounterSlots, publication: SnapshotPublication
) -> list[PeriodicJob]:
    """All periodic work of the service."""

    async def publish_due(now: datetime) -> None:
        del now
        await publication.publish_due()

    replays = ParkedReplay(database=database, outbox=outbox)
    recounts = CounterRecounts(database=database, slots=slots)
    events = EventRecounts(database=database, slots=slots)
    audit = UsageAudit(database=database, slots=slots, recounts=recounts)
    rebuilds = TeamRebuilds(database=database, slots=slots)
    partitions = Partitions(database)
    comparing = GenerationComparing(database=database)
    return [
        PeriodicJob(name="publish-due", every_seconds=PUBLISH_EVERY_SECONDS, run=publish_due, clock=clock),
        PeriodicJob(name="replay-parked", every_seconds=REPLAY_EVERY_SECONDS, run=replays.run, clock=clock),
        PeriodicJob(name="rebuild-teams", every_seconds=REBUILD_TEAMS_EVERY_SECONDS, run=rebuilds.run, clock=clock),
        PeriodicJob(name="recount-counters", every_seconds=RECOUNT_EVERY_SECONDS, run=recounts.run, clock=clock),
        PeriodicJob(name="recount-events", every_seconds=RECOUNT_EVERY_SECONDS, run=events.run, clock=clock),
        PeriodicJob(name="compare-generations", every_seconds=COMPARE_EVERY_SECONDS, run=comparing.run, clock=clock),
        PeriodicJob(name="audit-usage", every_seconds=AUDIT_EVERY_SECONDS, run=audit.run, clock=clock),
        PeriodicJob(name="partitions", every_seconds=PARTITIONS_EVERY_SECONDS, run=partitions.run, clock=clock),
    ]


def team_jobs(*, clock: Clock, publication: TeamUsagePublication) -> list[PeriodicJob]:
    """What replicas that do the work of teams do by the clock."""

    async def publish_due(now: datetime) -> None:
        await publication.publish_due(now)

    return [PeriodicJob(name="publish-teams", every_seconds=PUBLISH_EVERY_SECONDS, run=publish_due, clock=clock)]


class ParkedReplay:
    """Lets in reports whose organization became known in the very moment they were parked, or in great numbers."""

    def __init__(self, *, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def run(self, now: datetime) -> int:
        """Replay for every organization that is known by now; returns how many reports."""
        async with self._database.begin() as transaction:
            known = await known_among_parked(transaction, limit=REPLAY_ORGANIZATIONS_MAX)
            return sum(
                [
                    await replay_parked_reports(
                        transaction, outbox=self._outbox, organization_id=organization_id, now=now
                    )
                    for organization_id in known
                ]
            )


class UsageAudit:
    """Goes through all organizations a few at a time, adds up their cells again and repairs what does not agree."""

    def __init__(self, *, database: Database, slots: CounterSlots, recounts: CounterRecounts) -> None:
        self._database = database
        self._slots = slots
        self._recounts = recounts
        self._after = ""

    async def run(self, now: datetime) -> int:
        """Audit the next organizations; returns how many had to be repaired, which should be none, ever."""
        del now
        if await self._recounts.is_pending():
            return 0
        async with self._database.begin() as transaction:
            usage, events = PostgresUsage(transaction, self._slots), PostgresEvents(transaction)
            await events.share_meters()
            organization_ids = await usage.organizations_after(self._after, limit=AUDIT_BATCH)
            after, repaired = await audit_organizations(tx=usage, after=self._after, limit=AUDIT_BATCH)
            for organization_id in organization_ids if await events.feeds() else ():
                periods = await recompute_events(organization_id, tx=usage, events=events)
                if periods:
                    repaired.append(Recomputed(organization_id, periods, 0))
        for result in repaired:
            log.error(
                "usage.repaired",
                organization_id=result.organization_id,
                periods=[period.start.isoformat() for period in result.repaired],
                retired=result.retired,
            )
        self._after = after
        return len(repaired)


class GenerationComparing:
    """Compares what v1 and v2 say of the days that were marked, off the limit path and a few at a time.

    A mark goes with its comparison, so killed anywhere it goes on where it was.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def run(self, now: datetime) -> int:
        """Work off the marks; returns how many."""
        done = 0
        for _ in range(COMPARE_BATCHES_MAX):
            marks = await self._database.run(
                lambda transaction: compare_generations(
                    tx=PostgresGenerations(transaction), limit=COMPARE_BATCH, now=now
                )
            )
            done += marks
            if marks < COMPARE_BATCH:
                break
        return done


class SourceUpkeep:
    """Keeps the state of sources current and says aloud when one falls silent."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        heard: HeardSources,
        consumers: Sequence[Consumer[Any]],
        logs: ReportLogs,
        publication: SnapshotPublication,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._heard = heard
        self._consumers = consumers
        self._logs = logs
        self._publication = publication
        self._is_recount_due = True
        self._shown: set[str] = set()

    async def hear(self, now: datetime) -> None:
        """Write down who was heard of lately."""
        del now
        written = self._heard.to_write()
        if not written:
            return
        async with self._database.begin() as transaction:
            changed, turned_away = await hear_sources(written, tx=PostgresSources(transaction, self._outbox))
        self._heard.wrote(written)
        for source in changed:
            log.info("source.heard", source=source.source, heard_at=source.heard_at)
        if turned_away:
            log.error("sources.too_many", names=turned_away[:10], turned_away=len(turned_away))

    async def watch(self, now: datetime) -> None:
        """Find who has been silent for too long, and show everybody who is expected."""
        async with self._database.begin() as transaction:
            watched = await watch_sources(now, tx=PostgresSources(transaction, self._outbox))
        for source in watched.fallen:
            log.warning(
                "source.silent", source=source.source, heard_at=source.heard_at, silent_since=source.silent_since
            )
        for source in watched.expected:
            _show(source)
        names = {source.source for source in watched.expected}
        for name in self._shown - names:
            _hide(name)
        self._shown = names

    async def promote(self, now: datetime) -> None:
        """Let watermarks count whose reports have been entered and published, by whatever way they came."""
        async with self._database.begin() as transaction:
            is_waiting = await PostgresSources(transaction, self._outbox).is_anything_waiting()
        if not is_waiting and not self._is_recount_due:
            return
        for consumer in self._consumers:
            await consumer.settle()
        await self._put_up_fences()
        # What came over HTTP is in no log: what of it was there before these fences leaves now.
        await self._publication.publish_due()
        async with self._database.begin() as transaction:
            settled = {
                (partition.topic, partition.number): held.settled_offset
                for topic, group in self._logs.groups.items()
                for partition, held in (await positions.positions(transaction, group=group)).items()
                if partition.topic == topic
            }
        read, is_all_read = await read_parked(self._database, groups=self._logs.parking)
        self._is_recount_due |= read > 0
        if not is_all_read:
            return
        async with self._database.begin() as transaction:
            promoted = await promote_watermarks(
                settled,
                tx=PostgresSources(transaction, self._outbox),
                now=now,
                is_recount_due=self._is_recount_due,
            )
        self._is_recount_due = False
        for source in promoted.sources:
            log.info("source.complete", source=source.source, through=source.complete.through, parked=source.parked)

    async def _put_up_fences(self) -> None:
        """What waits first, then the logs' ends: so that no claim gets a fence older than itself."""
        async with self._database.begin() as transaction:
            waiting = await PostgresSources(transaction, self._outbox).unfenced()
        if not waiting:
            return
        ends = await self._logs.ends()
        async with self._database.begin() as transaction:
            await PostgresSources(transaction, self._outbox).put_up_fences(waiting, ends)


def _show(source: UsageSource) -> None:
    SOURCE_SILENT.labels(source.source).set(source.state is SourceState.SILENT)
    SOURCE_PARKED.labels(source.source).set(source.parked)
    if source.complete.through is not None:
        SOURCE_COMPLETE_THROUGH.labels(source.source).set(source.complete.through.timestamp())


def _hide(name: str) -> None:
    """A source that is expected no longer is no alert any more."""
    for gauge in (SOURCE_SILENT, SOURCE_PARKED, SOURCE_COMPLETE_THROUGH):
        gauge.remove(name)
