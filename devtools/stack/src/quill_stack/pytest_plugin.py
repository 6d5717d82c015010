"""Fixtures for integration tests: three real stores once per session, and a clean part of each per test.

A dependency that cannot be started is an error of the test that asked for it. Nothing here ever skips.
"""

import contextlib
import itertools
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from quill_stack.kafka import TopicSpec
from quill_stack.ports import HOST, free_port
from quill_stack.progress import Progress
from quill_stack.stores import Stores, describe, start_stores

LAST_REDIS_DATABASE = 15
EMULATOR_SECONDS = 90
NAMES = itertools.count(1)
RUN = secrets.token_hex(4)


@pytest.fixture(scope="session")
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Kafka, Postgres and Redis, started for this session in a temporary folder, or those of the environment."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with (
        tempfile.TemporaryDirectory(prefix="quill-test-", ignore_cleanup_errors=True) as folder,
        ExitStack() as cleanup,
    ):
        # A start takes seconds, so the person who waits must see it.
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            started = cleanup.enter_context(start_stores(Path(folder), throwaway=True))
            Progress().say("\n".join(describe(started)))
        yield started


def fresh_name(kind: str) -> str:
    """A name nobody used before, on stores that others may share."""
    return f"{kind}_{RUN}_{next(NAMES)}"


@pytest.fixture(scope="session")
def create_database(stores: Stores) -> Iterator[Callable[..., str]]:
    """``create_database(template=None) -> url``: a database that is dropped when the session ends.

    Tests that share a schema migrate one database and pass its name as ``template`` to the others.
    """
    made: list[str] = []

    def create(name: str | None = None, *, template: str | None = None) -> str:
        chosen = name or fresh_name("test")
        made.append(chosen)
        return stores.create_database(chosen, template=template)

    yield create
    for name in made:
        stores.drop_database(name)


@pytest.fixture
def database_url(stores: Stores) -> Iterator[str]:
    """An empty database of this test's own."""
    name = fresh_name("test")
    yield stores.create_database(name)
    stores.drop_database(name)


@pytest.fixture
def redis_url(stores: Stores) -> Iterator[str]:
    """An empty Redis database of this test's own; a server we did not start must have it empty already."""
    url = urlsplit(stores.redis_url)._replace(path=f"/{LAST_REDIS_DATABASE}").geturl()
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        if stores.modes["redis"] == "env" and client.dbsize() != 0:
            pytest.fail(
                f"database {LAST_REDIS_DATABASE} of REDIS_URL is not empty; tests will not wipe what is not theirs"
            )
        client.flushdb()
        yield url
        client.flushdb()


@dataclass(slots=True)
class KafkaForTest:
    """The broker, and the topics this test made."""

    stores: Stores
    _made: list[str] = field(default_factory=list)

    @property
    def bootstrap_servers(self) -> str:
        return self.stores.kafka_bootstrap_servers

    def create_topics(
        self, partitions: Mapping[str, int], configs: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Create topics ``name -> partition count`` with ``name -> settings``; they are deleted after the test."""
        settings = configs or {}
        self._made.extend(partitions)
        self.stores.create_topics(
            TopicSpec(name, count, dict(settings.get(name, {}))) for name, count in partitions.items()
        )

    def fresh_topic(self, *, partitions: int = 1) -> str:
        """Create a topic under a name nobody used before and return the name."""
        name = fresh_name("topic")
        self.create_topics({name: partitions})
        return name

    def forget(self) -> None:
        """Delete what this test made."""
        self.stores.delete_topics(self._made)


@pytest.fixture
def kafka(stores: Stores) -> Iterator[KafkaForTest]:
    """The broker with ``create_topics`` and ``fresh_topic``; topics made through it are deleted after the test."""
    ours = KafkaForTest(stores)
    yield ours
    ours.forget()


@pytest.fixture(scope="session")
def queues() -> Iterator[str]:
    """An emulator of SQS and S3 over HTTP, as a process of its own; its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://{HOST}:{port}"
    try:
        deadline = time.monotonic() + EMULATOR_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}/moto-api/", trust_env=False).status_code == HTTPStatus.OK:
                    break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)
