"""Usage ingest from Kafka to durable totals and published snapshots, against ceilings measured in the same run.

Run with ``python -m benchmarks.ingest [--quick] [--json]``; see README.md for how to read it.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

import orjson
from quill_contracts.usage import UsageReport
from quill_runtime.publisher import Outgoing
from quill_stack.progress import Progress
from quill_stack.stores import Stores
from quill_usage_ingest.wire.usage_reports import decoded_report, from_wire_usage_report

from benchmarks.support.bare_writes import BareSeconds, BareWriter, connected
from benchmarks.support.figures import (
    Ratio,
    machine,
    median_of,
    print_json,
    print_ratios,
    print_table,
    ratio_of,
)
from benchmarks.support.ingest_run import Drain, IngestRun, message_of, opened_run
from benchmarks.support.population import COUNTERS_OF_A_REAL_REPORT, COUNTERS_PER_REPORT, Regions
from benchmarks.support.service import running_service
from benchmarks.support.stores import benchmark_stores

SIZES: Final = (COUNTERS_PER_REPORT, COUNTERS_OF_A_REAL_REPORT)
BATCH_REPORTS: Final = 1_000
"""What a lane of the service takes at most at a time; the bare writes commit as often."""
FRESH_OF_TEN: Final = 1
"""Reports of ten in the re-send pass that say something new."""
WARM_UP_ROUNDS: Final = 1
DAYS_BACK: Final = 25
"""Recent, as real reports are: usage of months ago takes another way (`usage.late-usage.v1`)."""

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    counters: int
    organizations: int
    days_per_round: int
    rounds: int

    @classmethod
    def of(cls, *, counters: int, quick: bool) -> Self:
        """A minute or two of measuring, or a few seconds."""
        return (
            cls(counters, 1_000, 1, 5)
            if quick
            else cls(counters, 2_000, 2 if counters == COUNTERS_OF_A_REAL_REPORT else 5, 7)
        )

    @property
    def reports(self) -> int:
        return self.organizations * self.days_per_round


class IngestBenchmark:
    """Rounds on a started service, the bases written to a database of their own beside."""

    def __init__(self, plan: Plan, run: IngestRun, regions: Regions, bare: BareWriter, says: Progress) -> None:
        self._plan = plan
        self._run = run
        self._regions = regions
        self._bare = bare
        self._says = says
        self.report_bytes = 0

    async def measure(self) -> list[Figures]:
        """All rounds but the warming one.

        Raises:
            NotTheTruth: the totals in Postgres are not those that were reported.
        """
        await self._run.introduce_customers()
        rounds = []
        for number in range(self._plan.rounds + WARM_UP_ROUNDS):
            rounds.append(await self._round(number))
            self._tell(number, rounds[-1])
        await self._run.check_truth()
        return rounds[WARM_UP_ROUNDS:]

    async def _round(self, number: int) -> Figures:
        """Subject and bases take turns in going first."""
        reports = [report for _ in range(self._plan.days_per_round) for report in self._regions.next_day()]
        messages = [message_of(report) for report in reports]
        self.report_bytes = len(messages[0].value or b"")
        decoded = [from_wire_usage_report(message.value or b"") for message in messages]
        if number % 2:
            written = await self._bare.write(decoded)
            fresh, read = await self._run.drain(messages, read_first=True)
        else:
            fresh, read = await self._run.drain(messages, read_first=False)
            written = await self._bare.write(decoded)
        resent, _ = await self._run.drain(self._resend(reports, messages), read_first=None)
        sizes = {"reports": len(messages), "counters": self._plan.counters}
        return _figures(fresh, resent, Seconds(read, *_decoding(messages)), written, **sizes)

    def _resend(self, reports: Sequence[UsageReport], messages: Sequence[Outgoing]) -> list[Outgoing]:
        """The same records again; every tenth is a newer claim instead."""
        return [
            message_of(self._regions.grown(report)) if position % 10 < FRESH_OF_TEN else message
            for position, (report, message) in enumerate(zip(reports, messages, strict=True))
        ]

    def _tell(self, number: int, figures: Mapping[str, float]) -> None:
        name = "warm-up" if number < WARM_UP_ROUNDS else f"round {number - WARM_UP_ROUNDS + 1} of {self._plan.rounds}"
        self._says.say(
            f"{name}: {figures['fresh']:,.0f} reports/s changed, {figures['resent']:,.0f} re-sent;"
            f" bare merge {figures['merged']:,.0f}"
        )


class Seconds(NamedTuple):
    """What reading and decoding the same reports took without the service."""

    read: float
    claims: float
    validated: float
    parsed: float


def _decoding(messages: Sequence[Outgoing]) -> tuple[float, float, float]:
    """Seconds to make claims of all of them, to decode and validate them only, and to parse them with orjson."""
    values = [message.value or b"" for message in messages]

    def seconds(work: Callable[[bytes], object]) -> float:
        began = time.perf_counter()
        for value in values:
            work(value)
        return time.perf_counter() - began

    return seconds(from_wire_usage_report), seconds(decoded_report), seconds(orjson.loads)


def _figures(
    fresh: Drain, resent: Drain, read: Seconds, written: BareSeconds, *, reports: int, counters: int
) -> Figures:
    """Reports per second and microseconds of processor time per report."""
    return {
        "fresh": reports / fresh.seconds,
        "resent": reports / resent.seconds,
        "read": reports / read.read,
        "claims": reports / read.claims,
        "validated": reports / read.validated,
        "parsed": reports / read.parsed,
        "copied": reports / written.copied,
        "merged": reports / written.merged,
        "counter_rows": reports / written.counter_rows,
        "merged_totals": reports / written.with_totals,
        "fresh_wal": fresh.wal_bytes / reports / counters,
        "counter_rows_wal": written.counter_rows_wal / reports / counters,
        "fresh_service_us": fresh.service_cpu / reports * 1e6,
        "fresh_postgres_us": fresh.postgres_cpu / reports * 1e6,
        "resent_service_us": resent.service_cpu / reports * 1e6,
        "resent_postgres_us": resent.postgres_cpu / reports * 1e6,
    }


def _ratios(rounds: Sequence[Figures]) -> list[Ratio]:
    def over(subject: str, base: str, text: str, bounds: Mapping[str, Any] = MappingProxyType({})) -> Ratio:
        return ratio_of(rounds, lambda r: r[subject] / r[base], text=text, **bounds)

    wal = {"row": "13", "goal": 0.3, "floor": 0.5, "better": "lower"}
    return [
        over("validated", "parsed", "decode and validate / orjson.loads", {"row": "1", "goal": 0.8, "floor": 0.6}),
        over("merged_totals", "merged", "merge with totals / without", {"row": "12", "goal": 0.55, "floor": 0.45}),
        over("fresh_wal", "counter_rows_wal", "log bytes per counter / a row per counter", wal),
        over("fresh", "merged", "every report changed / bare packed merge", {"row": "9", "goal": 0.25, "floor": 0.18}),
        over("fresh", "merged", "the same, being on two connections", {"row": "10", "goal": 0.35, "floor": 0.25}),
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
    ("decode, validate, hash: a claim", "claims"),
    ("decode and validate alone", "validated"),
    ("base: orjson.loads of the same bytes", "parsed"),
    ("base: merge packed rows", "merged"),
    ("merge packed rows and totals, SQL alone", "merged_totals"),
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
        return [text, f"{rate:,.0f}", f"{rate * plan.counters:,.0f}", *cpu]

    print_table(
        "Usage ingest: Kafka to durable totals and published snapshots",
        ["", "reports/s", "counters/s", "service CPU us/report", "Postgres CPU us/report"],
        [row(text, name) for text, name in _SHOWN],
        caption=(
            f"median of {len(rounds)} rounds of {plan.reports:,} reports of {report_bytes:,} bytes,"
            f" {plan.counters} counters, {plan.organizations:,} organizations; fsync {fsync}; {machine()}"
        ),
    )
    print_ratios(_ratios(rounds), caption="row, goal and floor: performance.md section 7, information only")


async def _measure(plan: Plan, stores: Stores, says: Progress) -> tuple[IngestBenchmark, list[Figures], str]:
    first_day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(DAYS_BACK)
    regions = Regions(organizations=plan.organizations, first_day=first_day, counters=plan.counters)
    with running_service("usage-ingest", stores, says) as service:
        bare: Any = await connected(stores.create_database("bare_writes"))
        try:
            writer = BareWriter(bare, batch_reports=BATCH_REPORTS)
            await writer.prepare()
            async with opened_run(stores, service, regions, says) as run:
                benchmark = IngestBenchmark(plan, run, regions, writer, says)
                rounds = await benchmark.measure()
            fsync: str = await bare.fetchval("show fsync")
        finally:
            await bare.close()
    return benchmark, rounds, fsync


def main() -> None:
    """Measure and print, small reports first, then real ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds, about a minute")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    parser.add_argument("--counters", type=int, choices=SIZES, help="only reports of this size")
    arguments = parser.parse_args()
    says = Progress()
    for counters in SIZES if arguments.counters is None else (arguments.counters,):
        plan = Plan.of(counters=counters, quick=arguments.quick)
        with benchmark_stores("ingest", says) as stores:
            benchmark, rounds, fsync = asyncio.run(_measure(plan, stores, says))
        if arguments.json:
            about = {"benchmark": "ingest", "counters": counters, "rounds": rounds, "fsync": fsync}
            print_json(about, _ratios(rounds))
        else:
            _show(rounds, plan=plan, report_bytes=benchmark.report_bytes, fsync=fsync)


if __name__ == "__main__":
    main()
