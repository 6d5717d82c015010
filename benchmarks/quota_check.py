"""Quota checks over HTTP, single and by the thousand, against ceilings measured in the same run.

Run with ``python -m benchmarks.quota_check [--quick] [--json]``; see README.md for how to read it.
"""

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Self, cast

import httpx
import jwt
import redis
from quill_contracts.catalog_file import load_catalog
from quill_contracts.licenses import License
from quill_contracts.topics import LICENSES, PERIOD_USAGE
from quill_quota_limiter.api.authorization import LICENSE_AUDIENCE
from quill_quota_limiter.store.board_keys import POINTER, answer_key
from quill_runtime.publisher import Outgoing
from quill_runtime.sealing import Sealer
from quill_stack.ports import HOST, free_port
from quill_stack.processes import Child, leashed
from quill_stack.progress import Progress
from quill_stack.stores import Stores

from benchmarks.support.figures import Ratio, machine, median_of, print_json, print_ratios, print_table, ratio_of
from benchmarks.support.http_load import LoadFigures
from benchmarks.support.population import (
    LICENSE_ID,
    SOURCE,
    catalog_messages,
    customer_message,
    month_of,
    organization_id,
    usage_message,
)
from benchmarks.support.redis_load import commands_per_second
from benchmarks.support.service import RunningService, further_replica, running_service
from benchmarks.support.stores import benchmark_stores
from benchmarks.support.topic_log import opened_log

ORGANIZATIONS: Final = 1_000
BATCH: Final = 1_000
"""Checks per request, each of another organization, so that the service must read as many keys."""
SINGLE_CONNECTIONS: Final = 32
BATCH_CONNECTIONS: Final = 8
USAGE_KEY: Final = "events"
SECRET: Final = "the-signing-secret-of-the-benchmark's-own-license"
TOKEN_LIFETIME: Final = timedelta(minutes=15)
LOAD_GRACE_SECONDS: Final = 30
READY_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 3.0

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long is measured: seconds per subject and round."""

    seconds: float
    rounds: int

    @classmethod
    def of(cls, *, quick: bool) -> Self:
        """Half a minute of measuring, or two minutes."""
        return cls(0.6, 5) if quick else cls(2.5, 7)


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under one kind of load."""

    name: str
    pid: int
    port: int
    connections: int
    requests: Sequence[bytes]


class Refused(RuntimeError):
    """The server answered something else than 200; its figures mean nothing."""


# -- cores ---------------------------------------------------------------------------------------------------------


def _pin_apart(stores: Stores, servers: Sequence[int]) -> None:
    """Servers on one core; Redis, this process and the load generators it starts on the others, if there are any."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:  # noqa: PLR2004 - one core cannot be shared out
        return
    for pid in servers:
        os.sched_setaffinity(pid, cores[:1])
    valkey = stores.children.get("Valkey")
    for pid in [0] if valkey is None else [0, valkey.pid]:
        os.sched_setaffinity(pid, cores[1:])


# -- requests ------------------------------------------------------------------------------------------------------


def _get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\n\r\n".encode()


def _post(path: str, token: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _path(number: int) -> str:
    return f"/v1/quota/{organization_id(number)}/{USAGE_KEY}"


def license_token(number: int) -> str:
    """A token of the benchmark's license for one of its organizations."""
    claims = {
        "id": LICENSE_ID,
        "organization_id": organization_id(number),
        "aud": LICENSE_AUDIENCE,
        "exp": datetime.now(UTC) + TOKEN_LIFETIME,
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


def _batch_body() -> bytes:
    checks = [{"organization_id": organization_id(n), "usage_key": USAGE_KEY} for n in range(BATCH)]
    return json.dumps({"checks": checks}).encode()


def _packed_body() -> bytes:
    return json.dumps({"usage_key": USAGE_KEY, "organization_ids": [organization_id(n) for n in range(BATCH)]}).encode()


# -- filling -------------------------------------------------------------------------------------------------------


async def populate(stores: Stores, service: RunningService) -> None:
    """Tell the service of a license, customers and their usage, all through Kafka."""
    now = datetime.now(UTC)
    catalog, period = load_catalog(), month_of(now)
    sealed = Sealer.parse(service.kept.sealing_keys).seal(SECRET.encode(), context=LICENSE_ID)
    held = License(
        license_id=LICENSE_ID,
        revision=1,
        type="cloud",
        status="active",
        sealed_secret=sealed,
        source=SOURCE,
        issued_at=now,
    )
    messages = [
        Outgoing(LICENSES.name, LICENSE_ID, held.to_bytes()),
        *catalog_messages(catalog),
        *(customer_message(n, catalog, period=period) for n in range(ORGANIZATIONS)),
        *(usage_message(n, catalog, period=period, now=now) for n in range(ORGANIZATIONS)),
    ]
    async with opened_log(PERIOD_USAGE.name, PERIOD_USAGE.partitions, stores.kafka_bootstrap_servers) as log:
        await log.publish(messages)


def wait_until_known(service: RunningService) -> bytes:
    """Return one answer once every check is answered from a decision that knows the usage.

    Raises:
        TimeoutError: not within a minute.
    """
    headers = {"authorization": f"Bearer {service.kept.operator_token}"}
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(base_url=service.component.url, headers=headers, trust_env=False, timeout=10) as client:
        while True:
            answers = client.post("/v1/quota", content=_batch_body()).raise_for_status().json()["answers"]
            limited = sum(not answer["allowed"] for answer in answers)
            if all(answer["known"] and answer["usage"] for answer in answers) and limited:
                return client.get(_path(0)).raise_for_status().content
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{sum(not answer['usage'] for answer in answers)} organizations are not decided yet"
                )
            time.sleep(0.1)


@contextmanager
def _constant_server(stores: Stores, answer: bytes) -> Iterator[tuple[Child, int]]:
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.support.constant_answer", str(port), answer.decode()]
    child = Child("constant-answer", leashed(argv, "KILL"), log=stores.state.logs / "constant-answer.log")
    try:
        child.wait_until(lambda: _probe(f"http://{HOST}:{port}/"), seconds=READY_SECONDS, advice="read its log")
        yield child, port
    finally:
        child.stop()


def _probe(url: str) -> None:
    httpx.get(url, trust_env=False, timeout=5).raise_for_status()


# -- measuring -----------------------------------------------------------------------------------------------------


def _measure_http(subject: Subject, *, seconds: float) -> Figures:
    """Requests/s, latencies and server CPU of one subject.

    Raises:
        Refused: an answer other than 200.
    """
    order = {
        "host": HOST,
        "port": subject.port,
        "pid": subject.pid,
        "connections": subject.connections,
        "seconds": seconds,
        "requests": [base64.b64encode(request).decode() for request in subject.requests],
    }
    answer = _generate_load(order, seconds=seconds + LOAD_GRACE_SECONDS)
    load = LoadFigures(**json.loads(answer))
    if load.refused:
        raise Refused(f"{subject.name}: {load.refused} of {load.requests} answers were not 200")
    return {
        f"{subject.name}.per_second": load.per_second,
        f"{subject.name}.p50_ms": load.p50_ms,
        f"{subject.name}.p99_ms": load.p99_ms,
        f"{subject.name}.cpu_us": load.server_cpu_seconds / load.requests * 1e6,
    }


def _generate_load(order: Mapping[str, Any], *, seconds: float) -> str:
    argv = [sys.executable, "-m", "benchmarks.support.http_load"]
    done = subprocess.run(argv, input=json.dumps(order), capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()}")
    return done.stdout


def _measure_redis(name: str, client: Any, keys: Sequence[str], *, seconds: float) -> Figures:
    """The same keys read by redis-py and hiredis in one MGET after another, on one connection."""
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        values = client.mget(keys)
        rounds += 1
    took = time.perf_counter() - began
    if None in values:
        raise Refused(f"{name}: an organization has no answer in Redis")
    return {f"{name}.per_second": rounds / took, f"{name}.p50_ms": took / rounds * 1e3}


def _measure_gets(url: str, keys: Sequence[str], *, seconds: float) -> Figures:
    """Single GETs without pipelining, as many connections as the single checks have."""
    rate = commands_per_second(url, [("GET", key) for key in keys], connections=SINGLE_CONNECTIONS, seconds=seconds)
    return {"get.per_second": rate}


def _idle_share(service: RunningService) -> float:
    """Cores the service uses with nothing to do; it is part of its CPU per request and of nobody else's.

    Looked at once the second replica's arrival is over: every consumer group shares its partitions anew.
    """
    time.sleep(SETTLE_SECONDS)
    before = service.cpu_seconds
    time.sleep(IDLE_SECONDS)
    return (service.cpu_seconds - before) / IDLE_SECONDS


def _subjects(service: RunningService, on_redis: RunningService, constant: tuple[Child, int]) -> list[Subject]:
    child, port = constant
    token = service.kept.operator_token
    ours = partial(Subject, pid=service.child.pid, port=service.component.port)
    stale = partial(Subject, pid=on_redis.child.pid, port=on_redis.component.port)
    single = [_get(_path(n), token) for n in range(ORGANIZATIONS)]
    signed = [_get(_path(n), license_token(n)) for n in range(ORGANIZATIONS)]
    batch = [_post("/v1/quota", token, _batch_body())]
    return [
        Subject("constant", child.pid, port, SINGLE_CONNECTIONS, single),
        ours(name="single", connections=SINGLE_CONNECTIONS, requests=single),
        ours(name="signed", connections=SINGLE_CONNECTIONS, requests=signed),
        stale(name="redis", connections=SINGLE_CONNECTIONS, requests=single),
        ours(name="batch", connections=BATCH_CONNECTIONS, requests=batch),
        stale(name="redis_batch", connections=BATCH_CONNECTIONS, requests=batch),
        ours(name="packed", connections=BATCH_CONNECTIONS, requests=[_post("/v1/quota/packed", token, _packed_body())]),
    ]


def _rounds(plan: Plan, stores: Stores, subjects: Sequence[Subject], says: Progress) -> list[Figures]:
    """Every subject in every round, forwards and backwards in turn; the first round only warms."""
    rounds: list[Figures] = []
    with redis.Redis.from_url(stores.redis_url, socket_timeout=5) as client:
        generation = cast("bytes", client.get(POINTER)).decode()
        keys = [answer_key(generation, organization_id(n)) for n in range(BATCH)]
        takes: list[Callable[[], Figures]] = [
            *(partial(_measure_http, subject, seconds=plan.seconds) for subject in subjects),
            partial(_measure_redis, "mget", client, keys, seconds=plan.seconds / 2),
            partial(_measure_gets, stores.redis_url, keys, seconds=plan.seconds),
        ]
        for number in range(plan.rounds + 1):
            figures: Figures = {}
            for take in takes if number % 2 else reversed(takes):
                figures |= take()
            rounds.append(figures)
            says.say(
                f"{f'round {number} of {plan.rounds}' if number else 'warm-up'}:"
                f" single {figures['single.per_second']:,.0f}/s, batches {figures['batch.per_second']:,.0f}/s,"
                f" constant {figures['constant.per_second']:,.0f}/s"
            )
    return rounds[1:]


def _ratios(rounds: Sequence[Figures]) -> list[Ratio]:
    def over(
        of: Callable[[Mapping[str, float]], float], text: str, bounds: Mapping[str, Any] = MappingProxyType({})
    ) -> Ratio:
        return ratio_of(rounds, of, text=text, **bounds)

    return [
        over(
            lambda r: r["constant.cpu_us"] / r["single.cpu_us"],
            "single check, mirror / constant ASGI, by server CPU",
            {"row": "2", "goal": 0.75, "floor": 0.6},
        ),
        over(lambda r: r["single.per_second"] / r["constant.per_second"], "single check, mirror / constant, by rate"),
        over(lambda r: r["constant.cpu_us"] / r["signed.cpu_us"], "single, license token, mirror / constant, by CPU"),
        over(
            lambda r: r["constant.cpu_us"] / r["redis.cpu_us"],
            "single check, Redis path / constant ASGI, by server CPU",
            {"row": "3", "goal": 0.6, "floor": 0.45},
        ),
        over(
            lambda r: r["redis.per_second"] / r["get.per_second"],
            "single check, Redis path / bare GET, 32 connections",
            {"row": "4", "goal": 0.2, "floor": 0.15},
        ),
        over(
            lambda r: r["single.p99_ms"] / r["constant.p99_ms"],
            "single check p99 / constant ASGI p99",
            {"row": "5", "goal": 2, "floor": 4, "better": "lower"},
        ),
        over(
            lambda r: BATCH * r["constant.cpu_us"] / r["redis_batch.cpu_us"],
            "checks in batches, Redis path / constant, by CPU",
            {"row": "6", "goal": 30, "floor": 20},
        ),
        over(
            lambda r: BATCH * r["constant.cpu_us"] / r["batch.cpu_us"], "checks in batches, mirror / constant, by CPU"
        ),
        over(
            lambda r: r["redis_batch.per_second"] / r["mget.per_second"],
            "batch of 1,000, Redis path / MGET of 1,000 with redis-py",
            {"row": "7", "goal": 0.10, "floor": 0.07},
        ),
        over(
            lambda r: BATCH * r["constant.cpu_us"] / r["packed.cpu_us"],
            "packed checks, mirror / constant, by CPU",
            {"row": "8", "goal": 100, "floor": 60},
        ),
    ]


_SHOWN: Final = (
    ("single check, service token, mirror", "single", 1),
    ("single check, license token, mirror", "signed", 1),
    ("single check, service token, Redis path", "redis", 1),
    ("batch of 1,000 checks, mirror", "batch", BATCH),
    ("batch of 1,000 checks, Redis path", "redis_batch", BATCH),
    ("packed batch of 1,000, mirror", "packed", BATCH),
    ("base: constant raw ASGI, 32 connections", "constant", 1),
    ("base: bare GET, 32 connections, unpipelined", "get", 1),
    ("base: MGET of 1,000 keys, redis-py, 1 connection", "mget", BATCH),
)


def _show(rounds: Sequence[Figures], plan: Plan, idle: float) -> None:
    def row(text: str, name: str, checks: int) -> list[str]:
        def cell(figure: str, form: str) -> str:
            key = f"{name}.{figure}"
            return format(median_of(rounds, key), form) if key in rounds[0] else ""

        rate = median_of(rounds, f"{name}.per_second")
        return [
            text,
            f"{rate:,.0f}",
            f"{rate * checks:,.0f}",
            cell("p50_ms", ".2f"),
            cell("p99_ms", ".2f"),
            cell("cpu_us", ",.0f"),
        ]

    print_table(
        "Quota checks over HTTP, authenticated; 32 connections, 8 for batches",
        ["", "requests/s", "checks/s", "p50 ms", "p99 ms", "server CPU us/request"],
        [row(*shown) for shown in _SHOWN],
        caption=(
            f"median of {len(rounds)} rounds of {plan.seconds:g} s, {ORGANIZATIONS:,} organizations; the idle service"
            f" uses {idle:.1%} of a core; {machine()}"
        ),
    )
    print_ratios(
        _ratios(rounds),
        caption=(
            "row, goal and floor: performance.md section 7, information only; rows 4 and 7 there have redis-benchmark"
            " as base, here a client in Python"
        ),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter rounds, under a minute")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    arguments = parser.parse_args()
    says, plan = Progress(), Plan.of(quick=arguments.quick)
    with ExitStack() as cleanup:
        stores = cleanup.enter_context(benchmark_stores("quota-check", says))
        service = cleanup.enter_context(running_service("quota-limiter", stores, says))
        with says.step(f"Introducing {ORGANIZATIONS:,} customers and their usage"):
            asyncio.run(populate(stores, service))
            answer = wait_until_known(service)
        constant = cleanup.enter_context(_constant_server(stores, answer))
        # A mirror that is never fresh enough: every check asks Redis.
        on_redis = cleanup.enter_context(further_replica(service, stores, says, {"MIRROR_STALE_SECONDS": "1e-9"}))
        _pin_apart(stores, [service.child.pid, on_redis.child.pid, constant[0].pid])
        idle = _idle_share(service)
        rounds = _rounds(plan, stores, _subjects(service, on_redis, constant), says)
    if arguments.json:
        print_json({"benchmark": "quota_check", "rounds": rounds, "idle_cores": idle}, _ratios(rounds))
    else:
        _show(rounds, plan, idle)


if __name__ == "__main__":
    main()
