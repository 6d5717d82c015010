"""Apache Kafka, one KRaft node on loopback: the same broker as in production."""

import base64
import contextlib
import hashlib
import secrets
import shutil
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from quill_stack.blocking import run_apart
from quill_stack.errors import StackError
from quill_stack.ports import HOST
from quill_stack.processes import Child, leashed, run_tool
from quill_stack.state_folder import StateFolder

READY_SECONDS: Final = 60.0
FORMAT_SECONDS: Final = 60.0
PROBE_MS: Final = 5_000
ADMIN_MS: Final = 30_000
ADVICE: Final = "read the log; if the data is broken, `make clean` starts afresh; or set KAFKA_BOOTSTRAP_SERVERS"
NO_ERROR: Final = 0


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def cluster_id() -> str:
    """A new KRaft cluster id: 16 random bytes in url-safe base64, not beginning like an option."""
    while (made := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return made


def server_properties(*, data: Path, port: int, controller_port: int) -> str:
    """The whole configuration of the node."""
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "num.partitions": "4",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": "16777216",
        # A killed broker is let in again only when its old session has ended; the default would cost nine seconds.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        "controller.quorum.election.timeout.ms": "500",
        # The sandbox clock moves months ahead of the machine's; Kafka 4 refuses such timestamps by default.
        "log.message.timestamp.after.max.ms": str(2**63 - 1),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


class EmbeddedKafka:
    """One broker in the state folder."""

    name: Final = "Kafka"

    def __init__(
        self, state: StateFolder, *, java: Path, jars: Path, port: int, controller_port: int, throwaway: bool
    ) -> None:
        self._state = state
        self._java = java
        self._jars = jars
        self._port = port
        self._controller_port = controller_port
        self._throwaway = throwaway
        self._properties = state.path / "kafka.properties"
        identity = hashlib.sha256(f"{java.resolve()} {jars}".encode()).hexdigest()[:16]
        self._archive = jars.parent / f"classes-{identity}.jsa"
        self._new_archive = state.path / "kafka-classes.jsa"

    @property
    def url(self) -> str:
        """Bootstrap servers."""
        return f"{HOST}:{self._port}"

    def prepare(self) -> None:
        """Write the configuration and format the data folder unless it is formatted."""
        text = server_properties(data=self._state.kafka, port=self._port, controller_port=self._controller_port)
        self._properties.write_text(text, encoding="utf-8")
        if (self._state.kafka / "meta.properties").exists():
            return
        shutil.rmtree(self._state.kafka, ignore_errors=True)
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id(), "-c", str(self._properties)]
        run_tool("Kafka's storage formatter", [*self._jvm("-Xmx128m", shared=True), *tool], seconds=FORMAT_SECONDS)

    def _jvm(self, *options: str, shared: bool) -> list[str]:
        with resources.as_file(resources.files("quill_stack") / "log4j2.properties") as logging:
            log_option = f"-Dlog4j2.configurationFile={logging}"
        argv = [
            str(self._java),
            "-Xms64m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
        ]
        argv += [log_option, "-Xlog:disable", "-Xlog:all=error:stderr", *options]
        if shared and self._archive.exists():
            argv.append(f"-XX:SharedArchiveFile={self._archive}")
        # The JVM expands the star itself; there is no shell here.
        return [*argv, "-cp", f"{self._jars}/*"]

    def start(self) -> Child:
        """Spawn the broker. The first clean stop leaves an archive of its classes, which halves later starts."""
        options = ["-Xmx512m"]
        if self._throwaway:
            options.append("-XX:TieredStopAtLevel=1")
        elif not self._archive.exists():
            self._new_archive.unlink(missing_ok=True)
            options.append(f"-XX:ArchiveClassesAtExit={self._new_archive}")
        argv = leashed([*self._jvm(*options, shared=True), "kafka.Kafka", str(self._properties)], "KILL")
        log = self._state.logs / "kafka.log"
        return Child(self.name, argv, log=log, stop_signal=signal.SIGTERM, stop_seconds=20)

    def wait_ready(self, child: Child) -> None:
        """Return when the metadata lists a broker.

        Raises:
            StackError: It ended or stayed silent.
        """

        def probe() -> None:
            socket.create_connection((HOST, self._port), timeout=1).close()
            probe_kafka(self.url)

        child.wait_until(probe, seconds=READY_SECONDS, advice=ADVICE)

    def stopped(self) -> None:
        """Keep the class archive the broker wrote at its clean stop."""
        # A cache that belongs to somebody else stays as it is: the archive only saves a second.
        with contextlib.suppress(OSError):
            shutil.move(self._new_archive, self._archive)


def probe_kafka(bootstrap_servers: str) -> None:
    """Ask for metadata; raise unless it lists at least one broker."""

    async def ask() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=PROBE_MS)
        await admin.start()
        try:
            cluster = await admin.describe_cluster()
        finally:
            await admin.close()
        if not cluster["brokers"]:
            raise StackError("Kafka lists no broker yet", advice="wait")

    run_apart(ask)


def create_topics(bootstrap_servers: str, topics: Iterable[TopicSpec]) -> None:
    """Create topics; one that exists already is left as it is.

    Raises:
        StackError: Kafka refused one.
    """
    wanted = [NewTopic(topic.name, topic.partitions, 1, topic_configs=topic.config) for topic in topics]

    async def create() -> list[tuple[str, int]]:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=ADMIN_MS)
        await admin.start()
        try:
            answer = await admin.create_topics(wanted, timeout_ms=ADMIN_MS)
        finally:
            await admin.close()
        return [(error[0], error[1]) for error in answer.topic_errors]

    for name, code in run_apart(create):
        if code not in (NO_ERROR, TopicAlreadyExistsError.errno):
            raise StackError(f"Kafka refused topic {name}: {for_code(code).__name__}", advice="see Kafka's log")


def delete_topics(bootstrap_servers: str, names: Iterable[str]) -> None:
    """Delete topics; one that does not exist is no error."""
    gone = list(names)

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=ADMIN_MS)
        await admin.start()
        try:
            await admin.delete_topics(gone, timeout_ms=ADMIN_MS)
        finally:
            await admin.close()

    if gone:
        run_apart(delete)
