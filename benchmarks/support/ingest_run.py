"""The service, its topics and its database as the ingest benchmarks see them: laying reports out, waiting, checking."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiokafka import ConsumerRecord
from quill_contracts.topics import PERIOD_USAGE, USAGE_REPORTS
from quill_contracts.usage import UsageReport
from quill_runtime.publisher import Outgoing
from quill_stack.progress import Progress
from quill_stack.stores import Stores
from quill_usage_ingest.wire.usage_reports import from_wire_usage_report

from benchmarks.support.bare_writes import connected
from benchmarks.support.cpu import tree_cpu_seconds
from benchmarks.support.population import Regions, catalog_messages, customer_message, month_of
from benchmarks.support.service import RunningService
from benchmarks.support.topic_log import Offsets, TopicLog, opened_log

POLL_SECONDS: Final = 0.01
SETTLE_SECONDS: Final = 180.0


class NotTheTruth(RuntimeError):
    """The service was quick and wrong; its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Drain:
    """What it took the service to work off a topic."""

    seconds: float
    service_cpu: float
    postgres_cpu: float
    wal_bytes: int


class _Snapshot(msgspec.Struct):
    """What tells one published snapshot from an older one."""

    organization_id: str
    revision: int


_decode_snapshot: Final = msgspec.json.Decoder(_Snapshot).decode


class IngestRun:
    """A started service with its topics and database; made by `opened_run`."""

    def __init__(
        self,
        stores: Stores,
        service: RunningService,
        regions: Regions,
        *,
        log: TopicLog,
        snapshots: TopicLog,
        database: Any,
        says: Progress,
    ) -> None:
        self._stores = stores
        self._service = service
        self._regions = regions
        self._log = log
        self._snapshots = snapshots
        self._says = says
        self._revisions: dict[str, int] = {}
        self.database = database

    async def drain(self, messages: Sequence[Outgoing], *, read_first: bool | None) -> tuple[Drain, float]:
        """Lay the records out while the service is held, let go, and wait until it has settled them all.

        ``read_first``: the bare read comes before the service's turn, after it, or (None) not at all.

        Returns:
            What the service took, and the seconds of the bare read.
        """
        start, published = await self._log.ends(), await self._snapshots.ends()
        read = 0.0
        with self._service.held():
            await self._log.publish(messages)
            end = await self._log.ends()
            if read_first:
                read = await self._bare_read(start, end)
            service, postgres, wal = self._service.cpu_seconds, self._postgres_cpu(), await self.wal_bytes()
            began = time.time()
        wanted = sum(end.values())

        async def is_applied() -> bool:
            return await self._applied() >= wanted

        await until(is_applied)
        ended = await self._last_published(published)
        drain = Drain(
            seconds=ended - began,
            service_cpu=self._service.cpu_seconds - service,
            postgres_cpu=self._postgres_cpu() - postgres,
            wal_bytes=await self.wal_bytes() - wal,
        )
        if read_first is False:
            read = await self._bare_read(start, end)
        return drain, read

    async def _bare_read(self, start: Offsets, end: Offsets) -> float:
        began = time.perf_counter()
        await self._log.read(start, end, lambda record: from_wire_usage_report(record.value))
        return time.perf_counter() - began

    async def _last_published(self, start: Offsets) -> float:
        """The instant (seconds since 1970) at which the last current snapshot was sent.

        Every organization's newest snapshot must carry the revision that Postgres holds; its sending time stands in
        the record, so that looking for it afterwards costs the measurement nothing.
        """
        rows = await self.database.fetch(
            "select organization_id, usage_revision from organizations where organization_id not like 'history-%'"
        )
        missing = {row["organization_id"]: row["usage_revision"] for row in rows}
        missing = {key: revision for key, revision in missing.items() if revision > self._revisions.get(key, 0)}
        self._revisions |= missing
        newest = 0

        def take(record: ConsumerRecord) -> None:
            nonlocal newest
            snapshot = _decode_snapshot(record.value)
            if missing.get(snapshot.organization_id) == snapshot.revision:
                del missing[snapshot.organization_id]
                newest = max(newest, record.timestamp)

        async with asyncio.timeout(SETTLE_SECONDS):
            while missing:
                end = await self._snapshots.ends()
                await self._snapshots.read(start, end, take)
                start = end
        return newest / 1_000

    async def _applied(self) -> int:
        applied: int = await self.database.fetchval(
            "select coalesce(sum(applied_offset), 0)::bigint from consumer_positions where topic = $1",
            USAGE_REPORTS.name,
        )
        return applied

    async def wal_bytes(self) -> int:
        """Where Postgres' log ends."""
        end: int = await self.database.fetchval("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        return end

    def _postgres_cpu(self) -> float:
        child = self._stores.children.get("Postgres")
        return 0.0 if child is None else tree_cpu_seconds(child.pid)

    async def introduce_customers(self) -> None:
        """Tell the service of the catalog and of every customer."""
        regions = self._regions
        period = month_of(datetime.now(UTC))
        customers = [customer_message(n, regions.catalog, period=period) for n in range(regions.organizations)]
        with self._says.step(f"Introducing {regions.organizations:,} customers"):
            await self._log.publish([*catalog_messages(regions.catalog), *customers])
            await until(self._knows_customers)

    async def _knows_customers(self) -> bool:
        known: bool = await self.database.fetchval(
            "select (select count(*) from organizations) >= $1 and (select count(*) from metered_products) >= $2",
            self._regions.organizations,
            len(self._regions.catalog.products),
        )
        return known

    async def check_truth(self) -> None:
        """Compare with the sums kept beside: a quick wrong answer is not a result.

        Raises:
            NotTheTruth: the totals in Postgres are not those that were reported.
        """
        rows = await self.database.fetch(
            "select s.name, sum(u.complete[s.slot + 1])::bigint as total"
            " from period_usage as u cross join counter_slots as s"
            " where u.organization_id not like 'history-%' group by s.name"
        )
        stored = {row["name"]: row["total"] for row in rows}
        parked = await self.database.fetchval("select count(*) from dead_letters")
        windows = await self.database.fetchval(
            "select count(*) from usage_windows where organization_id not like 'history-%'"
        )
        if stored != self._regions.totals or parked or windows != self._regions.windows:
            wrong = [name for name, total in self._regions.totals.items() if stored.get(name) != total]
            raise NotTheTruth(
                f"{len(wrong)} of {len(self._regions.totals)} totals are wrong, {parked} reports parked,"
                f" {windows:,} windows instead of {self._regions.windows:,}"
            )


@asynccontextmanager
async def opened_run(
    stores: Stores, service: RunningService, regions: Regions, says: Progress
) -> AsyncIterator[IngestRun]:
    """Connect to everything, and let go in the end."""
    kafka = stores.kafka_bootstrap_servers
    async with AsyncExitStack() as cleanup:
        log = await cleanup.enter_async_context(opened_log(USAGE_REPORTS.name, USAGE_REPORTS.partitions, kafka))
        snapshots = await cleanup.enter_async_context(opened_log(PERIOD_USAGE.name, PERIOD_USAGE.partitions, kafka))
        database = await connected(service.database_url)
        cleanup.push_async_callback(database.close)
        yield IngestRun(stores, service, regions, log=log, snapshots=snapshots, database=database, says=says)


async def until(is_so: Callable[[], Awaitable[bool]], *, seconds: float = SETTLE_SECONDS) -> None:
    """Ask every 10 ms.

    Raises:
        TimeoutError: it was not so in time.
    """
    async with asyncio.timeout(seconds):
        while not await is_so():  # noqa: ASYNC110 - another process answers; there is no event to wait for
            await asyncio.sleep(POLL_SECONDS)


def message_of(report: UsageReport) -> Outgoing:
    """The report as a record."""
    value = report.model_dump_json(exclude_none=True).encode()
    return Outgoing(USAGE_REPORTS.name, report.organization_id, value)
