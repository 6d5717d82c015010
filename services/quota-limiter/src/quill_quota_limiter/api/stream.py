"""``GET /v1/limits/stream``: limits as server-sent events, to keep in one's own process instead of asking.

A snapshot, then every change, then heartbeats that say how old the mirror is. ``Last-Event-ID`` resumes: what changed
since is sent, as it is now. Services and operators hear of every organization, a license of its own alone (L18).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.quota import Lookup
from quill_quota_limiter.store.limits_feed import LimitsFeed, LimitsReader

SEND_SECONDS: Final = 20.0
"""A reader whose connection takes nothing for so long is gone, or might as well be."""


def router(feed: LimitsFeed, lookup: Lookup, gate: Gate) -> APIRouter:
    """``/v1/limits/stream``; to be included before the routes that name an organization."""
    routes = APIRouter(tags=["limits"])

    @routes.get(
        "/v1/limits/stream",
        response_class=EventStream,
        status_code=200,
        responses={200: {"content": {"text/event-stream": {}}, "description": "snapshot, changes, heartbeats"}},
    )
    async def stream_limits(
        last_event_id: Annotated[str | None, Header(max_length=200)] = None,
        authorization: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Limits and project tokens of every organization the caller may ask about, as server-sent events."""
        caller = gate.admit(authorization)
        feed.check_room()
        reader = LimitsReader(caller.organization_id, caller.license_id)
        if caller.organization_id is not None:
            reading = await lookup.read([caller.organization_id])
            caller.check_owns(reading.standings.get(caller.organization_id), attr="organization_id")
        return EventStream(reader, feed.follow(reader, last_event_id=last_event_id))

    return routes


class EventStream(Response):
    """Sends pieces as they come, and stops when the reader has gone, is over, or takes nothing any more."""

    media_type = "text/event-stream"

    def __init__(self, reader: LimitsReader, pieces: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._reader = reader
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        leaving = asyncio.create_task(self._until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with contextlib.aclosing(self._pieces):  # type: ignore[type-var]  # it is a generator
                async for piece in self._pieces:
                    async with asyncio.timeout(SEND_SECONDS):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._reader.end()  # nothing can be sent any more; the server hangs up
        finally:
            leaving.cancel()

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._reader.end()
