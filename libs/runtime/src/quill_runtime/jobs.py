"""Work that the clock starts."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from quill_runtime.background import BackgroundTask
from quill_runtime.clock import Clock
from quill_runtime.telemetry import JOB_RUNS

FAILURE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class PeriodicJob(BackgroundTask):
    """Runs ``run(now)`` again and again; a failure is logged and the next run comes all the same."""

    def __init__(
        self, *, name: str, every_seconds: float, run: Callable[[datetime], Awaitable[object]], clock: Clock
    ) -> None:
        super().__init__(f"job:{name}")
        self._every_seconds = every_seconds
        self._run_once = run
        self._clock = clock

    async def _run(self) -> None:
        while True:
            wait = self._every_seconds
            try:
                await self._run_once(self._clock.now())
                JOB_RUNS.labels(self.name, "done").inc()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                JOB_RUNS.labels(self.name, "failed").inc()
                log.warning("job.failed", job=self.name, error=repr(error), exc_info=error)
                wait = max(wait, FAILURE_SECONDS)
            await asyncio.sleep(wait)
