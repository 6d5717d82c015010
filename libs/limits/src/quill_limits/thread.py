"""The same for a program without an event loop: the follower lives in a thread of its own."""

import asyncio
import threading
from types import TracebackType
from typing import Self

from quill_limits.book import Unknown, Verdict
from quill_limits.follower import LimitsFollower

JOIN_SECONDS = 10.0


class LimitsThread:
    """Answers from any thread: reading a dict needs no lock, and each organization's limits are replaced whole."""

    def __init__(self, base_url: str, *, token: str, unknown: Unknown | None = None) -> None:
        self._base_url = base_url
        self._token = token
        self._unknown = unknown
        self._follower: LimitsFollower | None = None
        self._loop = asyncio.new_event_loop()
        self._stopping: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quill-limits", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(JOIN_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(JOIN_SECONDS)

    def wait_until_loaded(self, *, seconds: float = 30.0) -> None:
        """As `LimitsFollower.wait_until_loaded`."""
        waiting = self._running.wait_until_loaded(seconds=seconds)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result(seconds + 1)

    def is_limited(
        self, usage_key: str, *, organization: str | None = None, token: str | None = None, team: str | None = None
    ) -> bool:
        """As `LimitsFollower.is_limited`."""
        return self._running.is_limited(usage_key, organization=organization, token=token, team=team)

    def check(
        self, usage_key: str, *, organization: str | None = None, token: str | None = None, team: str | None = None
    ) -> Verdict:
        """As `LimitsFollower.check`."""
        return self._running.check(usage_key, organization=organization, token=token, team=team)

    def age_seconds(self) -> float | None:
        """As `LimitsFollower.age_seconds`."""
        return self._running.age_seconds()

    @property
    def _running(self) -> LimitsFollower:
        assert self._follower is not None, "use it in a with block"
        return self._follower

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._follow())
        finally:
            self._loop.close()

    async def _follow(self) -> None:
        self._stopping = asyncio.Event()
        self._follower = LimitsFollower(self._base_url, token=self._token, unknown=self._unknown)
        async with self._follower:
            self._started.set()
            await self._stopping.wait()
