"""One request to another system for everybody who asks at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedQuestion(Generic[T]):
    """Asks once for all callers that wait, and never answers with what was asked before a caller came.

    While a request is under way, new callers share the next one: what happened before they came may be missing in the
    answer to the present one. So any number of callers causes two requests per round trip at most.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._present: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def answer(self) -> T:
        """The answer to a request that is sent after this call.

        A caller that is cancelled or runs into its timeout does not disturb the others.

        Raises:
            Exception: whatever the request raises.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._ask_after(self._present))
            self._next.add_done_callback(_retrieved)
        return await asyncio.shield(self._next)

    async def _ask_after(self, before: asyncio.Task[T] | None) -> T:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._present, self._next = self._next, None
        return await self._ask()


def _retrieved(task: "asyncio.Task[T]") -> None:
    """Mark a failure as seen: every caller may have given up by then."""
    if not task.cancelled():
        task.exception()
