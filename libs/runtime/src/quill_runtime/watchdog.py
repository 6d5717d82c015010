"""Ends the process when a consumer is silently stuck; the supervisor starts it anew (reliability A4, F8).

aiokafka does not notice when its own fetch or coordination task has died: reading then waits for ever without an error.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from quill_runtime.background import BackgroundTask
from quill_runtime.consumer import Consumer
from quill_runtime.positions import Partition

EXIT_STUCK = 70
"""``EX_SOFTWARE`` of sysexits: start me again."""
CHECK_SECONDS = 2.0
STUCK_SECONDS = 30.0

log = structlog.get_logger(__name__)


def ended_task(consumer: Consumer[Any]) -> str | None:
    """Which task of the client underneath has died, if one has: then nothing will ever be read again."""
    kafka = consumer.kafka
    fetch_task = getattr(getattr(kafka, "_fetcher", None), "_fetch_task", None)
    if fetch_task is not None and fetch_task.done():
        return "its fetch task has ended"
    coordination = getattr(getattr(kafka, "_coordinator", None), "_coordination_task", None)
    if coordination is not None and coordination.done():
        return "its coordination task has ended"
    return None


class ProgressWatch:
    """Notices a consumer that stays behind without moving.

    The time counts from when it was first seen behind at its present position, not from its last batch: a consumer that
    had nothing to do for an hour is not stuck when the next record comes.
    """

    def __init__(self, *, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._stuck_seconds = stuck_seconds
        self._position: dict[Partition, int] | None = None
        self._since = 0.0

    def look(self, consumer: Consumer[Any], *, monotonic_now: float) -> str | None:
        """Why the consumer will not progress again, or None while it may."""
        behind = sum(consumer.lag().values())
        position = consumer.applied_offsets()
        if behind == 0 or consumer.is_pausing or position != self._position:
            self._position = position if behind else None
            self._since = monotonic_now
            return None
        if monotonic_now - self._since > self._stuck_seconds:
            return f"{behind} records behind and none handed out for {self._stuck_seconds:.0f} s"
        return None


class Watchdog(BackgroundTask):
    """Looks at every consumer every two seconds."""

    def __init__(self, consumers: Sequence[Consumer[Any]], *, end: Callable[[int], object] = os._exit) -> None:
        super().__init__("watchdog")
        self._watches = [(consumer, ProgressWatch()) for consumer in consumers]
        self._end = end

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for consumer, watch in self._watches:
                reason = ended_task(consumer) or watch.look(consumer, monotonic_now=time.monotonic())
                if reason is not None:
                    log.error("watchdog.ending_process", consumer=consumer.name, reason=reason)
                    self._end(EXIT_STUCK)
