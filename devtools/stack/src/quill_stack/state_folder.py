"""The one folder that holds everything a stack writes, and the lock that makes it one stack per folder."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quill_stack.errors import StackError

LEFTOVER_SECONDS = 10.0
PRIVATE = 0o600


def project_root() -> Path:
    """The checkout this package is installed from: the nearest folder above that holds the lock file."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "requirements.lock").is_file():
            return folder
    return Path.cwd()


def default_state_folder() -> Path:
    """``STACK_DIR``, else ``.local/stack`` of the checkout."""
    named = os.environ.get("STACK_DIR")
    return Path(named).absolute() if named else project_root() / ".local" / "stack"


def cache_folder() -> Path:
    """``STACK_CACHE_DIR``, else ``.local/cache`` of the checkout: downloads, shared by every state folder."""
    named = os.environ.get("STACK_CACHE_DIR")
    return Path(named).absolute() if named else project_root() / ".local" / "cache"


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` in one step, readable by its owner only."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
    scratch.replace(path)


def _birth(pid: int) -> str | None:
    """When process ``pid`` began, in clock ticks since boot; ``None`` when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


class StateFolder:
    """Paths of one stack, its lock, and its public facts in ``env.json``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.postgres = self.path / "pg"
        self.valkey = self.path / "redis"
        self.kafka = self.path / "kafka"
        self._lock = self.path / "lock"
        self._env = self.path / "env.json"
        self._children = self.path / "children.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            StackError: Another process holds it, or servers of a killed supervisor are still ending.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, PRIVATE)
        except OSError as error:
            raise StackError(
                f"cannot write to {self.path}: {error.strerror}", advice="set STACK_DIR to a folder of your own"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
                raise StackError(
                    f"a stack already runs in {self.path} (supervisor process {holder})",
                    advice="use it, stop it with `make down`, or give this one its own STACK_DIR",
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            self._await_leftovers()
            try:
                yield
            finally:
                self._children.unlink(missing_ok=True)
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """The supervisor's process id when a stack runs here, else ``None``."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.pread(descriptor, 32, 0).decode().strip() or 0) or None
        else:
            return None
        finally:
            os.close(descriptor)

    def record_children(self, children: dict[str, int]) -> None:
        """Note which processes belong to this stack, for the next start after a kill -9."""
        facts = {name: [pid, _birth(pid)] for name, pid in children.items()}
        write_private(self._children, json.dumps(facts))

    def _await_leftovers(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            facts: dict[str, tuple[int, str]] = json.loads(self._children.read_text(encoding="utf-8"))
            deadline = time.monotonic() + LEFTOVER_SECONDS
            while alive := [
                f"{name} ({pid})" for name, (pid, birth) in facts.items() if birth and _birth(pid) == birth
            ]:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"servers of an earlier stack in {self.path} are still ending: {', '.join(alive)}",
                        advice="wait a moment and try again, or end those processes by their ids",
                    )
                time.sleep(0.05)

    def write_env(self, facts: dict[str, Any]) -> None:
        """Publish ports, URLs, tokens and process ids to the owner's other programs (mode 0600)."""
        write_private(self._env, json.dumps(facts, indent=2, sort_keys=True) + "\n")

    def read_env(self) -> dict[str, Any]:
        """What the running stack published.

        Raises:
            StackError: No stack published anything here.
        """
        try:
            facts: dict[str, Any] = json.loads(self._env.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StackError(f"no stack has started in {self.path}", advice="start one with `make up`") from error
        return facts

    def forget_env(self) -> None:
        """Take back what was published, because nothing runs any more."""
        self._env.unlink(missing_ok=True)

    def known_secret(self, name: str) -> str | None:
        """The secret ``name`` of this folder, if it was made already."""
        path = self.path / f"{name}.secret"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def kept_secret(self, name: str, fresh: str) -> str:
        """The secret ``name`` of this folder: ``fresh`` the first time, the same ever after."""
        path = self.path / f"{name}.secret"
        if not path.exists():
            write_private(path, fresh)
        return path.read_text(encoding="utf-8")
