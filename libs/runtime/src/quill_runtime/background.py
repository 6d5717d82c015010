"""A component that is one task: begun by ``start``, cancelled and awaited by ``stop``."""

import asyncio
from abc import ABC, abstractmethod


class BackgroundTask(ABC):
    """Runs ``_run`` until it is stopped. ``_run`` handles its own failures; it is never started again by itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @abstractmethod
    async def _run(self) -> None: ...
