"""The supervisor of the stores as a process of its own: what people and machines do to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from quill_stack import stores
from quill_stack.errors import StackError
from quill_stack.kafka import TopicSpec, create_topics
from quill_stack.kafka_jars import NoKafkaJarsError
from quill_stack.ports import PortChooser, free_port
from quill_stack.postgres import EmbeddedPostgres
from quill_stack.state_folder import StateFolder
from quill_stack.stores import FAMILIAR_PORTS, start_stores

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]  # long only where many share the machine

START_SECONDS = 120
STORE_VARIABLES = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in STORE_VARIABLES}


def wait_for(condition: Callable[[], object], *, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.03)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def spawn(folder: Path, *before: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-m", "quill_stack", "stores", "--state-dir", str(folder)],
        env={**ENVIRONMENT, "STACK_MODE": "embedded", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(
    folder: Path, *before: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    supervisor = spawn(folder, *before, environment=environment)
    published = folder / "env.json"
    try:
        wait_for(lambda: published.exists() or supervisor.poll() is not None)
        assert published.exists(), supervisor.communicate()[0]
        yield supervisor, json.loads(published.read_text())
    finally:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.communicate(timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stack"


async def leave_a_trace(env: dict) -> None:
    connection = await asyncpg.connect(env["database_url"])
    await connection.execute("create table trace (id int)")
    await connection.close()
    with redis.Redis.from_url(env["redis_url"]) as client:
        client.set("trace", "there")
    create_topics(env["kafka_bootstrap_servers"], [TopicSpec("trace.v1", 1)])
    producer = AIOKafkaProducer(bootstrap_servers=env["kafka_bootstrap_servers"], acks="all")
    await producer.start()
    await producer.send_and_wait("trace.v1", b"there")
    await producer.stop()


async def find_the_trace(env: dict) -> None:
    connection = await asyncpg.connect(env["database_url"])
    assert await connection.fetchval("select to_regclass('trace') is not null")
    await connection.close()
    with redis.Redis.from_url(env["redis_url"]) as client:
        assert client.get("trace") == b"there"
    consumer = AIOKafkaConsumer(
        "trace.v1", bootstrap_servers=env["kafka_bootstrap_servers"], auto_offset_reset="earliest"
    )
    await consumer.start()
    assert (await consumer.getone()).value == b"there"
    await consumer.stop()


async def test_data_survives_a_clean_stop_and_then_a_kill_that_leaves_no_process(folder: Path):
    with running(folder) as (_, env):
        await leave_a_trace(env)
    assert not any(is_alive(pid) for pid in env["stores"].values())

    with running(folder) as (supervisor, env):
        await find_the_trace(env)
        assert len(env["stores"]) == 3
        assert all(is_alive(pid) for pid in env["stores"].values())
        supervisor.kill()
        supervisor.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in env["stores"].values()), seconds=10)
        (folder / "env.json").unlink()

    with running(folder) as (_, env):
        await find_the_trace(env)


def test_a_second_start_on_the_same_folder_is_refused_and_the_first_goes_on(folder: Path):
    with running(folder) as (first, env):
        second = spawn(folder)
        said, _ = second.communicate(timeout=START_SECONDS)
        assert second.returncode == 1
        assert f"a stack already runs in {folder} (supervisor process {first.pid})" in said
        assert "make down" in said
        with redis.Redis.from_url(env["redis_url"]) as client:
            assert client.ping()


def test_taken_ports_are_left_alone_and_free_ones_used(folder: Path):
    with socket.socket() as ours, socket.socket() as also_ours:
        for listener, store in ((ours, "postgres"), (also_ours, "kafka")):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", FAMILIAR_PORTS[store]))
            except OSError:
                continue  # somebody else holds it, which is the conflict this test is about
            listener.listen()
        with running(folder) as (_, env):
            assert f":{FAMILIAR_PORTS['postgres']}/" not in env["database_url"]
            assert not env["kafka_bootstrap_servers"].endswith(f":{FAMILIAR_PORTS['kafka']}")


def test_a_port_taken_between_choice_and_start_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        lost = ours.getsockname()[1]
        choices = iter([lost, free_port(taken=[lost])])
        sensible = PortChooser.choose
        monkeypatch.setattr(
            PortChooser,
            "choose",
            lambda self, familiar: next(choices) if familiar == FAMILIAR_PORTS["redis"] else sensible(self, familiar),
        )
        with start_stores(folder, throwaway=True, environ={"STACK_MODE": "embedded"}) as started:
            assert f":{lost}/" not in started.redis_url
            with redis.Redis.from_url(started.redis_url) as client:
                assert client.ping()


def test_a_store_that_cannot_start_is_reported_with_its_log_and_leaves_nothing_running(folder: Path, tmp_path: Path):
    broken = tmp_path / "broken-valkey"
    broken.write_text("#!/bin/sh\necho 'the disk is on fire'\nexit 3\n")
    broken.chmod(0o755)
    supervisor = spawn(folder, environment={"VALKEY_SERVER": str(broken)})
    said, _ = supervisor.communicate(timeout=START_SECONDS)
    assert supervisor.returncode == 1
    assert "Valkey ended at start with exit code 3" in said
    assert "the disk is on fire" in said
    assert "What to do:" in said
    assert "Traceback" not in said


def test_a_store_that_dies_later_ends_the_stack_with_its_log(folder: Path):
    with running(folder) as (supervisor, env):
        os.kill(env["stores"]["Valkey"], signal.SIGKILL)
        said, _ = supervisor.communicate(timeout=START_SECONDS)
        assert supervisor.returncode == 1
        assert "Valkey ended by itself with exit code -9" in said
        assert not any(is_alive(pid) for pid in env["stores"].values())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="quill-open-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_ordinary_user() -> tuple[str, ...]:
    """What to put before a command so that it runs as somebody who is not root."""
    if os.geteuid() != 0:
        return ()
    by_setpriv = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    can_read_us = subprocess.run(
        [*by_setpriv, sys.executable, "-c", "import quill_stack.stores"], capture_output=True, check=False
    )
    # A checkout below a closed home is readable to nobody else; then a namespace must do, where root's files stay ours.
    return by_setpriv if can_read_us.returncode == 0 else ("unshare", "-U", "--map-user=65534", "--map-group=65534")


async def test_an_ordinary_user_can_run_it(open_folder: Path):
    before = as_ordinary_user()
    folder = open_folder / "stack"
    folder.mkdir()
    if before[:1] == ("setpriv",):
        os.chown(folder, 65534, 65534)
    with running(folder, *before, environment={"HOME": str(folder)}) as (_, env):
        await leave_a_trace(env)
        await find_the_trace(env)


def test_without_user_namespaces_root_runs_postgres_as_nobody(open_folder: Path):
    state = StateFolder(open_folder / "stack")
    with state.held():
        server = EmbeddedPostgres(state, port=free_port(), throwaway=True, namespaces=False)
        server.prepare()
        child = server.start()
        try:
            server.wait_ready(child)
            assert Path(f"/proc/{child.pid}").stat().st_uid == (65534 if os.geteuid() == 0 else os.geteuid())
        finally:
            child.stop()
    assert not is_alive(child.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands files over")
def test_a_folder_that_nobody_can_enter_is_reported_with_a_way_out(open_folder: Path):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    state = StateFolder(closed / "stack")
    with state.held(), pytest.raises(StackError, match="STACK_DIR"):
        EmbeddedPostgres(state, port=1, throwaway=True, namespaces=False).prepare()


@pytest.mark.parametrize("allowed", [False, True])
async def test_only_who_allows_it_gets_the_in_memory_broker(
    folder: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
):
    def no_jars(*_: object) -> Path:
        raise NoKafkaJarsError("no jars today", advice="set KAFKA_BOOTSTRAP_SERVERS")

    monkeypatch.setattr(stores, "ensure_jars", no_jars)
    asked = start_stores(folder, throwaway=True, allow_mock_kafka=allowed, environ={"STACK_MODE": "embedded"})
    if not allowed:
        with pytest.raises(StackError, match="no jars today"), asked:
            pass
        return
    with asked as started:
        assert started.kafka_is_mock
        assert "IN-MEMORY MOCK" in stores.describe(started)[0]
        producer = AIOKafkaProducer(bootstrap_servers=started.kafka_bootstrap_servers)
        await producer.start()
        assert (await producer.send_and_wait("made.by.use.v1", b"there")).offset == 0
        await producer.stop()
