"""Bringing what teams used to Kafka, never an older snapshot after a newer one, and off the path to the limits.

Counting and sending are two transactions. The first gives the numbers their revision and commits them as due, so what
was ever sent under a revision cannot become something else in a crash. The second sends what is due while it holds the
rows, so a newer revision is made only after the older one is out.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from quill_contracts.topics import TEAM_USAGE
from quill_runtime.database import Database
from quill_runtime.publisher import Outgoing, Publisher

from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.team_usage import PostgresTeamUsage
from quill_usage_ingest.usecases.count_team_usage import count_team_usage
from quill_usage_ingest.wire.team_snapshots import to_wire_team_usage

BATCH: Final = 200
"""Teams added up, or sent, under one set of locks."""
BATCHES_MAX: Final = 50
"""After one batch of reports; what is left then is the job's, which goes on until nothing is due."""


class TeamUsagePublication:
    """Publishes ``usage.team-usage.v1``."""

    def __init__(self, *, database: Database, publisher: Publisher, slots: CounterSlots) -> None:
        self._database = database
        self._publisher = publisher
        self._slots = slots

    async def publish_teams_of(self, organization_ids: Collection[str], now: datetime) -> int:
        """Send what changed of these organizations' teams; returns how many were sent.

        Raises:
            PublishFailed: Kafka did not confirm; they stay due.
        """
        for _ in range(BATCHES_MAX):
            if await self._count(organization_ids, now) < BATCH:
                break
        sent = 0
        for _ in range(BATCHES_MAX):
            batch = await self._send(organization_ids)
            sent += batch
            if batch < BATCH:
                break
        return sent

    async def publish_due(self, now: datetime) -> int:
        """Send every team that is marked or due, whoever changed it; returns how many were sent.

        Raises:
            PublishFailed: Kafka did not confirm; they stay due.
        """
        sent = 0
        while True:
            swept = await self._database.run(
                lambda transaction: PostgresTeamUsage(transaction, self._slots).sweep_teams(limit=BATCH)
            )
            counted = await self._count(None, now)
            batch = await self._send(None)
            sent += batch
            if not swept and counted < BATCH and batch < BATCH:
                return sent

    async def _count(self, organization_ids: Collection[str] | None, now: datetime) -> int:
        return await self._database.run(
            lambda transaction: count_team_usage(
                organization_ids, tx=PostgresTeamUsage(transaction, self._slots), now=now, limit=BATCH
            )
        )

    async def _send(self, organization_ids: Collection[str] | None) -> int:
        async with self._database.begin() as transaction:
            tx = PostgresTeamUsage(transaction, self._slots)
            due = await tx.lock_due_team_usage(organization_ids, limit=BATCH)
            snapshots = [to_wire_team_usage(team, usage) for team, usage in due.items()]
            await self._publisher.publish_all(
                [Outgoing(TEAM_USAGE.name, snapshot.key, snapshot.to_bytes()) for snapshot in snapshots]
            )
            await tx.team_publication_done(due)
            return len(due)
