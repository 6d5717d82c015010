"""SIGKILL for every service, at random moments, until told to stop; the supervisor starts them again."""

import asyncio
import random
from collections import Counter

from quill_stack.components import SERVICES
from quill_stack.system import System

PAUSE_SECONDS = (1.5, 4.0)


class Chaos:
    """Kills one service after another; each gets its turn before any gets a second one."""

    def __init__(self, system: System, *, seed: int) -> None:
        self._system = system
        self._randomness = random.Random(f"chaos:{seed}")
        self._task: asyncio.Task[None] | None = None
        self.kills: Counter[str] = Counter()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="chaos")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            for name in self._randomness.sample(SERVICES, len(SERVICES)):
                await asyncio.sleep(self._randomness.uniform(*PAUSE_SECONDS))
                self._system.kill(name)
                self.kills[name] += 1
