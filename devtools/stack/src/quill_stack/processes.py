"""Child processes that never outlive the supervisor, each with its own log."""

import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from quill_stack.errors import StackError

POLL_SECONDS = 0.03
TAIL_LINES = 25
TAIL_BYTES = 65_536


class _Spawner:
    """One thread, as old as this process, makes every child.

    The kernel's parent-death signal fires when the *thread* that made the child ends. A child made in a short-lived
    thread would be killed with it, so all children come from one thread that ends only with the process.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._orders = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def popen(self, make: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="quill-stack-spawner", daemon=True)
                self._thread.start()
        answer: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((make, answer))
        return answer.result()

    def _work(self) -> None:
        while True:
            make, answer = self._orders.get()
            try:
                answer.set_result(make())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                answer.set_exception(error)


_SPAWNER = _Spawner()


def log_tail(path: Path, *, lines: int = TAIL_LINES) -> str:
    """The last ``lines`` lines of a log, or an empty text when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class Child:
    """One running server. Signals go to this recorded process only, never to a name.

    Args:
        name: What a person calls it.
        argv: The command. ``setpriv --pdeathsig`` is put before its last stage by ``leashed``.
        log: Where its output is appended.
        env: The whole environment of the process; ``None`` inherits ours.
        stop_signal: The signal that asks for a clean stop.
        stop_seconds: How long a clean stop may take before SIGKILL.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        self._stop_seconds = stop_seconds
        log.parent.mkdir(parents=True, exist_ok=True)

        def make() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    start_new_session=True,
                )

        self.process = _SPAWNER.popen(make)

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_running(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def tail(self) -> str:
        """The last lines of its log."""
        return log_tail(self.log)

    def ask_to_stop(self) -> None:
        """Send the clean-stop signal and return at once."""
        if self.is_running():
            self.process.send_signal(self._stop_signal)

    def kill(self) -> None:
        """SIGKILL the process and whatever it started in its own session, and reap it."""
        if self.is_running():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def stop(self) -> None:
        """Ask, wait ``stop_seconds``, then kill."""
        self.ask_to_stop()
        try:
            self.process.wait(timeout=self._stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait_until(self, probe: Callable[[], None], *, seconds: float, advice: str) -> None:
        """Call ``probe`` until it stops raising.

        Raises:
            StackError: The process ended, or ``seconds`` passed; with the tail of its log.
        """
        deadline = time.monotonic() + seconds
        while True:
            if not self.is_running():
                problem = f"{self.name} ended at start with exit code {self.process.returncode} (log: {self.log})"
                raise StackError(problem, advice=advice, log_tail=self.tail())
            try:
                probe()
            except Exception as error:
                if time.monotonic() > deadline:
                    problem = f"{self.name} did not answer within {seconds:g} s: {error!r} (log: {self.log})"
                    raise StackError(problem, advice=advice, log_tail=self.tail()) from error
                time.sleep(POLL_SECONDS)
            else:
                return


def leashed(argv: Sequence[str], death_signal: str) -> list[str]:
    """``argv`` as a process that receives ``death_signal`` from the kernel when its supervisor dies."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError(
            "setpriv is not on PATH, so servers could outlive a killed supervisor",
            advice="install util-linux, or set DATABASE_URL, REDIS_URL and KAFKA_BOOTSTRAP_SERVERS to running servers",
        )
    return [setpriv, "--pdeathsig", death_signal, *argv]


def run_tool(name: str, argv: Sequence[str], *, seconds: float, env: Mapping[str, str] | None = None) -> str:
    """Run a short command to its end and return what it printed.

    Raises:
        StackError: It failed or took longer than ``seconds``.
    """
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"{name} took longer than {seconds:g} s", advice="try again on a quieter machine") from error
    text = done.stdout.decode("utf-8", errors="replace")
    if done.returncode != 0:
        tail = "\n".join(text.splitlines()[-TAIL_LINES:])
        raise StackError(f"{name} failed with exit code {done.returncode}", advice="see its output", log_tail=tail)
    return text
