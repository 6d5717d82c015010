"""A simulator on a port: in this process's main thread, or in a thread beside a test."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from quill_stripesim.app import Settings, build
from quill_stripesim.hanging_up import OpenLines

LOOPBACK = "127.0.0.1"
START_SECONDS = 10.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.01


def serve(settings: Settings, *, port: int, host: str = LOOPBACK) -> None:
    """Serves until the process is told to stop; beyond loopback only where a container network is the boundary."""
    _server(settings).run(sockets=[_listen(host, port)])


@contextmanager
def simulated_stripe(settings: Settings | None = None, *, port: int = 0) -> Iterator[str]:
    """Runs a simulator in a thread and yields its base address.

    Args:
        settings: How it is started; in memory by default.
        port: Port on loopback; 0 takes a free one.

    Raises:
        TimeoutError: It did not start within `START_SECONDS`.
    """
    listening = _listen(LOOPBACK, port)
    server = _server(settings or Settings())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    give_up_at = time.monotonic() + START_SECONDS
    while not server.started:
        if time.monotonic() > give_up_at or not thread.is_alive():
            raise TimeoutError("the simulator did not start")
        time.sleep(_POLL_SECONDS)
    try:
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=STOP_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return listening


def _server(settings: Settings) -> uvicorn.Server:
    app = build(settings)
    lines: OpenLines = app.state.lines
    config = uvicorn.Config(
        app,
        http=lines.protocol(),
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=int(STOP_SECONDS),
    )
    return uvicorn.Server(config)
