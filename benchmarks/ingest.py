"""Usage ingest from Kafka to durable totals and published snapshots, against ceilings measured in the same run.

Run with ``python -m benchmarks.ingest [--quick] [--json]``; see README.md for how to read it.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Self

import msgspec
from aiokafka import ConsumerRecord
from quill_contracts.topics import PERIOD_USAGE, USAGE_REPORTS
from quill_contracts.usage import UsageReport
from quill_runtime.publisher import Outgoing
from quill_stack.progress import Progress
from quill_stack.stores import Stores
from quill_usage_ingest.wire.usage_reports import from_wire_usage_report

from benchmarks.support.bare_writes import BareSeconds, BareWriter, connected
from benchmarks.support.cpu import tree_cpu_seconds
from benchmarks.support.figures import (
    Ratio,
    machine,
    median_of,
    print_json,
    print_ratios,
    print_table,
    ratio_of,
)
from benchmarks.support.population import (
    COUNTERS_PER_REPORT,
    Regions,
    catalog_messages,
    customer_message,
    month_of,
)
from benchmarks.support.service import RunningService, running_service
from benchmarks.support.stores import benchmark_stores
from benchmarks.support.topic_log import Offsets, opened_log

BATCH_REPORTS: Final = 500
"""What the service takes at most at a time; the bare writes commit as often."""
FRESH_OF_TEN: Final = 1
"""Reports of ten in the re-send pass that say something new."""
WARM_UP_ROUNDS: Final = 1
POLL_SECONDS: Final = 0.01
SETTLE_SECONDS: Final = 90.0
DAYS_BACK: Final = 400

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    organizations: int
    days_per_round: int
    rounds: int

    @classmethod
    def of(cls, *, quick: bool) -> Self:
        """A minute of measuring, or a few seconds."""
        return cls(organizations=1_000, days_per_round=1, rounds=5) if quick else cls(2_000, 2, 7)

    @property
    def reports(self) -> int:
        return self.organizations * self.days_per_round


class NotTheTruth(RuntimeError):
    """The service was quick and wrong; its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Drain:
    """What it took the service to work off a topic."""

    seconds: float
    service_cpu: float
    postgres_cpu: float


class _Snapshot(msgspec.Struct):
    """What tells one published snapshot from an older one."""

    organization_id: str
    revision: int


_decode_snapshot: Final = msgspec.json.Decoder(_Snapshot).decode


class IngestBenchmark:
    """One run on started stores and a started service."""

    def __init__(self, plan: Plan, stores: Stores, service: RunningService, says: Progress) -> None:
        self._plan = plan
        self._stores = stores
        self._service = service
        self._says = says
        self._regions = Regions(
            organizations=plan.organizations,
            first_day=datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(DAYS_BACK),
        )
        self.report_bytes = 0
        self._revisions: dict[str, int] = {}

    async def run(self) -> list[Figures]:
        """All rounds but the warming one.

        Raises:
            NotTheTruth: the totals in Postgres are not those that were reported.
        """
        kafka = self._stores.kafka_bootstrap_servers
        async with AsyncExitStack() as cleanup:
            self._log = await cleanup.enter_async_context(
                opened_log(USAGE_REPORTS.name, USAGE_REPORTS.partitions, kafka)
            )
            self._snapshots = await cleanup.enter_async_context(
                opened_log(PERIOD_USAGE.name, PERIOD_USAGE.partitions, kafka)
            )
            self._database = await connected(self._service.database_url)
            cleanup.push_async_callback(self._database.close)
            bare = await connected(self._stores.create_database("bare_writes"))
            cleanup.push_async_callback(bare.close)
            self._bare = BareWriter(bare, batch_reports=BATCH_REPORTS)
            await self._bare.prepare()
            await self._introduce_customers()
            rounds = []
            for number in range(self._plan.rounds + WARM_UP_ROUNDS):
                rounds.append(await self._round(number))
                self._tell(number, rounds[-1])
            await self._check_truth()
        return rounds[WARM_UP_ROUNDS:]

    # -- a round ---------------------------------------------------------------------------------------------------

    async def _round(self, number: int) -> Figures:
        """Subject and bases take turns in going first."""
        reports = [report for _ in range(self._plan.days_per_round) for report in self._regions.next_day()]
        messages = [_message(report) for report in reports]
        self.report_bytes = len(messages[0].value or b"")
        decoded = [from_wire_usage_report(message.value or b"") for message in messages]
        if number % 2:
            written = await self._bare.write(decoded)
            fresh, read = await self._drain(messages, read_first=True)
        else:
            fresh, read = await self._drain(messages, read_first=False)
            written = await self._bare.write(decoded)
        resent, _ = await self._drain(self._resend(reports, messages), read_first=None)
        return _figures(fresh, resent, read, written, reports=len(messages))

    def _resend(self, reports: Sequence[UsageReport], messages: Sequence[Outgoing]) -> list[Outgoing]:
        """The same records again; every tenth is a newer claim instead."""
        return [
            _message(self._regions.grown(report)) if position % 10 < FRESH_OF_TEN else message
            for position, (report, message) in enumerate(zip(reports, messages, strict=True))
        ]

    async def _drain(self, messages: Sequence[Outgoing], *, read_first: bool | None) -> tuple[Drain, float]:
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
            service, postgres, began = self._service.cpu_seconds, self._postgres_cpu(), time.time()
        wanted = sum(end.values())

        async def is_applied() -> bool:
            return await self._applied() >= wanted

        await _until(is_applied)
        ended = await self._last_published(published)
        drain = Drain(ended - began, self._service.cpu_seconds - service, self._postgres_cpu() - postgres)
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
        rows = await self._database.fetch("select organization_id, usage_revision from organizations")
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
        applied: int = await self._database.fetchval(
            "select coalesce(sum(applied_offset), 0)::bigint from consumer_positions where topic = $1",
            USAGE_REPORTS.name,
        )
        return applied

    def _postgres_cpu(self) -> float:
        child = self._stores.children.get("Postgres")
        return 0.0 if child is None else tree_cpu_seconds(child.pid)

    # -- before and after ------------------------------------------------------------------------------------------

    async def _introduce_customers(self) -> None:
        regions = self._regions
        period = month_of(datetime.now(UTC))
        customers = [customer_message(n, regions.catalog, period=period) for n in range(self._plan.organizations)]
        with self._says.step(f"Introducing {self._plan.organizations:,} customers"):
            await self._log.publish([*catalog_messages(regions.catalog), *customers])
            await _until(self._knows_customers)

    async def _knows_customers(self) -> bool:
        known: bool = await self._database.fetchval(
            "select (select count(*) from organizations) >= $1 and (select count(*) from metered_products) >= $2",
            self._plan.organizations,
            len(self._regions.catalog.products),
        )
        return known

    async def _check_truth(self) -> None:
        """Compare with the sums kept beside: a quick wrong answer is not a result."""
        rows = await self._database.fetch(
            "select s.name, sum(u.complete[s.slot + 1])::bigint as total"
            " from period_usage as u cross join counter_slots as s group by s.name"
        )
        stored = {row["name"]: row["total"] for row in rows}
        parked = await self._database.fetchval("select count(*) from dead_letters")
        windows = await self._database.fetchval("select count(*) from usage_windows")
        if stored != self._regions.totals or parked or windows != self._regions.windows:
            wrong = [name for name, total in self._regions.totals.items() if stored.get(name) != total]
            raise NotTheTruth(
                f"{len(wrong)} of {len(self._regions.totals)} totals are wrong, {parked} reports parked,"
                f" {windows:,} windows instead of {self._regions.windows:,}"
            )

    def _tell(self, number: int, figures: Mapping[str, float]) -> None:
        name = "warm-up" if number < WARM_UP_ROUNDS else f"round {number - WARM_UP_ROUNDS + 1} of {self._plan.rounds}"
        self._says.say(
            f"{name}: {figures['fresh']:,.0f} reports/s changed, {figures['resent']:,.0f} re-sent;"
            f" bare merge {figures['merged']:,.0f}"
        )


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask every 10 ms.

    Raises:
        TimeoutError: it was not so within 90 s.
    """
    async with asyncio.timeout(SETTLE_SECONDS):
        while not await is_so():  # noqa: ASYNC110 - another process answers; there is no event to wait for
            await asyncio.sleep(POLL_SECONDS)


def _message(report: UsageReport) -> Outgoing:
    value = report.model_dump_json(exclude_none=True).encode()
    return Outgoing(USAGE_REPORTS.name, report.organization_id, value)


def _figures(fresh: Drain, resent: Drain, read: float, written: BareSeconds, *, reports: int) -> Figures:
    """Reports per second and microseconds of processor time per report."""
    return {
        "fresh": reports / fresh.seconds,
        "resent": reports / resent.seconds,
        "read": reports / read,
        "copied": reports / written.copied,
        "merged": reports / written.merged,
        "counter_rows": reports / written.counter_rows,
        "fresh_service_us": fresh.service_cpu / reports * 1e6,
        "fresh_postgres_us": fresh.postgres_cpu / reports * 1e6,
        "resent_service_us": resent.service_cpu / reports * 1e6,
        "resent_postgres_us": resent.postgres_cpu / reports * 1e6,
    }


def _ratios(rounds: Sequence[Figures]) -> list[Ratio]:
    def over(subject: str, base: str, text: str, bounds: Mapping[str, Any] = MappingProxyType({})) -> Ratio:
        return ratio_of(rounds, lambda r: r[subject] / r[base], text=text, **bounds)

    return [
        over("fresh", "merged", "every report changed / bare packed merge", {"row": "9", "goal": 0.25, "floor": 0.18}),
        over("fresh", "counter_rows", "every report changed / a row per counter", {"row": "11", "goal": 4, "floor": 3}),
        over("fresh", "copied", "every report changed / bare COPY of packed rows"),
        over("fresh", "read", "every report changed / bare read and decode"),
        over("resent", "merged", "90 % re-sent / bare packed merge"),
        over("resent", "read", "90 % re-sent / bare read and decode"),
        over("resent", "fresh", "90 % re-sent / every report changed"),
    ]


_SHOWN: Final = (
    ("usage-ingest, every report changed", "fresh"),
    ("usage-ingest, 90 % re-sent unchanged", "resent"),
    ("base: read and decode the topic", "read"),
    ("base: merge packed rows", "merged"),
    ("base: COPY packed rows", "copied"),
    ("base: upsert a row per counter", "counter_rows"),
)


def _show(rounds: Sequence[Figures], *, plan: Plan, report_bytes: int, fsync: str) -> None:
    def row(text: str, name: str) -> list[str]:
        rate = median_of(rounds, name)
        cpu = [
            f"{median_of(rounds, key):,.0f}" if key in rounds[0] else ""
            for key in (f"{name}_service_us", f"{name}_postgres_us")
        ]
        return [text, f"{rate:,.0f}", f"{rate * COUNTERS_PER_REPORT:,.0f}", *cpu]

    print_table(
        "Usage ingest: Kafka to durable totals and published snapshots",
        ["", "reports/s", "counters/s", "service CPU us/report", "Postgres CPU us/report"],
        [row(text, name) for text, name in _SHOWN],
        caption=(
            f"median of {len(rounds)} rounds of {plan.reports:,} reports of {report_bytes:,} bytes,"
            f" {plan.organizations:,} organizations; fsync {fsync}; {machine()}"
        ),
    )
    print_ratios(_ratios(rounds), caption="row, goal and floor: performance.md section 7, information only")


async def _measure(plan: Plan, stores: Stores, says: Progress) -> tuple[IngestBenchmark, list[Figures], str]:
    with running_service("usage-ingest", stores, says) as service:
        benchmark = IngestBenchmark(plan, stores, service, says)
        rounds = await benchmark.run()
        connection: Any = await connected(service.database_url)
        try:
            fsync: str = await connection.fetchval("show fsync")
        finally:
            await connection.close()
    return benchmark, rounds, fsync


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds, under a minute")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    arguments = parser.parse_args()
    says = Progress()
    plan = Plan.of(quick=arguments.quick)
    with benchmark_stores("ingest", says) as stores:
        benchmark, rounds, fsync = asyncio.run(_measure(plan, stores, says))
    if arguments.json:
        print_json({"benchmark": "ingest", "rounds": rounds, "fsync": fsync}, _ratios(rounds))
    else:
        _show(rounds, plan=plan, report_bytes=benchmark.report_bytes, fsync=fsync)


if __name__ == "__main__":
    main()
