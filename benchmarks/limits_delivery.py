"""How fast limits are decided, reach everybody who follows, and are rebuilt.

Run with ``python -m benchmarks.limits_delivery [--quick] [--json]``; see README.md for how to read it.
"""

import argparse
import asyncio
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import asyncpg
import httpx
import redis
from quill_contracts.topics import PERIOD_USAGE
from quill_contracts.usage import MeterUsage, PeriodUsage, PeriodUsageSnapshot
from quill_limits import LimitsFollower
from quill_quota_limiter.store.board_keys import POINTER
from quill_runtime.publisher import Outgoing
from quill_stack.ports import HOST
from quill_stack.progress import Progress
from quill_stack.stores import Stores

from benchmarks.quota_check import ORGANIZATIONS, USAGE_KEY, license_token, populate, wait_until_known
from benchmarks.support.figures import machine, print_json, print_table
from benchmarks.support.population import month_of, organization_id
from benchmarks.support.service import RunningService, running_service
from benchmarks.support.stores import benchmark_stores
from benchmarks.support.topic_log import opened_log

READERS: Final = 1_000
REBUILT: Final = 100_000
REBUILD_GOAL_SECONDS: Final = 30.0
WAIT_SECONDS: Final = 120.0
IN_PROCESS_CHECKS: Final = 200_000

Figures = dict[str, float]


def _usage(number: int, *, revision: int, used: int) -> Outgoing:
    now = datetime.now(UTC)
    period = month_of(now)
    meters = {USAGE_KEY: MeterUsage(complete=used, partial=0, maximum=used)}
    usage = PeriodUsage(period_start=period.start, period_end=period.end, as_of=now, meters=meters)
    snapshot = PeriodUsageSnapshot(organization_id=organization_id(number), revision=revision, periods=[usage])
    return Outgoing(PERIOD_USAGE.name, snapshot.organization_id, snapshot.to_bytes())


async def _decisions(stores: Stores, service: RunningService, *, rounds: int) -> Figures:
    """Period-usage messages per second, from the first sent until Redis shows the decision of the last."""
    headers = {"authorization": f"Bearer {service.kept.operator_token}"}
    checks = {"checks": [{"organization_id": organization_id(n), "usage_key": USAGE_KEY} for n in range(ORGANIZATIONS)]}
    rates = []
    async with (
        opened_log(PERIOD_USAGE.name, PERIOD_USAGE.partitions, stores.kafka_bootstrap_servers) as log,
        httpx.AsyncClient(base_url=service.component.url, headers=headers, trust_env=False, timeout=30) as client,
    ):
        for number in range(rounds):
            used = 1_000 + number
            messages = [_usage(n, revision=10 + number, used=used) for n in range(ORGANIZATIONS)]
            began = time.perf_counter()
            await log.publish(messages)
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    answers = (await client.post("/v1/quota", json=checks)).raise_for_status().json()["answers"]
                    if all(answer["usage"] == used for answer in answers):
                        break
                    await asyncio.sleep(0.005)
            rates.append(ORGANIZATIONS / (time.perf_counter() - began))
    return {"decisions.per_second": statistics.median(rates)}


class _StreamReader:
    """One reader of the stream, on a bare socket: a thousand of an HTTP client would measure that."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int, token: str) -> "_StreamReader":
        reader, writer = await asyncio.open_connection(HOST, port)
        head = f"GET /v1/limits/stream HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"event: complete")
        return cls(reader, writer)

    async def told_at(self) -> float:
        await self._reader.readuntil(b"event: limits")
        return time.perf_counter()

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def _readers(port: int, token: str) -> AsyncIterator[list[_StreamReader]]:
    readers: list[_StreamReader] = []
    try:
        while len(readers) < READERS:
            readers += await asyncio.gather(*(_StreamReader.open(port, token) for _ in range(50)))
        yield readers
    finally:
        for reader in readers:
            reader.close()


async def _fan_out(stores: Stores, service: RunningService, *, rounds: int) -> Figures:
    """From sending the usage that limits an organization until a thousand readers of its stream were told."""
    firsts, lasts = [], []
    async with (
        opened_log(PERIOD_USAGE.name, PERIOD_USAGE.partitions, stores.kafka_bootstrap_servers) as log,
        _readers(service.component.port, license_token(1)) as readers,
    ):
        for number in range(rounds):
            used = 10**12 if number % 2 == 0 else 1
            began = time.perf_counter()
            told = [asyncio.create_task(reader.told_at()) for reader in readers]
            await log.publish([_usage(1, revision=1_000 + number, used=used)])
            async with asyncio.timeout(WAIT_SECONDS):
                instants = await asyncio.gather(*told)
            firsts.append(min(instants) - began)
            lasts.append(max(instants) - began)
    return {
        "stream.first_ms": statistics.median(firsts) * 1e3,
        "stream.all_ms": statistics.median(lasts) * 1e3,
        "stream.spread_ms": statistics.median(last - first for first, last in zip(firsts, lasts, strict=True)) * 1e3,
    }


async def _in_process(service: RunningService) -> Figures:
    """Checks per second that the client answers by itself."""
    async with LimitsFollower(service.component.url, token=service.kept.operator_token) as limits:
        await limits.wait_until_loaded()
        names = [organization_id(n) for n in range(ORGANIZATIONS)]
        began = time.perf_counter()
        for number in range(IN_PROCESS_CHECKS):
            limits.is_limited(USAGE_KEY, organization=names[number % ORGANIZATIONS])
        return {"in_process.per_second": IN_PROCESS_CHECKS / (time.perf_counter() - began)}


async def _multiply(database_url: str) -> None:
    """Make a hundred thousand organizations out of the decided ones, by copying their rows."""
    connection = await asyncpg.connect(database_url)
    try:
        columns = [
            row["column_name"]
            for row in await connection.fetch(
                "select column_name from information_schema.columns where table_name = 'limit_states'"
                " and column_name not in ('organization_id', 'next_evaluation_at') order by ordinal_position"
            )
        ]
        listed = ", ".join(f'"{column}"' for column in columns)
        copies = REBUILT // ORGANIZATIONS - 1
        await connection.execute(
            f"insert into limit_states (organization_id, {listed})"
            f" select organization_id || '-' || copy, {listed}"
            f" from limit_states, generate_series(1, {copies}) copy where revision > 0"
        )
        await connection.execute(
            "insert into project_tokens (api_token, organization_id, is_active)"
            " select api_token || '-' || copy, organization_id || '-' || copy, is_active"
            f" from project_tokens, generate_series(1, {copies}) copy"
        )
        await connection.execute("analyze")
    finally:
        await connection.close()


def _rebuilds(stores: Stores, service: RunningService) -> Figures:
    """Seconds that rebuilds of a hundred thousand organizations take: first all but some are missing, then none is."""
    asyncio.run(_multiply(service.database_url))
    return {
        "rebuild.missing_seconds": _rebuild(stores, service),
        "rebuild.present_seconds": _rebuild(stores, service),
    }


def _rebuild(stores: Stores, service: RunningService) -> float:
    """Seconds of one rebuild in a process of its own, its start included, beside the service."""
    began = time.perf_counter()
    done = subprocess.run(
        service.component.argv("rebuild"),
        env=dict(service.environment),
        capture_output=True,
        text=True,
        timeout=10 * REBUILD_GOAL_SECONDS,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode != 0 or f"organizations={REBUILT}" not in done.stdout:
        raise RuntimeError(f"the rebuild failed: {done.stdout.strip()} {done.stderr.strip()[-2_000:]}")
    with redis.Redis.from_url(stores.redis_url, socket_timeout=10) as client:
        generation = client.get(POINTER)
        assert isinstance(generation, bytes)
        if client.hlen(f"quill:limits-revisions:{generation.decode()}") != REBUILT:
            raise RuntimeError("the new generation does not hold every organization")
    return took


def _show(figures: Figures, rounds: int) -> None:
    print_table(
        "Limits: decided, delivered, rebuilt",
        ["", "figure", "goal"],
        [
            ["period-usage messages decided and in Redis", f"{figures['decisions.per_second']:,.0f}/s", ""],
            ["usage sent until the first of 1,000 stream readers is told", f"{figures['stream.first_ms']:,.0f} ms", ""],
            ["usage sent until the last of them is told", f"{figures['stream.all_ms']:,.0f} ms", ""],
            ["from the first to the last of them", f"{figures['stream.spread_ms']:,.0f} ms", ""],
            ["checks in process, quill_limits", f"{figures['in_process.per_second']:,.0f}/s", ""],
            [
                f"rebuild of {REBUILT:,} organizations, all on the board",
                f"{figures['rebuild.present_seconds']:,.1f} s",
                f"{REBUILD_GOAL_SECONDS:g} s",
            ],
            [
                "the same, nearly all missing, each told to the service",
                f"{figures['rebuild.missing_seconds']:,.1f} s",
                f"{REBUILD_GOAL_SECONDS:g} s",
            ],
        ],
        caption=f"medians of {rounds} rounds, each rebuild once; all on the same cores; {machine()}",
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    arguments = parser.parse_args()
    says, rounds = Progress(), 3 if arguments.quick else 7
    with ExitStack() as cleanup:
        stores = cleanup.enter_context(benchmark_stores("limits-delivery", says))
        service = cleanup.enter_context(running_service("quota-limiter", stores, says))
        with says.step(f"Introducing {ORGANIZATIONS:,} customers and their usage"):
            asyncio.run(populate(stores, service))
            wait_until_known(service)
        with says.step("Deciding"):
            figures = asyncio.run(_decisions(stores, service, rounds=rounds))
        with says.step(f"Telling {READERS:,} readers"):
            figures |= asyncio.run(_fan_out(stores, service, rounds=rounds))
        with says.step("Checking in process"):
            figures |= asyncio.run(_in_process(service))
        with says.step(f"Rebuilding {REBUILT:,} organizations"):
            figures |= _rebuilds(stores, service)
    if arguments.json:
        print_json({"benchmark": "limits_delivery", "figures": figures}, [])
    else:
        _show(figures, rounds)


if __name__ == "__main__":
    main()
