"""Runs of generation v2: pointers from Kafka become rows, and a worker copies what they point to (L4)."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from quill_contracts.intakes import DailyReport
from quill_contracts.intakes import ReportRun as WireReportRun
from quill_contracts.topics import DAILY_REPORTS, MESSAGE_BYTES_MAX, REPORT_RUNS
from quill_runtime import dead_letters
from quill_runtime.background import BackgroundTask
from quill_runtime.clock import Clock
from quill_runtime.consumption import Consumption, Received, Record, Rejected
from quill_runtime.database import Database, Transaction, is_unavailable
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import Outgoing, Publisher, PublishFailed

from quill_usage_ingest.consumers.run_copy import copy_run
from quill_usage_ingest.domain.generation import Generation, ShadowedGenerations
from quill_usage_ingest.domain.report_run import BrokenRun, ReportRun, RunPosition, check_lines
from quill_usage_ingest.domain.watermark import watermark_of_run
from quill_usage_ingest.gateways.bucket import BucketAway, S3Bucket
from quill_usage_ingest.store.report_runs import LeasedRun, PostgresRuns
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.wire.report_runs import InvalidPointer, from_wire_pointer

ATTEMPTS_MAX: Final = 3
RETRY: Final = timedelta(seconds=20)
IDLE_SECONDS: Final = 1.0
RECORD_OVERHEAD_BYTES: Final = 4_096

log = structlog.get_logger(__name__)


def report_runs(group: str) -> Consumption[ReportRun]:
    """Take in each run once; a pointer that makes no sense is parked."""

    async def apply(transaction: Transaction, received: Sequence[Received[ReportRun]], now: datetime) -> None:
        runs = PostgresRuns(transaction)
        for item in received:
            await runs.take_in(item.message, pointer=item.record, now=now)

    return Consumption(topic=REPORT_RUNS.name, group=group, decode=_decode, apply=apply)


def _decode(record: Record) -> ReportRun:
    if record.value is None:
        raise Rejected("empty_value", "the record has no value")
    try:
        return from_wire_pointer(WireReportRun.from_bytes(record.value))
    except InvalidPointer as error:
        raise Rejected("invalid_pointer", str(error), attribute=error.attribute) from error


class OpenBucket(Protocol):
    """Opens the account anew; called for every run."""

    def __call__(self) -> AbstractAsyncContextManager[S3Bucket]: ...


class RunWorker(BackgroundTask):
    """Copies due runs one after another. Replicas share the work: a run is leased to one of them.

    A run that is not as promised is tried three times, because a bucket may show an object late; then it fails, and
    its pointer is parked with the reason. Replaying the pointer tries again, where it was left off.
    """

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        publisher: Publisher,
        clock: Clock,
        open_bucket: OpenBucket,
        buckets: Collection[str],
        park_as: str,
        shadowed: ShadowedGenerations = ShadowedGenerations(),  # noqa: B008 - a frozen value: nothing is shadowed
    ) -> None:
        super().__init__("run-worker")
        self._database = database
        self._outbox = outbox
        self._publisher = publisher
        self._clock = clock
        self._open_bucket = open_bucket
        self._buckets = frozenset(buckets)
        self._park_as = park_as
        self._shadowed = shadowed

    async def _run(self) -> None:
        while True:
            try:
                if not await self.run_due():
                    await asyncio.sleep(IDLE_SECONDS)
            except Exception as error:  # noqa: BLE001 - the worker outlives every fault; the lease runs out
                log.warning("runs.worker_failed", unavailable=is_unavailable(error), error=repr(error))
                await asyncio.sleep(IDLE_SECONDS)

    async def run_due(self) -> bool:
        """Copy the next due run; False when none is due."""
        async with self._database.begin() as transaction:
            leased = await PostgresRuns(transaction).lease(self._clock.now())
        if leased is None:
            return False
        run = leased.run
        try:
            self._check_bucket(run)
            async with self._open_bucket() as bucket:
                sent = await copy_run(run, leased.position, bucket=bucket, target=_Target(self, run))
            await self._check_lines(run)
        except asyncio.CancelledError:
            # Stopped, not dead: the next worker need not wait for the lease to run out.
            await asyncio.shield(self._release(leased))
            raise
        except BrokenRun as broken:
            await self._broken(leased, broken)
        except (BucketAway, PublishFailed) as error:
            async with self._database.begin() as transaction:
                due_at = self._clock.now() + RETRY
                await PostgresRuns(transaction).postpone(
                    run.run_id, attempts=leased.attempts, reason=repr(error), due_at=due_at
                )
        else:
            async with self._database.begin() as transaction:
                await PostgresRuns(transaction).finish(run.run_id)
                claim = watermark_of_run(run)
                if claim is not None and not self._shadowed.holds(run.source, Generation.V2):
                    await PostgresSources(transaction, self._outbox).add_claims([claim], now=self._clock.now())
            log.info("runs.copied", run_id=run.run_id, lines=sent, organizations=run.organizations)
        return True

    async def _check_lines(self, run: ReportRun) -> None:
        """A set of chunks that lacks an organization is copied anew when somebody has mended it.

        Raises:
            BrokenRun: lines and promise differ.
        """
        async with self._database.begin() as transaction:
            runs = PostgresRuns(transaction)
            lines = await runs.lines_sent(run.run_id)
            if lines != run.organizations:
                await runs.begin_anew(run.run_id)
        check_lines(lines, run)

    async def _release(self, leased: LeasedRun) -> None:
        run_id, due_at = leased.run.run_id, self._clock.now()
        try:
            async with self._database.begin() as transaction:
                reason = "its worker was stopped"
                await PostgresRuns(transaction).postpone(run_id, attempts=leased.attempts, reason=reason, due_at=due_at)
        except Exception as error:  # noqa: BLE001 - then the lease runs out by itself
            log.warning("runs.not_released", run_id=run_id, error=repr(error))

    def _check_bucket(self, run: ReportRun) -> None:
        if run.bucket not in self._buckets:
            raise BrokenRun("bucket_not_allowed", f"bucket: {run.bucket} is not among USAGE_BUCKETS", "bucket")

    async def _broken(self, leased: LeasedRun, broken: BrokenRun) -> None:
        run, attempts, now = leased.run, leased.attempts + 1, self._clock.now()
        log.warning("runs.broken", run_id=run.run_id, attempts=attempts, code=broken.code, error=str(broken))
        async with self._database.begin() as transaction:
            runs = PostgresRuns(transaction)
            if attempts < ATTEMPTS_MAX:
                await runs.postpone(run.run_id, attempts=attempts, reason=str(broken), due_at=now + RETRY)
                return
            await runs.fail(run.run_id, attempts=attempts, reason=str(broken))
            await dead_letters.park(
                transaction,
                outbox=self._outbox,
                group=self._park_as,
                record=leased.pointer,
                rejected=Rejected(broken.code, str(broken), attribute=broken.attribute or "body", subject=run.run_id),
                now=now,
            )

    async def send(self, reports: Sequence[DailyReport]) -> None:
        """Bring lines to Kafka.

        Raises:
            BrokenRun: a line is too long for a record even when packed.
            PublishFailed: not confirmed; the run is tried again.
        """
        outgoing = [Outgoing(DAILY_REPORTS.name, f"{each.run_id}:{each.line}", each.to_bytes()) for each in reports]
        for report, message in zip(reports, outgoing, strict=True):
            if len(message.value or b"") > MESSAGE_BYTES_MAX - RECORD_OVERHEAD_BYTES:
                detail = f"{report.chunk_key}: line {report.line} is too long for a record even when packed"
                raise BrokenRun("line_too_long", detail)
        await self._publisher.publish_all(outgoing)

    async def reached(self, run_id: str, position: RunPosition, *, sent: int) -> None:
        async with self._database.begin() as transaction:
            await PostgresRuns(transaction).reached(run_id, position, sent=sent, now=self._clock.now())


class _Target:
    """Where the lines of one run go."""

    def __init__(self, worker: RunWorker, run: ReportRun) -> None:
        self._worker = worker
        self._run = run
        self._sent = 0

    async def send(self, reports: list[DailyReport]) -> None:
        await self._worker.send(reports)
        self._sent += len(reports)

    async def reached(self, position: RunPosition) -> None:
        sent, self._sent = self._sent, 0
        await self._worker.reached(self._run.run_id, position, sent=sent)
