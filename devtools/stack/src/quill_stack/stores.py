"""Kafka, Postgres and Redis: each from a URL in the environment, else Docker compose, else an embedded real server."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, cast, get_args

from quill_stack import engine, postgres
from quill_stack.errors import StackError
from quill_stack.java import find_java
from quill_stack.kafka import EmbeddedKafka, TopicSpec, create_topics, delete_topics, probe_kafka
from quill_stack.kafka_jars import KAFKA_VERSION, NoKafkaJarsError, ensure_jars
from quill_stack.mock_kafka import MockKafka
from quill_stack.ports import PortChooser
from quill_stack.postgres import EmbeddedPostgres, probe_postgres
from quill_stack.processes import Child
from quill_stack.progress import Progress
from quill_stack.state_folder import StateFolder, cache_folder
from quill_stack.valkey import EmbeddedValkey, probe_redis

Mode = Literal["env", "compose", "embedded"]
Kind = Literal["kafka", "postgres", "redis"]

VARIABLES: Final[dict[Kind, str]] = {
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "postgres": "DATABASE_URL",
    "redis": "REDIS_URL",
}
FAMILIAR_PORTS: Final[dict[str, int]] = {"postgres": 25432, "redis": 26379, "kafka": 29092, "kafka-controller": 29093}
PORT_TAKEN: Final = ("Address already in use", "BindException")
PROBES: Final[dict[Kind, Callable[[str], None]]] = {
    "kafka": probe_kafka,
    "postgres": probe_postgres,
    "redis": probe_redis,
}


class EmbeddedServer(Protocol):
    """What the three embedded servers have in common."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    def prepare(self) -> None: ...
    def start(self) -> Child: ...
    def wait_ready(self, child: Child) -> None: ...


@dataclass(slots=True)
class Stores:
    """Three answering stores."""

    state: StateFolder
    urls: dict[Kind, str]
    modes: dict[Kind, Mode]
    children: dict[str, Child] = field(default_factory=dict)
    kafka_is_mock: bool = False

    @property
    def database_url(self) -> str:
        """An administrative Postgres database, from which others are made."""
        return self.urls["postgres"]

    @property
    def redis_url(self) -> str:
        """Redis, database 0 unless the environment says otherwise."""
        return self.urls["redis"]

    @property
    def kafka_bootstrap_servers(self) -> str:
        return self.urls["kafka"]

    def create_database(self, name: str, *, template: str | None = None, keep: bool = False) -> str:
        """Create a database and return its URL; see ``quill_stack.postgres.create_database``."""
        return postgres.create_database(self.database_url, name, template=template, keep=keep)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending its sessions."""
        postgres.drop_database(self.database_url, name)

    def create_topics(self, topics: Iterable[TopicSpec]) -> None:
        """Create topics that do not exist yet. The in-memory broker makes topics by itself."""
        if not self.kafka_is_mock:
            create_topics(self.kafka_bootstrap_servers, topics)

    def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics."""
        if not self.kafka_is_mock:
            delete_topics(self.kafka_bootstrap_servers, names)

    def check(self) -> None:
        """Return when every server this process started still runs.

        Raises:
            StackError: One ended; with the tail of its log.
        """
        for child in self.children.values():
            if not child.is_running():
                raise StackError(
                    f"{child.name} ended by itself with exit code {child.process.returncode} (log: {child.log})",
                    advice="read the log, then start again; the data is kept",
                    log_tail=child.tail(),
                )


def chosen_modes(environ: Mapping[str, str], *, engine_is_up: Callable[[], bool]) -> dict[Kind, Mode]:
    """Where each store comes from; the first way that is open wins, ``STACK_MODE`` forces one for all.

    Raises:
        StackError: ``STACK_MODE`` is unknown, or forces a way that is not open.
    """
    forced = environ.get("STACK_MODE", "")
    if forced and forced not in get_args(Mode):
        raise StackError(f"STACK_MODE={forced} is unknown", advice="use env, compose or embedded, or leave it out")
    missing = [name for name in VARIABLES.values() if not environ.get(name)]
    if forced == "env" and missing:
        raise StackError(f"STACK_MODE=env, but {' and '.join(missing)} are not set", advice="set them, or leave it out")
    if forced == "compose" and not engine_is_up():
        raise StackError(
            "STACK_MODE=compose, but no Docker engine with compose answers",
            advice="start the engine, or use STACK_MODE=embedded, which needs none",
        )
    if forced:
        return dict.fromkeys(VARIABLES, cast("Mode", forced))
    fallback: Mode = "compose" if missing and engine_is_up() else "embedded"
    return {kind: "env" if environ.get(name) else fallback for kind, name in VARIABLES.items()}


def fetch(says: Progress, environ: Mapping[str, str] | None = None) -> None:
    """Download now what an embedded start would download, so that nothing with a time limit has to.

    Raises:
        StackError: It cannot be had.
    """
    modes = chosen_modes(os.environ if environ is None else environ, engine_is_up=engine.engine_answers)
    if modes["kafka"] == "embedded":
        find_java(says)
        ensure_jars(cache_folder(), says)


@contextmanager
def start_stores(
    state_dir: Path,
    *,
    throwaway: bool,
    allow_mock_kafka: bool = False,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
    familiar_ports: bool | None = None,
    fsync: bool = False,
) -> Iterator[Stores]:
    """Start (or find) the three stores, yield them answering, and stop in the end what was started here.

    Args:
        state_dir: Holds everything the stores write. One stack per folder.
        throwaway: Free ports and no durability, for tests; the data is good for one run.
        allow_mock_kafka: Where no Kafka jars can be had, go on with librdkafka's in-memory broker. Only the demo may.
        progress: Who is told what happens.
        environ: Instead of ``os.environ``.
        familiar_ports: Try the well-known ports first; without a word, unless ``throwaway``.
        fsync: Let embedded Postgres pay for surviving a power cut, as measuring it should.

    Raises:
        StackError: One could not be started; nothing is left running.
    """
    says = progress or Progress()
    variables = os.environ if environ is None else environ
    state = StateFolder(state_dir)
    modes = chosen_modes(variables, engine_is_up=engine.engine_answers)
    with ExitStack() as cleanup:
        cleanup.enter_context(state.held())
        stores = Stores(state=state, urls={}, modes=modes)
        ports = PortChooser(prefer_familiar=not throwaway if familiar_ports is None else familiar_ports)
        for kind in [kind for kind, mode in modes.items() if mode == "env"]:
            stores.urls[kind] = variables[VARIABLES[kind]]
            _probe_foreign(kind, stores.urls[kind])
        _start_composed(stores, ports, cleanup, says, throwaway=throwaway)
        makers = _makers(state, ports, throwaway=throwaway, fsync=fsync)
        _start_embedded(stores, ports, makers, cleanup, says, throwaway=throwaway, allow_mock_kafka=allow_mock_kafka)
        yield stores


def _probe_foreign(kind: Kind, url: str) -> None:
    try:
        PROBES[kind](url)
    except Exception as error:
        raise StackError(
            f"{VARIABLES[kind]} is set, but nothing there answers as {kind}: {error!r}",
            advice=f"start that server, correct {VARIABLES[kind]}, or unset it to have one started",
        ) from error


def _start_composed(stores: Stores, ports: PortChooser, cleanup: ExitStack, says: Progress, *, throwaway: bool) -> None:
    kinds = [kind for kind, mode in stores.modes.items() if mode == "compose"]
    if not kinds:
        return
    chosen: dict[str, int] = {kind: ports.choose(FAMILIAR_PORTS[kind]) for kind in VARIABLES}
    password = stores.state.kept_secret("compose-pg", secrets.token_urlsafe(24))
    composed = engine.ComposeStores(stores.state.path, ports=chosen, password=password, throwaway=throwaway)
    cleanup.callback(composed.down)
    with says.step(f"Starting {', '.join(kinds)} in containers"):
        composed.up(list(kinds))
    stores.urls.update({kind: composed.urls()[kind] for kind in kinds})


def _start_embedded(
    stores: Stores,
    ports: PortChooser,
    makers: dict[Kind, Callable[[], EmbeddedServer]],
    cleanup: ExitStack,
    says: Progress,
    *,
    throwaway: bool,
    allow_mock_kafka: bool,
) -> None:
    """Prepare side by side, spawn, then wait for each; whatever was spawned is stopped when the context ends."""
    kinds = [kind for kind, mode in stores.modes.items() if mode == "embedded"]
    if "kafka" in kinds:
        try:
            java, jars = find_java(says), ensure_jars(cache_folder(), says)
        except NoKafkaJarsError as error:
            if not allow_mock_kafka:
                raise
            says.say(f"{error.problem}; going on with librdkafka's in-memory broker")
            mock = MockKafka()
            cleanup.callback(mock.close)
            stores.urls["kafka"] = mock.bootstrap_servers
            stores.kafka_is_mock = True
            kinds.remove("kafka")
        else:
            makers["kafka"] = lambda: EmbeddedKafka(
                stores.state,
                java=java,
                jars=jars,
                port=ports.choose(FAMILIAR_PORTS["kafka"]),
                controller_port=ports.choose(FAMILIAR_PORTS["kafka-controller"]),
                throwaway=throwaway,
            )
    servers = {kind: makers[kind]() for kind in kinds}
    if not servers:
        return
    with says.step("Starting " + ", ".join(server.name for server in servers.values())):
        cleanup.callback(_stop_all, stores, servers)
        with ThreadPoolExecutor(max_workers=len(servers)) as pool:
            list(pool.map(lambda server: server.prepare(), servers.values()))
        for server in servers.values():
            _spawn(stores, server)
        for kind in reversed(kinds):  # the quick ones first: what is broken is known before the slow one answers
            try:
                servers[kind].wait_ready(stores.children[servers[kind].name])
            except StackError as error:
                if not any(sign in error.log_tail for sign in PORT_TAKEN):
                    raise
                # Somebody took the port after it was found free. A new choice avoids it; a second loss is reported.
                servers[kind] = makers[kind]()
                servers[kind].prepare()
                servers[kind].wait_ready(_spawn(stores, servers[kind]))
            stores.urls[kind] = servers[kind].url


def _makers(
    state: StateFolder, ports: PortChooser, *, throwaway: bool, fsync: bool
) -> dict[Kind, Callable[[], EmbeddedServer]]:
    """How to make each server that needs nothing downloaded; each call chooses ports anew."""
    return {
        "postgres": lambda: EmbeddedPostgres(
            state, port=ports.choose(FAMILIAR_PORTS["postgres"]), throwaway=throwaway, fsync=fsync
        ),
        "redis": lambda: EmbeddedValkey(state, port=ports.choose(FAMILIAR_PORTS["redis"]), throwaway=throwaway),
    }


def _spawn(stores: Stores, server: EmbeddedServer) -> Child:
    child = stores.children[server.name] = server.start()
    stores.state.record_children({name: present.pid for name, present in stores.children.items()})
    return child


def _stop_all(stores: Stores, servers: Mapping[Kind, EmbeddedServer]) -> None:
    for child in stores.children.values():
        child.ask_to_stop()
    for child in stores.children.values():
        child.stop()
    for server in servers.values():
        if isinstance(server, EmbeddedKafka):
            server.stopped()


def describe(stores: Stores) -> list[str]:
    """One line per store: which way was chosen, and where it is. Passwords are left out."""
    lines = []
    for kind, mode in stores.modes.items():
        where = stores.urls[kind].rpartition("@")[2].rpartition("://")[2]
        what = {"env": f"from {VARIABLES[kind]}", "compose": "in a container", "embedded": "embedded"}[mode]
        if kind == "kafka" and mode == "embedded":
            what = "IN-MEMORY MOCK, not Kafka" if stores.kafka_is_mock else f"embedded {KAFKA_VERSION}"
        lines.append(f"{kind.capitalize():<9} {what:<28} {where}")
    return lines
