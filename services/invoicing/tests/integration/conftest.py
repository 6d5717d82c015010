"""The service and the Stripe simulator as processes of their own, on real Kafka and Postgres, with one shared clock."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from quill_contracts import topics
from quill_invoicing.store.postgres import PostgresStore
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import KafkaPublisher, Outgoing

OPERATOR_TOKEN = "operator-secret"
WEBHOOK_SECRET = "whsec_test"
START_SECONDS = 90.0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@dataclass
class SandboxTime:
    """The clock file that both processes read."""

    file: Path

    def set(self, instant: datetime) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{(instant - datetime.now(UTC)).total_seconds():.6f}", "ascii")
        fresh.replace(self.file)


@dataclass
class Processes:
    """What this test started; ended one by one."""

    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, *arguments: str, environment: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, env={**os.environ, **(environment or {})}
        )
        self.running.append(process)
        return process

    async def end(self, process: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> None:
        if process.returncode is None:
            process.send_signal(number)
            async with asyncio.timeout(60):
                await process.wait()


async def eventually(look: Callable[[], Awaitable[Any]], *, seconds: float = 60.0) -> Any:
    """The first true answer; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain: {found!r}"
        await asyncio.sleep(0.1)


async def answers(url: str) -> bool:
    async with httpx.AsyncClient(timeout=2) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Awaitable[Any]]:
    return eventually


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    started = Processes()
    yield started
    for process in reversed(started.running):
        await started.end(process)


@pytest.fixture
def sandbox_time(tmp_path: Path) -> SandboxTime:
    clock = SandboxTime(tmp_path / "clock")
    clock.set(datetime(2026, 10, 5, 12, tzinfo=UTC))
    return clock


@pytest.fixture
async def migrated(database_url: str) -> str:
    await migrate(database_url, (runtime_history(), service_history("quill_invoicing")))
    return database_url


@pytest.fixture
async def database(migrated: str) -> AsyncIterator[Database]:
    opened = Database(migrated, pool_size=8)
    yield opened
    await opened.close()


@pytest.fixture
def postgres_store(database: Database) -> PostgresStore:
    return PostgresStore(database, Outbox())


@dataclass
class System:
    """The service under test with its Stripe."""

    url: str
    stripe_url: str
    environment: dict[str, str]
    process: asyncio.subprocess.Process
    processes: Processes
    publisher: KafkaPublisher

    async def publish(self, topic: str, key: str, value: bytes) -> None:
        await self.publisher.publish_all([Outgoing(topic, key, value)])

    async def get(self, path: str, token: str = OPERATOR_TOKEN) -> Any:
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.get(self.url + path, headers={"Authorization": f"Bearer {token}"})
        return answer.json() | {"http_status": answer.status_code}

    async def text(self, path: str) -> str:
        async with httpx.AsyncClient(timeout=10) as client:
            return (await client.get(self.url + path)).text

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx.AsyncClient(timeout=10) as client:
            return await client.post(
                self.url + path,
                content=content,
                headers={"Authorization": f"Bearer {OPERATOR_TOKEN}", "Content-Type": "application/json", **headers},
            )

    async def kill(self) -> None:
        await self.processes.end(self.process, signal.SIGKILL)

    async def restart(self) -> None:
        self.process = await self.processes.start("quill_invoicing", "serve", environment=self.environment)
        await eventually(lambda: answers(f"{self.url}/health/ready"), seconds=START_SECONDS)


@pytest.fixture
async def system(migrated: str, kafka: Any, sandbox_time: SandboxTime, processes: Processes) -> AsyncIterator[System]:
    names = [topics.CUSTOMERS, topics.PERIOD_USAGE, topics.SOURCES, topics.INVOICES, topics.LICENSES]
    kafka.create_topics({topic.name: 1 for topic in names})
    port, stripe_port = free_port(), free_port()
    url, stripe_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{stripe_port}"
    await processes.start(
        "quill_stripesim",
        "serve",
        f"--port={stripe_port}",
        f"--clock-file={sandbox_time.file}",
        f"--webhook-url={url}/webhooks/stripe",
        f"--webhook-secret={WEBHOOK_SECRET}",
    )
    environment = {
        "DATABASE_URL": migrated,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "HTTP_PORT": str(port),
        "QUILL_SEALING_KEYS": "k1:" + "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s",
        "QUILL_API_TOKENS": f"ops:operator:{hashlib.sha256(OPERATOR_TOKEN.encode()).hexdigest()}",
        "QUILL_CLOCK_FILE": str(sandbox_time.file),
        "STRIPE_API_KEY": "sk_test_quill",
        "STRIPE_API_BASE": stripe_url,
        "STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "STRIPE_TEST_PAYMENT_METHOD": "pm_card_visa",
    }
    await eventually(lambda: answers(f"{stripe_url}/_control/state"), seconds=START_SECONDS)
    process = await processes.start("quill_invoicing", "serve", environment=environment)
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    started = System(url, stripe_url, environment, process, processes, publisher)
    await eventually(lambda: answers(f"{url}/health/ready"), seconds=START_SECONDS)
    yield started
    await publisher.stop()
