"""Report runs in Postgres: taken in once, leased to one worker, finished or failed with a reason."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from quill_runtime.consumption import Record
from quill_runtime.database import Transaction
from sqlalchemy import case, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.report_run import ReportRun, RunPosition
from quill_usage_ingest.store.run_tables import report_runs

LEASE: Final = timedelta(minutes=5)
"""A worker that says nothing for so long is dead; another goes on where it was."""


@dataclass(frozen=True, slots=True)
class LeasedRun:
    """A run in one worker's hands, with the record its pointer came in."""

    run: ReportRun
    position: RunPosition
    attempts: int
    pointer: Record


class PostgresRuns:
    """Runs on one open transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    async def take_in(self, run: ReportRun, *, pointer: Record, now: datetime) -> None:
        """Keep a run once; the pointer of one that failed, sent again, makes it due again.

        It goes on where it was left off, unless the pointer tells another story now: then it begins anew.
        """
        arrived = insert(report_runs).values(
            run_id=run.run_id,
            source=run.source,
            run=msgspec.to_builtins(run),
            state="due",
            due_at=now,
            arrived_at=now,
            topic=pointer.topic,
            partition=pointer.partition,
            offset=pointer.offset,
            value=pointer.value or b"",
        )
        is_same = report_runs.c.run == arrived.excluded.run
        again = {
            "source": arrived.excluded.source,
            "run": arrived.excluded.run,
            "state": "due",
            "chunk": case((is_same, report_runs.c.chunk), else_=0),
            "line": case((is_same, report_runs.c.line), else_=0),
            "lines_sent": case((is_same, report_runs.c.lines_sent), else_=0),
            "attempts": 0,
            "due_at": now,
            "reason": None,
            "topic": pointer.topic,
            "partition": pointer.partition,
            "offset": pointer.offset,
            "value": pointer.value or b"",
        }
        await self._connection.execute(
            arrived.on_conflict_do_update(index_elements=["run_id"], set_=again, where=report_runs.c.state == "failed")
        )

    async def lease(self, now: datetime) -> LeasedRun | None:
        """The run that has been due longest, for this worker alone; None when none is."""
        row = (
            await self._connection.execute(
                select(report_runs)
                .where(report_runs.c.state == "due", report_runs.c.due_at <= now)
                .order_by(report_runs.c.due_at, report_runs.c.run_id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
        ).one_or_none()
        if row is None:
            return None
        await self._set(row.run_id, due_at=now + LEASE)
        pointer = Record(row.topic, row.partition, row.offset, None, row.value, {})
        run = msgspec.convert(row.run, ReportRun)
        return LeasedRun(run, RunPosition(row.chunk, row.line), row.attempts, pointer)

    async def reached(self, run_id: str, position: RunPosition, *, sent: int, now: datetime) -> None:
        """Remember how far it was copied, and that its worker lives."""
        await self._set(
            run_id,
            chunk=position.chunk,
            line=position.line,
            lines_sent=report_runs.c.lines_sent + sent,
            due_at=now + LEASE,
        )

    async def lines_sent(self, run_id: str) -> int:
        """Lines up to the saved position: what was sent beyond it is not counted, and is sent again."""
        found = await self._connection.execute(select(report_runs.c.lines_sent).where(report_runs.c.run_id == run_id))
        lines: int = found.scalar_one()
        return lines

    async def begin_anew(self, run_id: str) -> None:
        """Forget how far it was copied; what was sent is the same claims again (L1)."""
        await self._set(run_id, chunk=0, line=0, lines_sent=0)

    async def finish(self, run_id: str) -> None:
        await self._set(run_id, state="done", reason=None)

    async def postpone(self, run_id: str, *, attempts: int, reason: str, due_at: datetime) -> None:
        await self._set(run_id, attempts=attempts, reason=reason, due_at=due_at)

    async def fail(self, run_id: str, *, attempts: int, reason: str) -> None:
        await self._set(run_id, state="failed", attempts=attempts, reason=reason)

    async def newest(self, *, limit: int) -> list[dict[str, Any]]:
        """Runs as people look at them, newest first."""
        rows = await self._connection.execute(
            select(report_runs).order_by(report_runs.c.arrived_at.desc(), report_runs.c.run_id).limit(limit)
        )
        return [
            {
                "run_id": row.run_id,
                "source": row.source,
                "date": row.run["date"],
                "completeness": row.run["completeness"],
                "state": row.state,
                "chunks_done": row.chunk,
                "chunks": row.run["chunk_count"],
                "lines_sent": row.lines_sent,
                "organizations": row.run["organizations"],
                "attempts": row.attempts,
                "reason": row.reason,
                "arrived_at": row.arrived_at.isoformat(),
            }
            for row in rows
        ]

    async def _set(self, run_id: str, **values: Any) -> None:
        await self._connection.execute(update(report_runs).where(report_runs.c.run_id == run_id).values(**values))
