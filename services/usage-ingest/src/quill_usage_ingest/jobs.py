"""What usage-ingest does by the clock: publishing what is due, letting waiting reports in, audits, partitions."""

from datetime import datetime
from typing import Final

import structlog
from quill_runtime.clock import Clock
from quill_runtime.database import Database
from quill_runtime.jobs import PeriodicJob
from quill_runtime.outbox import Outbox

from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.event_recounts import EventRecounts
from quill_usage_ingest.store.generations import PostgresGenerations
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.meter_recounts import CounterRecounts
from quill_usage_ingest.store.parked_reports import replay_parked_reports
from quill_usage_ingest.store.partitions import Partitions
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.store.team_rebuilds import TeamRebuilds
from quill_usage_ingest.usecases.compare_generations import compare_generations
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

log = structlog.get_logger(__name__)


def jobs(
    *, database: Database, outbox: Outbox, clock: Clock, slots: CounterSlots, publication: SnapshotPublication
) -> list[PeriodicJob]:
    """All periodic work of the service."""

    async def publish_due(now: datetime) -> None:
        del now
        await publication.publish_due()

    replays = ParkedReplay(database=database, outbox=outbox, slots=slots)
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


class ParkedReplay:
    """Lets in reports whose organization became known in the very moment they were parked, or in great numbers."""

    def __init__(self, *, database: Database, outbox: Outbox, slots: CounterSlots) -> None:
        self._database = database
        self._outbox = outbox
        self._slots = slots

    async def run(self, now: datetime) -> int:
        """Replay for every organization that is known by now; returns how many reports."""
        async with self._database.begin() as transaction:
            known = await PostgresUsage(transaction, self._slots).known_among_parked(limit=REPLAY_ORGANIZATIONS_MAX)
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
