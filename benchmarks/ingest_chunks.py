"""A gibibyte of chunk files (generation v2), from the bucket to durable totals, and the memory that takes.

Run with ``python -m benchmarks.ingest_chunks [--quick] [--json]``; see README.md for how to read it. Queue and bucket
are the local stack's emulator, all else is real. Team rows belong to another replica (``USAGE_WORK=totals``).
"""

import argparse
import asyncio
import gzip
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import orjson
from aiobotocore.session import get_session
from quill_stack import queues
from quill_stack.ports import free_port
from quill_stack.processes import Child, leashed
from quill_stack.progress import Progress
from quill_stack.stores import Stores

from benchmarks.support.figures import machine, print_json, print_table
from benchmarks.support.history import History
from benchmarks.support.ingest_run import message_of, opened_run, until
from benchmarks.support.population import Regions, organization_id
from benchmarks.support.service import RunningService, running_service
from benchmarks.support.stores import benchmark_stores

TEAMS: Final = 400
LINES_PER_CHUNK: Final = 3_200
PEAK_MIB_MAX: Final = 512
DAY: Final = timedelta(days=1)
READY_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 3_600.0
LOOK_EVERY: Final = 400
"""Looks at the database, ten milliseconds apart, between two lines of progress."""


class NotTheTruth(RuntimeError):
    """Lines were lost, doubled or parked."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many chunk files; each opens to about 65 MiB."""

    chunks: int

    @classmethod
    def of(cls, *, quick: bool) -> Self:
        return cls(2) if quick else cls(17)

    @property
    def lines(self) -> int:
        return self.chunks * LINES_PER_CHUNK


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run took."""

    lines: int
    opened_bytes: int
    seconds: float
    peak_bytes: int
    idle_bytes: int

    @property
    def figures(self) -> Mapping[str, float]:
        """For machines."""
        return {
            "lines": self.lines,
            "opened_mib": self.opened_bytes / 2**20,
            "seconds": self.seconds,
            "lines_per_second": self.lines / self.seconds,
            "mib_per_second": self.opened_bytes / 2**20 / self.seconds,
            "peak_mib": self.peak_bytes / 2**20,
            "idle_mib": self.idle_bytes / 2**20,
        }


@contextmanager
def _emulator(stores: Stores) -> Iterator[int]:
    port = free_port()
    child = Child(
        "queues",
        leashed([sys.executable, "-m", "quill_stack.queues"], "KILL"),
        log=stores.state.logs / "queues.log",
        env={**os.environ, "QUEUES_PORT": str(port)},
    )
    try:
        yield port
    finally:
        child.stop()


def _chunk(number: int, day: datetime) -> tuple[bytes, int]:
    """A packed chunk and how long it is when opened."""
    teams = {str(team): {"event_count_in_period": team, "recording_count_in_period": 1} for team in range(TEAMS)}
    report = {"date": day.date().isoformat(), "event_count_in_period": 79_800, "recording_count_in_period": TEAMS}
    tail = orjson.dumps({**report, "teams": teams})
    first = number * LINES_PER_CHUNK
    lines = [
        b'{"organization_id":"history-%012d","usage_report":%s}\n' % (first + line, tail)
        for line in range(LINES_PER_CHUNK)
    ]
    return gzip.compress(b"".join(lines), compresslevel=1), sum(map(len, lines))


async def _put_run(plan: Plan, port: int, day: datetime) -> int:
    """Write chunks, manifest and pointer as a region does; returns the bytes of all chunks when opened."""
    prefix = f"billing/usage_reports/{day.date()}/bench/"
    keys = [f"{prefix}chunk_{number:04d}.jsonl.gz" for number in range(plan.chunks)]
    pointer = {
        "version": 2,
        "run_id": "bench",
        "date": day.date().isoformat(),
        "period_start": day.isoformat(),
        "period_end": (day + DAY - timedelta(microseconds=1)).isoformat(),
        "report_completeness": "complete",
        "region": queues.SOURCE.upper(),
        "site_url": "https://region.example.test",
        "bucket": queues.BUCKET,
        "manifest_key": f"{prefix}manifest.json",
        "chunk_prefix": prefix,
        "chunk_count": plan.chunks,
        "total_orgs": plan.lines,
        "total_orgs_with_usage": plan.lines,
    }
    given: dict[str, Any] = {
        "region_name": queues.REGION,
        "endpoint_url": f"http://127.0.0.1:{port}",
        "aws_access_key_id": "local",
        "aws_secret_access_key": "local",
    }
    opened = 0
    session = get_session()
    async with session.create_client("sqs", **given) as sqs, session.create_client("s3", **given) as s3:
        for number, key in enumerate(keys):
            packed, length = _chunk(number, day)
            opened += length
            await s3.put_object(Bucket=queues.BUCKET, Key=key, Body=packed)
        manifest = orjson.dumps({**pointer, "chunk_keys": keys})
        await s3.put_object(Bucket=queues.BUCKET, Key=pointer["manifest_key"], Body=manifest)
        await sqs.send_message(
            QueueUrl=queues.queue_url(port, queues.QUEUE_V2), MessageBody=orjson.dumps(pointer).decode()
        )
    return opened


async def _measure(plan: Plan, stores: Stores, service: RunningService, port: int, says: Progress) -> Seen:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    regions = Regions(organizations=1, first_day=day - 380 * DAY)
    async with opened_run(stores, service, regions, says) as run:
        await run.introduce_customers()
        await run.drain([message_of(report) for report in regions.next_day()], read_first=None)
        with says.step(f"Making {plan.lines:,} more customers"):
            await History(run.database, organization_id(0), day - 380 * DAY, days=0).grow(0, plan.lines)
        idle = service.peak_bytes
        with says.step(f"Writing {plan.chunks} chunk files"):
            opened = await _put_run(plan, port, day)
        began = time.monotonic()
        looks = 0

        async def is_entered() -> bool:
            nonlocal looks
            entered: int = await run.database.fetchval(
                "select count(*) from usage_windows where window_start = $1", day
            )
            parked: int = await run.database.fetchval("select count(*) from dead_letters")
            if parked:
                raise NotTheTruth(f"{parked} records were parked")
            if looks % LOOK_EVERY == 0:
                says.say(f"{entered:,} of {plan.lines:,} lines entered")
            looks += 1
            await asyncio.sleep(1)
            return entered >= plan.lines

        await until(is_entered, seconds=SETTLE_SECONDS)
        seconds = time.monotonic() - began
        total = await run.database.fetchval(
            "select count(*) from usage_windows as w, counter_slots as s where w.window_start = $1"
            " and s.name = 'event_count_in_period' and w.quantities[s.slot + 1] = 79800",
            day,
        )
        if total != plan.lines:
            raise NotTheTruth(f"{total:,} of {plan.lines:,} organizations have what was reported")
    return Seen(plan.lines, opened, seconds, service.peak_bytes, idle)


def main() -> None:
    """Measure and print; memory above the bound fails the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of a gibibyte")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    arguments = parser.parse_args()
    says, plan = Progress(), Plan.of(quick=arguments.quick)
    with (
        benchmark_stores("ingest-chunks", says) as stores,
        _emulator(stores) as port,
        running_service("usage-ingest", stores, says, settings=queues.settings_of_usage_ingest(port)) as service,
    ):
        seen = asyncio.run(_measure(plan, stores, service, port, says))
    if arguments.json:
        print_json({"benchmark": "ingest_chunks", **seen.figures}, [])
    else:
        columns = ["lines", "MiB opened", "seconds", "lines/s", "MiB/s", "peak MiB", "idle MiB"]
        print_table(
            "A run of chunk files, from the bucket to totals",
            columns,
            [[f"{figure:,.0f}" for figure in seen.figures.values()]],
            caption=machine(),
        )
    if seen.peak_bytes > PEAK_MIB_MAX * 2**20:
        sys.exit(f"ingest_chunks: usage-ingest took {seen.peak_bytes / 2**20:,.0f} MiB; the bound is {PEAK_MIB_MAX}")


if __name__ == "__main__":
    main()
