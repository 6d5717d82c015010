"""Starting in order, draining in reverse, and saying when ready."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from quill_runtime.health import Health

STOP_TIMEOUT_SECONDS = 25.0
HTTP_DRAIN_SECONDS = 5
KEEP_ALIVE_SECONDS = 150
"""Longer than proxies keep an idle connection (2 minutes, or 5 s in the embedded gateway). If the server closed first,
a request sent at that moment would get 502."""
GC_THRESHOLDS = (20_000, 50, 1_000)

log = structlog.get_logger(__name__)


class Component(Protocol):
    """Something with a beginning and an end."""

    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(slots=True)
class Service:
    """One process: an HTTP application and the components behind it, in the order they start.

    ``entrance`` is what the server calls: the application, or a front that may answer before it.
    """

    name: str
    app: FastAPI
    components: Sequence[Component]
    health: Health
    front: ASGIApp | None = None

    @property
    def entrance(self) -> ASGIApp:
        return self.front or self.app

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start every component in order; stop them in reverse, each failure logged and not in the way of the next."""
        started: list[Component] = []
        try:
            for component in self.components:
                await component.start()
                started.append(component)
                log.info("component.started", component=component.name)
            self.health.started = True
            yield
        finally:
            self.health.started = False
            for component in reversed(started):
                try:
                    async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                        await component.stop()
                except Exception as error:  # noqa: BLE001 - the others must stop too
                    log.warning("component.stop_failed", component=component.name, error=repr(error))


async def serve(service: Service, *, host: str, port: int) -> None:
    """Run until SIGTERM or SIGINT: HTTP first (so that live answers early), then components; drain in reverse."""
    config = uvicorn.Config(
        service.entrance,
        host=host,
        port=port,
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=HTTP_DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [loop.remove_signal_handler(n) for n in (signal.SIGTERM, signal.SIGINT)])
        http = asyncio.create_task(_serve_without_signals(server), name="http")
        starting = asyncio.create_task(_run(service, server, stopping), name="components")
        done, _ = await asyncio.wait({http, starting}, return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        server.should_exit = True
        await asyncio.gather(http, starting, return_exceptions=True)
        for task in done:
            task.result()


def calm_garbage_collector() -> None:
    """What was loaded at the start stays for good, so stop looking at it; look at the rest less often.

    Full collections over a loaded process are what makes the slowest answers slow (performance.md, 2b).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _serve_without_signals(server: uvicorn.Server) -> None:
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    await server.serve()


async def _run(service: Service, server: uvicorn.Server, stopping: asyncio.Event) -> None:
    async with service.running():
        calm_garbage_collector()
        log.info("service.started", service=service.name)
        await stopping.wait()
        log.info("service.stopping", service=service.name)
        server.should_exit = True
