"""The whole system on one machine: stores, five services, stand-ins for Stripe and mail, and the gateway.

``running_system`` is what ``make up``, the demo and the chaos run start. A part that dies is started again when the
caller wants that; a store that dies ends everything, because nothing above it can be right without it.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from quill_contracts.topics import DAY_MS, TOPICS

from quill_stack.components import SERVICES, Component, Secrets, module_name, plan
from quill_stack.errors import StackError
from quill_stack.kafka import TopicSpec
from quill_stack.ports import HOST, PortChooser
from quill_stack.processes import Child, leashed, run_tool
from quill_stack.progress import Progress
from quill_stack.stores import Stores, describe, start_stores

READY_SECONDS: Final = 120.0
MIGRATE_SECONDS: Final = 120.0
DRAIN_SECONDS: Final = 8.0
WATCH_SECONDS: Final = 0.1
FIRST_BACKOFF_SECONDS: Final = 0.2
LAST_BACKOFF_SECONDS: Final = 5.0
CALM_SECONDS: Final = 20.0
"""A part that ran this long starts again with the first back-off."""
EXIT_BAD_CONFIGURATION: Final = 78
PROBE_SECONDS: Final = 5.0
ADVICE: Final = "read its log; data is kept, so start again once the cause is gone"


@dataclass(slots=True)
class _Part:
    """A component, its present process, and how often it came back."""

    component: Component
    child: Child
    started_at: float
    restarts: int = 0
    backoff: float = FIRST_BACKOFF_SECONDS
    due_at: float | None = None


class System:
    """A started system. Made by ``running_system``; safe to use from several threads."""

    def __init__(
        self, stores: Stores, components: Sequence[Component], kept: Secrets, *, revive: bool, clock_file: Path | None
    ) -> None:
        self.stores = stores
        self.components = {component.name: component for component in components}
        self.operator_token = kept.operator_token
        self.clock_file = clock_file
        self._kept = kept
        self._revive = revive
        self._parts: dict[str, _Part] = {}
        self._guard = threading.RLock()
        self._stopping = threading.Event()
        self._failed: StackError | None = None
        self._failure = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="quill-stack-watch", daemon=True)

    @property
    def base_url(self) -> str:
        """The one address in front of all services."""
        return self.components["gateway"].url

    @property
    def env(self) -> dict[str, Any]:
        """What ``env.json`` says: addresses, token, process ids."""
        with self._guard:
            parts = {
                name: {
                    "url": part.component.url,
                    "ready_url": part.component.ready_url,
                    "pid": part.child.pid,
                    "log": str(part.child.log),
                    "restarts": part.restarts,
                }
                for name, part in self._parts.items()
            }
        settings = {name: component.environment for name, component in self.components.items()}
        databases = {name: own["DATABASE_URL"] for name, own in settings.items() if "DATABASE_URL" in own}
        stripe = self.components.get("stripesim")
        return {
            "supervisor_pid": os.getpid(),
            "base_url": self.base_url,
            "operator_token": self.operator_token,
            "stripe_webhook_secret": self._kept.stripe_webhook_secret,
            "stripe_url": stripe.url if stripe else None,
            "queues_url": self.components["queues"].url if "queues" in self.components else None,
            "mail_dir": self.components["mail"].environment["MAIL_DIR"] if "mail" in self.components else None,
            "kafka_bootstrap_servers": self.stores.kafka_bootstrap_servers,
            "kafka_is_mock": self.stores.kafka_is_mock,
            "redis_url": self.stores.redis_url,
            "database_url": self.stores.database_url,
            "databases": databases,
            "clock_file": None if self.clock_file is None else str(self.clock_file),
            "parts": parts,
            "stores": {name: child.pid for name, child in self.stores.children.items()},
        }

    def restarts(self, name: str) -> int:
        """How often part ``name`` was started again."""
        with self._guard:
            return self._parts[name].restarts

    def kill(self, name: str) -> int:
        """SIGKILL the present process of part ``name``; returns its process id. With ``revive`` it comes back."""
        with self._guard:
            child = self._parts[name].child
            child.kill()
            return child.pid

    def restart(self, name: str) -> None:
        """Stop part ``name`` cleanly and start it again; returns when it is ready.

        Raises:
            StackError: It did not come back.
        """
        with self._guard:
            part = self._parts[name]
            part.child.stop()
            self._respawn(part)
        self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Return when part ``name`` can work.

        Raises:
            StackError: It did not within a minute.
        """
        deadline = time.monotonic() + READY_SECONDS
        while True:
            with self._guard:
                part = self._parts[name]
            try:
                probe_component(part.component)
            except Exception as error:
                if time.monotonic() > deadline or self._failure.is_set():
                    raise StackError(
                        f"{name} did not become ready: {error}", advice=ADVICE, log_tail=part.child.tail()
                    ) from error
                time.sleep(WATCH_SECONDS)
            else:
                return

    def wait(self, seconds: float | None = None) -> bool:
        """Block until something that cannot be healed fails, or ``seconds`` pass; true means all is well.

        Raises:
            StackError: What failed, with the tail of its log.
        """
        self._failure.wait(seconds)
        if self._failed is not None:
            raise self._failed
        return True

    # --- used by running_system only ---------------------------------------------------------------------------------

    def start_parts(self, says: Progress) -> None:
        """Spawn everything, wait until each answers, then publish ``env.json`` and begin to watch."""
        for component in self.components.values():
            self._parts[component.name] = _Part(component, self._spawn(component), time.monotonic())
        self._record()
        with says.step("Starting services"):
            for part in self._parts.values():
                part.child.wait_until(_probe_of(part.component), seconds=READY_SECONDS, advice=ADVICE)
        self.stores.state.write_env(self.env)
        self._watcher.start()

    def stop_parts(self) -> None:
        """Gateway first, so that nobody is turned away half-way; then services drain together; then the stand-ins."""
        self._stopping.set()
        if self._watcher.ident is not None:
            self._watcher.join(timeout=LAST_BACKOFF_SECONDS)
        self.stores.state.forget_env()
        children = {name: part.child for name, part in self._parts.items()}
        for group in (("gateway",), SERVICES, ("stripesim", "mail", "queues")):
            present = [children[name] for name in group if name in children]
            for child in present:
                child.ask_to_stop()
            for child in present:
                child.stop()

    def _spawn(self, component: Component) -> Child:
        environment = {**os.environ, **component.environment, "PYTHONUNBUFFERED": "1"}
        # SIGKILL, not SIGTERM: with the supervisor gone the stores go too, and a drain would wait for them in vain.
        return Child(
            component.name,
            leashed(component.argv(), "KILL"),
            log=self.stores.state.logs / f"{component.name}.log",
            env=environment,
            stop_seconds=DRAIN_SECONDS,
        )

    def _record(self) -> None:
        parts = {name: part.child.pid for name, part in self._parts.items()}
        self.stores.state.record_children(parts | {name: child.pid for name, child in self.stores.children.items()})

    def _respawn(self, part: _Part) -> None:
        part.child = self._spawn(part.component)
        part.started_at = time.monotonic()
        part.restarts += 1
        part.due_at = None
        self._record()
        self.stores.state.write_env(self.env)

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            try:
                self.stores.check()
                with self._guard:
                    for part in self._parts.values():
                        self._look_after(part)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller of wait() must hear of it
                self._failed = error if isinstance(error, StackError) else StackError(repr(error), advice=ADVICE)
                self._failure.set()
                return

    def _look_after(self, part: _Part) -> None:
        if part.child.is_running():
            return
        code = part.child.process.returncode
        if not self._revive or code == EXIT_BAD_CONFIGURATION:
            problem = f"{part.component.name} ended by itself with exit code {code} (log: {part.child.log})"
            raise StackError(problem, advice=ADVICE, log_tail=part.child.tail())
        now = time.monotonic()
        if part.due_at is None:
            if now - part.started_at > CALM_SECONDS:
                part.backoff = FIRST_BACKOFF_SECONDS
            part.due_at = now + part.backoff
            part.backoff = min(part.backoff * 2, LAST_BACKOFF_SECONDS)
        elif now >= part.due_at:
            self._respawn(part)


def probe_component(component: Component) -> None:
    """Raise unless the component can work."""
    if component.ready_url is None:
        socket.create_connection((HOST, component.port), timeout=PROBE_SECONDS).close()
        return
    with httpx.Client(trust_env=False, timeout=PROBE_SECONDS) as client:
        answer = client.get(component.ready_url)
    if not answer.is_success:
        raise StackError(f"{component.name} is not ready: {answer.text[:500]}", advice=ADVICE)


def _probe_of(component: Component) -> Callable[[], None]:
    return lambda: probe_component(component)


@contextmanager
def running_system(
    state_dir: Path,
    *,
    throwaway: bool = False,
    revive: bool = True,
    sandbox_clock: bool = False,
    allow_mock_kafka: bool = False,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """Start everything, yield it ready, and stop it in order.

    Args:
        state_dir: Where all of it is kept. One stack per folder.
        throwaway: Free ports and no durability; the data is good for one run.
        revive: Start again, with back-off, what crashed or was killed above the stores.
        sandbox_clock: Services read their clock through ``<state_dir>/clock``, which the caller may write.
        allow_mock_kafka: See ``start_stores``.
        progress: Who is told what happens.
        environ: Instead of ``os.environ``.

    Raises:
        StackError: A part did not start; nothing is left running.
    """
    says = progress or Progress()
    with ExitStack() as cleanup:
        stores = cleanup.enter_context(
            start_stores(
                state_dir, throwaway=throwaway, allow_mock_kafka=allow_mock_kafka, progress=says, environ=environ
            )
        )
        for line in describe(stores):
            says.say(line)
        kept = Secrets.of(stores.state)
        databases = {name: stores.create_database(module_name(name), keep=True) for name in SERVICES}
        clock_file = stores.state.path / "clock" if sandbox_clock else None
        ports = PortChooser(prefer_familiar=not throwaway)
        components = plan(
            stores, databases, kept=kept, ports=ports, clock_file=clock_file, environ=environ, with_queues=True
        )
        with says.step("Migrating databases"):
            _migrate(databases)
        stores.create_topics(all_topics())
        system = System(stores, components, kept, revive=revive, clock_file=clock_file)
        cleanup.callback(system.stop_parts)
        system.start_parts(says)
        yield system


def all_topics() -> list[TopicSpec]:
    """Every registered topic, and the companion that announces what its readers parked."""
    topics = [TopicSpec(topic.name, topic.partitions, topic.config) for topic in TOPICS]
    announcements = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}
    return topics + [TopicSpec(topic.dead, 1, announcements) for topic in TOPICS]


def _migrate(databases: Mapping[str, str]) -> None:
    named = {module_name(service): url for service, url in databases.items()}
    argv = [sys.executable, "-m", "quill_stack.migrating"]
    run_tool("migrating", argv, seconds=MIGRATE_SECONDS, env={**os.environ, "QUILL_DATABASES": json.dumps(named)})
