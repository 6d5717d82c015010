"""Follows the stream for as long as it is open, and answers from the copy meanwhile and afterwards."""

import asyncio
import json
import random
import time
from types import TracebackType
from typing import Self

import httpx

from quill_limits.book import LimitsBook, Unknown, Verdict
from quill_limits.events import NotAnEventStream, events_in

PATH = "/v1/limits/stream"
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""Three heartbeats: a stream that is silent for so long is broken, whatever TCP thinks."""
BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
REFUSALS = (401, 403, 404)


class LimitsRefused(RuntimeError):
    """The service answered that this token may not read the stream, or that there is none."""


class LimitsFollower:
    """Keeps a `LimitsBook` equal to the service.

    Args:
        base_url: where quota-limiter answers.
        token: a service's static token, or a license's JWT; a license hears of its own organization alone.
        unknown: what to say of who is not known; by default what the service says.
        transport: httpx's, for tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str,
        unknown: Unknown | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.book = LimitsBook(unknown=unknown)
        self.last_error: Exception | None = None
        self.connections = 0
        """How often a stream was opened."""
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}", "Accept": "text/event-stream"},
            timeout=httpx.Timeout(CONNECT_SECONDS, read=SILENCE_SECONDS),
            transport=transport,
        )
        self._last_event_id: str | None = None
        self._confirmed_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="quill-limits")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def wait_until_loaded(self, *, seconds: float = 30.0) -> None:
        """Return when the first snapshot is complete.

        Raises:
            LimitsRefused: the token is not good for this.
            TimeoutError: not in time; ``last_error`` says what was in the way.
        """
        async with asyncio.timeout(seconds):
            await self._loaded.wait()
        if not self.book.is_loaded and isinstance(self.last_error, LimitsRefused):
            raise self.last_error

    def is_limited(
        self, usage_key: str, *, organization: str | None = None, token: str | None = None, team: str | None = None
    ) -> bool:
        """Whether this organization, this team of it, or the project with this token is limited on this meter now.

        Raises:
            LimitsNotLoaded: before the first snapshot.
        """
        return self.check(usage_key, organization=organization, token=token, team=team).limited

    def check(
        self, usage_key: str, *, organization: str | None = None, token: str | None = None, team: str | None = None
    ) -> Verdict:
        """The same with what it follows from.

        Raises:
            LimitsNotLoaded: before the first snapshot.
        """
        return self.book.check(usage_key, organization=organization, token=token, team=team, at=time.time())

    def age_seconds(self) -> float | None:
        """How long ago this copy was certainly the newest; ``None`` before the first snapshot."""
        return None if self._confirmed_at is None else max(0.0, time.monotonic() - self._confirmed_at)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._follow()
                failures = 0
            except LimitsRefused as error:
                self.last_error = error
                self._loaded.set()
                failures += 1
            except (httpx.HTTPError, NotAnEventStream, ValueError, KeyError, TypeError) as error:
                # A stream that cannot be read is a broken one; what is known stays.
                self.last_error = error
                failures += 1
            self.book.interrupt()
            pause = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads readers, hides nothing

    async def _follow(self) -> None:
        headers = {} if self._last_event_id is None else {"Last-Event-ID": self._last_event_id}
        async with self._client.stream("GET", PATH, headers=headers) as response:
            if response.status_code in REFUSALS:
                text = (await response.aread()).decode(errors="replace")[:300]
                raise LimitsRefused(f"{response.status_code}: {text}")
            response.raise_for_status()
            self.connections += 1
            is_complete = False
            async for event in events_in(response.aiter_bytes()):
                content = json.loads(event.text)
                self.book.take(event.kind, content)
                is_complete |= event.kind == "complete"
                if not is_complete:
                    continue
                if event.event_id is not None:
                    self._last_event_id = event.event_id
                behind = content.get("age_ms", 0) / 1e3
                self._confirmed_at = max(self._confirmed_at or 0.0, time.monotonic() - behind)
                if not self._loaded.is_set() or event.kind == "complete":
                    self.last_error = None
                    self._loaded.set()
