"""Runs a coroutine to its end from synchronous code, also when the caller already has an event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_apart(make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run the coroutine ``make()`` returns in a loop of its own, in a thread of its own."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="quill-stack-loop") as pool:
        return pool.submit(lambda: asyncio.run(make())).result()
