"""From a report's acceptance by Kafka until the limit it causes is visible in Redis, under a tenth of the most load.

Run with ``python -m benchmarks.ingest_latency [--quick] [--json]``; see README.md for how to read it. Two services run:
usage-ingest makes the total, quota-limiter the decision. The most is measured first, in the same run.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Final, Self

import redis.asyncio
from quill_contracts.topics import USAGE_REPORTS
from quill_contracts.usage import UsageReport
from quill_runtime.publisher import Outgoing
from quill_stack.progress import Progress
from quill_stack.stores import Stores

from benchmarks.support.figures import Ratio, machine, print_json, print_ratios, print_table
from benchmarks.support.ingest_run import IngestRun, message_of, opened_run
from benchmarks.support.population import LICENSE_ID, SOURCE, Regions, organization_id
from benchmarks.support.service import running_service
from benchmarks.support.stores import benchmark_stores
from benchmarks.support.topic_log import TopicLog, opened_log

PROBED_METER: Final = "survey_responses"
PROBED_COUNTER: Final = "survey_responses_count_in_period"
ABOVE_THE_FREE_UNITS: Final = 1_600
SORTED_SET: Final = f"@posthog/quota-limits/{PROBED_METER}"
SHARE_OF_THE_MOST: Final = 0.1
TICKS_PER_SECOND: Final = 50
LOAD_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.001
VISIBLE_SECONDS: Final = 30.0
GOAL_MS, FLOOR_MS = 50.0, 150.0
DAY: Final = timedelta(days=1)
DAYS_BACK: Final = 60
"""Recent, as real reports are: usage of months ago takes another way (`usage.late-usage.v1`)."""


class NeverVisible(RuntimeError):
    """A limit did not show up in half a minute."""


class NotEnoughReports(RuntimeError):
    """The load ended before the measurement."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Customers that keep reporting, and customers that pass their limit one after another meanwhile."""

    busy: int
    probes: int

    @classmethod
    def of(cls, *, quick: bool) -> Self:
        return cls(1_000, 40) if quick else cls(2_000, 300)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds, and the load they were seen under in reports per second."""

    most: float
    load: float
    samples_ms: Sequence[float]

    def percentile(self, percent: int) -> float:
        return quantiles(self.samples_ms, n=100, method="inclusive")[percent - 1]

    @property
    def figures(self) -> Mapping[str, float]:
        """For machines."""
        return {
            "most": self.most,
            "load": self.load,
            "p50_ms": self.percentile(50),
            "p99_ms": self.percentile(99),
            "samples": len(self.samples_ms),
        }


async def _measure(plan: Plan, stores: Stores, says: Progress) -> Latencies:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    # The busy ones report of one day after another; the probes come behind them, with today's.
    regions = Regions(organizations=plan.busy + 1 + plan.probes, first_day=today - DAYS_BACK * DAY)
    with (
        running_service("usage-ingest", stores, says) as ingest,
        running_service("quota-limiter", stores, says),
    ):
        async with opened_run(stores, ingest, regions, says) as run:
            await run.introduce_customers()
            busy = Regions(organizations=plan.busy, first_day=today - DAYS_BACK * DAY)
            most = max([await _rate(run, busy) for _ in range(3)])
            load = most * SHARE_OF_THE_MOST
            with says.step(f"Making reports for {LOAD_SECONDS_MAX:.0f} s"):
                messages = _made_ready(busy, load * LOAD_SECONDS_MAX)
            async with (
                opened_log(USAGE_REPORTS.name, USAGE_REPORTS.partitions, stores.kafka_bootstrap_servers) as log,
                _under_load(log, messages, load),
                redis.asyncio.Redis.from_url(stores.redis_url, socket_timeout=5) as cache,
            ):
                # The first one waits for what quota-limiter has not worked off yet, and is not counted.
                await _probe(log, cache, plan.busy, today)
                with says.step(f"Measuring {plan.probes} limits under {load:,.0f} reports/s"):
                    first = plan.busy + 1
                    samples = [await _probe(log, cache, number, today) for number in range(first, first + plan.probes)]
    return Latencies(most, load, samples)


async def _rate(run: IngestRun, regions: Regions) -> float:
    messages = [message_of(report) for report in regions.next_day()]
    drain, _ = await run.drain(messages, read_first=None)
    return len(messages) / drain.seconds


def _made_ready(regions: Regions, reports: float) -> list[Outgoing]:
    """At least so many reports, made before anything is measured: this process looks for the limit meanwhile."""
    ready: list[Outgoing] = []
    while len(ready) < reports:
        ready += [message_of(report) for report in regions.next_day()]
    return ready


@asynccontextmanager
async def _under_load(log: TopicLog, messages: Sequence[Outgoing], rate: float) -> AsyncIterator[None]:
    """Reports at a steady rate, in fifty small bursts a second.

    Raises:
        NotEnoughReports: they ran out before the block ended.
    """

    async def send() -> None:
        due, sent, position = time.monotonic(), 0.0, 0
        while True:
            sent += rate / TICKS_PER_SECOND
            burst, sent = messages[position : position + int(sent)], sent - int(sent)
            position += len(burst)
            if position == len(messages):
                raise NotEnoughReports(f"{len(messages):,} reports did not last; measure again")
            await log.publish(burst)
            due += 1 / TICKS_PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    task = asyncio.create_task(send())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _probe(log: TopicLog, cache: redis.asyncio.Redis, number: int, today: datetime) -> float:
    name = organization_id(number)
    report = UsageReport(
        report_id=f"probe-{name}",
        source=SOURCE,
        organization_id=name,
        window_start=today,
        window_end=today + DAY,
        completeness="partial",
        as_of=datetime.now(UTC),
        counters={PROBED_COUNTER: ABOVE_THE_FREE_UNITS},
        license_id=LICENSE_ID,
    )
    await log.publish([message_of(report)])
    accepted = time.perf_counter()
    while await cache.zscore(SORTED_SET, f"phc_bench{number:08d}") is None:
        if time.perf_counter() - accepted > VISIBLE_SECONDS:
            raise NeverVisible(f"{name}: not in {SORTED_SET} {VISIBLE_SECONDS:.0f} s after its report")
        await asyncio.sleep(POLL_SECONDS)
    return (time.perf_counter() - accepted) * 1_000


def _ratios(seen: Latencies) -> list[Ratio]:
    p99 = seen.percentile(99)
    return [
        Ratio(
            "14",
            "report -> limit visible, p99 in ms",
            p99,
            min(seen.samples_ms),
            max(seen.samples_ms),
            GOAL_MS,
            FLOOR_MS,
            "lower",
        )
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer customers and limits")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    arguments = parser.parse_args()
    says, plan = Progress(), Plan.of(quick=arguments.quick)
    with benchmark_stores("ingest-latency", says) as stores:
        seen = asyncio.run(_measure(plan, stores, says))
    if arguments.json:
        print_json({"benchmark": "ingest_latency", **seen.figures}, _ratios(seen))
        return
    print_table(
        "Report accepted by Kafka until its limit is visible in Redis",
        ["", "reports/s", "p50 ms", "p90 ms", "p99 ms"],
        [
            ["the most there can be", f"{seen.most:,.0f}", "", "", ""],
            ["under a tenth of it", f"{seen.load:,.0f}", *(f"{seen.percentile(p):,.1f}" for p in (50, 90, 99))],
        ],
        caption=f"{len(seen.samples_ms)} limits, one after another; {machine()}",
    )
    print_ratios(_ratios(seen), caption="goal and floor in milliseconds: performance.md section 7")


if __name__ == "__main__":
    main()
