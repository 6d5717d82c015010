"""Ends the process when a consumer is silently stuck; the supervisor starts it anew (reliability A4, F8).

aiokafka does not notice when its own fetch or coordination task has died: reading then waits for ever without an error.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from quill_runtime.consumer import Consumer

EXIT_STUCK = 70
"""``EX_SOFTWARE`` of sysexits: start me again."""
CHECK_SECONDS = 2.0
STUCK_SECONDS = 30.0

log = structlog.get_logger(__name__)


def stuck_reason(consumer: Consumer[Any], *, monotonic_now: float, stuck_seconds: float = STUCK_SECONDS) -> str | None:
    """Why this consumer will never progress again, or None while it may."""
    kafka = consumer.kafka
    if kafka is None:
        return None
    fetcher = getattr(kafka, "_fetcher", None)
    fetch_task = getattr(fetcher, "_fetch_task", None)
    if fetch_task is not None and fetch_task.done():
        return "its fetch task has ended"
    coordinator = getattr(kafka, "_coordinator", None)
    coordination = getattr(coordinator, "_coordination_task", None)
    if coordination is not None and coordination.done():
        return "its coordination task has ended"
    behind = sum(consumer.lag().values())
    if behind > 0 and monotonic_now - consumer.last_progress > stuck_seconds and not consumer.is_pausing:
        return f"{behind} records behind and none handed out for {stuck_seconds:.0f} s"
    return None


class Watchdog:
    """Looks at every consumer every two seconds."""

    name = "watchdog"

    def __init__(self, consumers: Sequence[Consumer[Any]], *, end: Callable[[int], object] = os._exit) -> None:
        self._consumers = consumers
        self._end = end
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for consumer in self._consumers:
                reason = stuck_reason(consumer, monotonic_now=time.monotonic())
                if reason is not None:
                    log.error("watchdog.ending_process", consumer=consumer.name, reason=reason)
                    self._end(EXIT_STUCK)
