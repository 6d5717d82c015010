"""``python -m quill_stack COMMAND``: the local system in the foreground, and questions about it."""

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import httpx

from quill_stack.components import Secrets
from quill_stack.errors import StackError
from quill_stack.progress import Progress
from quill_stack.sample import plant
from quill_stack.state_folder import StateFolder, default_state_folder
from quill_stack.stores import describe, fetch, start_stores
from quill_stack.system import System, running_system

DOWN_SECONDS: Final = 60.0
CHECK_SECONDS: Final = 0.5
PROBE_SECONDS: Final = 5.0
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopAsked(BaseException):
    """A signal asked for a clean stop. Not an ``Exception``: no retry loop may swallow it."""


def until_stopped(work: Callable[[], None]) -> int:
    """Do ``work`` until the first stop signal; later ones are ignored, because stopping is bounded."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        for name in STOP_SIGNALS:
            signal.signal(name, signal.SIG_IGN)
        raise StopAsked

    for name in STOP_SIGNALS:
        signal.signal(name, ask)
    try:
        work()
    except StopAsked:
        print("stopped; the data is kept")
    return 0


def up(state_dir: Path) -> int:
    """Run the whole system until a signal."""

    def work() -> None:
        with running_system(state_dir, revive=True) as system:
            announce(system)
            while True:
                system.wait(CHECK_SECONDS)

    return until_stopped(work)


def announce(system: System) -> None:
    """Tell a person where everything is."""
    env = system.env
    print(f"\nQuill answers at {system.base_url}")
    for name, part in sorted(env["parts"].items()):
        print(f"  {name:<14} {part['url']:<26} log: {part['log']}")
    print(f"Operator token: {env['operator_token']}")
    show_examples(system)
    print(f"More in {system.stores.state.path / 'env.json'}. Ctrl-C stops everything; the data is kept.", flush=True)


def show_examples(system: System) -> None:
    """A working command of each kind, with real ids; a system on somebody else's stores gets no sample data."""
    if "env" in system.stores.modes.values():
        print("No sample data is written to stores of yours; `quill --help` lists the commands.")
        return
    try:
        examples = plant(system).commands()
    except StackError as error:
        Progress().say(f"no sample data: {error}")
        return
    print("Try (in another terminal, after `. .venv/bin/activate`):")
    width = max(len(command) for command, _purpose in examples)
    for command, purpose in examples:
        print(f"  {command:<{width}}  # {purpose}")


def run_stores(state_dir: Path) -> int:
    """Run the three stores alone until a signal, for work on one service."""

    def work() -> None:
        with start_stores(state_dir, throwaway=False) as stores:
            stores.state.write_env(
                {
                    "supervisor_pid": os.getpid(),
                    "kafka_bootstrap_servers": stores.kafka_bootstrap_servers,
                    "redis_url": stores.redis_url,
                    "database_url": stores.database_url,
                    "stores": {name: child.pid for name, child in stores.children.items()},
                }
            )
            try:
                print("\n".join(describe(stores)))
                print(f"More in {stores.state.path / 'env.json'}. Ctrl-C stops them; the data is kept.", flush=True)
                while True:
                    stores.check()
                    time.sleep(CHECK_SECONDS)
            finally:
                stores.state.forget_env()

    return until_stopped(work)


def down(state_dir: Path) -> int:
    """Ask the supervisor that holds the folder to stop, and wait until it has."""
    state = StateFolder(state_dir)
    holder = state.holder()
    if holder is None:
        print(f"nothing runs in {state.path}")
        return 0
    os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while state.holder() is not None:
        if time.monotonic() > deadline:
            raise StackError(
                f"supervisor {holder} still runs after {DOWN_SECONDS:g} s",
                advice=f"look at it, then `kill -9 {holder}`",
            )
        time.sleep(0.05)
    print(f"stopped what ran in {state.path}; the data is kept")
    return 0


def status(state_dir: Path) -> int:
    """Say what runs and whether it is ready; exit code 1 when something is not."""
    state = StateFolder(state_dir)
    holder = state.holder()
    if holder is None:
        print(f"nothing runs in {state.path}")
        return 1
    env = state.read_env()
    print(f"supervisor {holder}, {env.get('base_url', 'stores only')}")
    well = True
    for name, part in sorted(env.get("parts", {}).items()):
        if part["ready_url"] is None:
            continue
        try:
            answer = httpx.get(part["ready_url"], timeout=PROBE_SECONDS, trust_env=False)
            ready = "ready" if answer.is_success else f"not ready: {answer.text[:200]}"
        except httpx.HTTPError as error:
            ready = f"does not answer: {error!r}"
        well = well and ready == "ready"
        print(f"  {name:<14} pid {part['pid']:<8} restarts {part['restarts']:<3} {ready}")
    return 0 if well else 1


def print_secrets(_state_dir: Path) -> int:
    """Print new secrets as an env file for docker compose. The operator's token itself is a comment in it."""
    kept = Secrets.fresh()
    print(f"# operator token: {kept.operator_token}")
    print(f"QUILL_API_TOKENS={kept.api_tokens}")
    print(f"QUILL_SEALING_KEYS={kept.sealing_keys}")
    print(f"STRIPE_WEBHOOK_SECRETS={kept.stripe_webhook_secret}")
    print(f"POSTGRES_PASSWORD={secrets.token_urlsafe(24)}")
    return 0


def fetch_downloads(_state_dir: Path) -> int:
    """Download what the embedded stores need and this machine lacks."""
    fetch(Progress())
    return 0


COMMANDS: Final = {
    "up": up,
    "down": down,
    "status": status,
    "stores": run_stores,
    "secrets": print_secrets,
    "fetch": fetch_downloads,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; a ``StackError`` becomes its text and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m quill_stack", description=__doc__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--state-dir", type=Path, default=None, help="default: STACK_DIR, else .local/stack")
    chosen = parser.parse_args(arguments)
    try:
        return COMMANDS[chosen.command](chosen.state_dir or default_state_folder())
    except StackError as error:
        Progress().say(f"\n{error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
