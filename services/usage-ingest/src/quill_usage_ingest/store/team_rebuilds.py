"""Making team rows again where other reports count now (L3)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from quill_runtime.database import Database, Transaction
from sqlalchemy import delete, or_, select, update

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.usage_report import DAY, WindowKey
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.team_tables import team_rebuilds
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.record_teams import rebuild_team_windows
from quill_usage_ingest.usecases.replay_reports import counts
from quill_usage_ingest.wire.team_reports import teams_of_kept_claim

SETTLED_AFTER: Final = timedelta(minutes=10)
"""Teams may be entered a little before the report they came in is kept. A window is made again once more after this
time, when such reports have been kept."""
BATCH: Final = 50


@dataclass(frozen=True, slots=True)
class TeamRebuilds:
    """Works off the marks."""

    database: Database
    slots: CounterSlots

    async def run(self, now: datetime) -> int:
        """Make the marked windows again from the reports that count; returns how many windows it made."""
        done = 0
        while True:
            windows = await self.database.run(lambda transaction: self._rebuild_some(transaction, now))
            done += windows
            if windows < BATCH:
                return done

    async def _rebuild_some(self, transaction: Transaction, now: datetime) -> int:
        due = (
            await transaction.connection.execute(
                select(team_rebuilds)
                .where(or_(team_rebuilds.c.due_at.is_(None), team_rebuilds.c.due_at <= now))
                .order_by(team_rebuilds.c.organization_id, team_rebuilds.c.window_start, team_rebuilds.c.source)
                .limit(BATCH)
                .with_for_update(skip_locked=True)
            )
        ).all()
        if not due:
            return 0
        usage = PostgresUsage(transaction, self.slots)
        teams = PostgresTeams(transaction, self.slots)
        metered = MeterMap.of(await usage.metered_products()).counters
        # Held before the claims are read: teams that arrive meanwhile are entered after, and stay. All at once, in the
        # order in which those who enter reports take them.
        await teams.hold_teams({row.organization_id for row in due}, counters=())
        for row in due:
            window = WindowKey(row.organization_id, row.window_start, row.source)
            kept = await usage.kept_claims(
                window.organization_id, window.start, window.start + DAY, source=window.source
            )
            claims = [teams_of_kept_claim(claim, metered_counters=metered) for claim in kept if counts(claim)]
            await rebuild_team_windows([window], claims, tx=teams)
            of_window = (
                team_rebuilds.c.organization_id == window.organization_id,
                team_rebuilds.c.window_start == window.start,
                team_rebuilds.c.source == window.source,
            )
            if row.due_at is None:
                again = update(team_rebuilds).where(*of_window).values(due_at=now + SETTLED_AFTER)
                await transaction.connection.execute(again)
            else:
                await transaction.connection.execute(delete(team_rebuilds).where(*of_window))
        return len(due)
