"""One real service in a process of its own, started exactly as the local stack starts it."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from quill_stack.components import Component, Secrets, module_name, plan
from quill_stack.ports import PortChooser, free_port
from quill_stack.processes import Child, leashed, run_tool
from quill_stack.progress import Progress
from quill_stack.stores import Stores
from quill_stack.system import MIGRATE_SECONDS, READY_SECONDS, probe_component

from benchmarks.support.cpu import cpu_seconds

HELD_SECONDS_MAX: Final = 8.0
"""Kafka gives a member up after ten silent seconds; a rebalance inside a measurement would spoil it."""


class HeldTooLong(RuntimeError):
    """The machine was so busy that preparing a round took longer than Kafka waits for the service."""


@dataclass(slots=True)
class RunningService:
    """A started service."""

    component: Component
    child: Child
    database_url: str
    kept: Secrets
    environment: Mapping[str, str]

    @property
    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        return cpu_seconds(self.child.pid)

    @property
    def peak_bytes(self) -> int:
        """The most memory it ever had."""
        status = Path(f"/proc/{self.child.pid}/status").read_text("ascii")
        (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024

    @contextmanager
    def held(self) -> Iterator[None]:
        """Freeze the process meanwhile, so that work can be laid out for it and none is begun before its start.

        Raises:
            HeldTooLong: its consumers have lost their partitions by now.
        """
        began = time.monotonic()
        os.kill(self.child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            held = time.monotonic() - began
            os.kill(self.child.pid, signal.SIGCONT)
        if held > HELD_SECONDS_MAX:
            raise HeldTooLong(f"held for {held:.1f} s; try again on a quieter machine, or with --quick")


@contextmanager
def running_service(
    name: str, stores: Stores, says: Progress, *, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[RunningService]:
    """Migrate and serve, yield when ready, stop in the end; ``settings`` come on top of the local stack's.

    Raises:
        quill_stack.errors.StackError: it did not become ready; with the tail of its log.
    """
    database_url = stores.create_database(module_name(name))
    kept = Secrets.of(stores.state)
    planned = plan(
        stores,
        _AnyDatabase(database_url),
        kept=kept,
        ports=PortChooser(prefer_familiar=False),
        clock_file=None,
        environ={},
    )
    component = next(part for part in planned if part.name == name)
    environment = {**os.environ, **component.environment, "LOG_LEVEL": "WARNING", "USAGE_WORK": "totals", **settings}
    with says.step(f"Migrating and starting {name}"):
        run_tool(f"migrating {name}", component.argv("migrate"), seconds=MIGRATE_SECONDS, env=environment)
        child = Child(name, leashed(component.argv(), "KILL"), log=stores.state.logs / f"{name}.log", env=environment)
        try:
            child.wait_until(lambda: probe_component(component), seconds=READY_SECONDS, advice="read its log")
            started = RunningService(component, child, database_url, kept, environment)
        except BaseException:
            child.kill()
            raise
    try:
        yield started
    finally:
        child.stop()


@contextmanager
def further_replica(
    service: RunningService, stores: Stores, says: Progress, settings: Mapping[str, str]
) -> Iterator[RunningService]:
    """Another process of the same service on the same stores, with some settings of its own."""
    port = free_port()
    component = replace(service.component, port=port)
    # A name of its own: two replicas of one name would take the partitions from each other every second.
    named = {"QUILL_INSTANCE_ID": f"{service.environment['QUILL_INSTANCE_ID']}-further"}
    environment = {**service.environment, **named, **settings, "HTTP_PORT": str(port)}
    name = f"{component.name}-further"
    with says.step(f"Starting another {component.name}"):
        child = Child(name, leashed(component.argv(), "KILL"), log=stores.state.logs / f"{name}.log", env=environment)
        try:
            child.wait_until(lambda: probe_component(component), seconds=READY_SECONDS, advice="read its log")
        except BaseException:
            child.kill()
            raise
    try:
        yield replace(service, component=component, child=child, environment=environment)
    finally:
        child.stop()


class _AnyDatabase(dict[str, str]):
    """The stack plans all services at once; only one of them is started here."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def __missing__(self, service: str) -> str:
        return self._url
