"""The three stores from ``docker-compose.yml``, where a Docker engine answers."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from quill_stack.errors import StackError
from quill_stack.ports import HOST
from quill_stack.processes import TAIL_LINES
from quill_stack.state_folder import project_root

ASK_SECONDS: Final = 10
UP_SECONDS: Final = 600
DOWN_SECONDS: Final = 120


def engine_answers() -> bool:
    """Whether a Docker engine runs and knows ``compose``. Quick when there is none."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    for question in (["version", "--format", "{{.Server.Version}}"], ["compose", "version"]):
        try:
            asked = subprocess.run([docker, *question], capture_output=True, timeout=ASK_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        if asked.returncode != 0:
            return False
    return True


class ComposeStores:
    """The store services of the compose file, in a compose project that belongs to one state folder."""

    def __init__(self, state: Path, *, ports: dict[str, int], password: str, throwaway: bool) -> None:
        self._file = project_root() / "docker-compose.yml"
        self._project = "quill-" + hashlib.sha256(str(state).encode()).hexdigest()[:8]
        self._ports = ports
        self._password = password
        self._throwaway = throwaway
        self._started: list[str] = []

    def urls(self) -> dict[str, str]:
        """Where each store answers, by compose service name."""
        return {
            "kafka": f"{HOST}:{self._ports['kafka']}",
            "postgres": f"postgresql://quill:{self._password}@{HOST}:{self._ports['postgres']}/postgres",
            "redis": f"redis://{HOST}:{self._ports['redis']}/0",
        }

    def up(self, services: list[str]) -> None:
        """Start ``services`` and wait for their health checks.

        Raises:
            StackError: The engine could not.
        """
        self._started = services
        self._compose(["up", "--detach", "--wait", *services], UP_SECONDS)

    def down(self) -> None:
        """Stop what ``up`` started; a throw-away project loses its volumes too."""
        if self._started:
            action = ["down", "--volumes"] if self._throwaway else ["stop", *self._started]
            self._compose(action, DOWN_SECONDS)

    def _compose(self, arguments: list[str], seconds: int) -> None:
        settings = {
            "KAFKA_PORT": str(self._ports["kafka"]),
            "POSTGRES_PORT": str(self._ports["postgres"]),
            "REDIS_PORT": str(self._ports["redis"]),
            "POSTGRES_PASSWORD": self._password,
        }
        argv = ["docker", "compose", "--project-name", self._project, "--file", str(self._file), *arguments]
        done = subprocess.run(
            argv, env={**os.environ, **settings}, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode != 0:
            raise StackError(
                f"docker compose {arguments[0]} failed",
                advice="see its output; STACK_MODE=embedded does without Docker",
                log_tail="\n".join((done.stdout + done.stderr).splitlines()[-TAIL_LINES:]),
            )
