"""Cutting a connection without a word: ASGI cannot say it, so the server's open lines are kept by their far end."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OpenLines:
    """The connections open right now, by the address of the client."""

    def __init__(self) -> None:
        self._lines: dict[tuple[Any, ...], asyncio.Transport] = {}

    def cut(self, client: tuple[Any, ...]) -> None:
        """Closes a client's connection at once, dropping what was not sent."""
        line = self._lines.pop(client, None)
        if line is not None:
            line.abort()

    def protocol(self) -> type[HttpToolsProtocol]:
        """Returns uvicorn's protocol, keeping note of each line it opens and loses."""
        lines = self._lines

        class NotedLine(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                lines[tuple(transport.get_extra_info("peername"))] = transport
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                lines.pop(tuple(self.transport.get_extra_info("peername") or ()), None)
                super().connection_lost(exc)

        return NotedLine
