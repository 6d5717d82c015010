"""Stores of a benchmark's own: real, durable, and never those that the environment names."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from quill_stack.progress import Progress
from quill_stack.state_folder import project_root
from quill_stack.stores import VARIABLES, Stores, describe, start_stores
from quill_stack.system import all_topics


@contextmanager
def benchmark_stores(name: str, says: Progress) -> Iterator[Stores]:
    """Kafka with every topic, Postgres and Redis in ``.local/benchmarks/<name>``, removed afterwards.

    Stores named in the environment are left alone: a benchmark writes thousands of reports of invented customers.

    Raises:
        quill_stack.errors.StackError: one could not be started; nothing is left running.
    """
    folder = project_root() / ".local" / "benchmarks" / name
    shutil.rmtree(folder, ignore_errors=True)
    ours = {key: value for key, value in os.environ.items() if key not in {*VARIABLES.values(), "STACK_MODE"}}
    try:
        with (
            # Beside somebody's running stack: the familiar ports are his. A commit must cost what it really costs.
            start_stores(
                folder, throwaway=False, progress=says, environ=ours, familiar_ports=False, fsync=True
            ) as stores,
        ):
            for line in describe(stores):
                says.say(line)
            stores.create_topics(all_topics())
            yield stores
    finally:
        shutil.rmtree(folder, ignore_errors=True)
