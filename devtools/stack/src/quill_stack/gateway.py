"""One base address in front of the five services of the embedded stack; compose has a standard proxy in its place.

``python -m quill_stack.gateway`` reads ``HTTP_PORT`` and ``QUILL_SERVICE_URLS`` (service name to base URL, JSON).
Bodies are streamed both ways and never held whole; sizes are each service's own to limit.
"""

import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx
import uvicorn
from quill_runtime.problems import AnswerFailures
from starlette.types import Message, Receive, Scope, Send

from quill_stack.ports import HOST
from quill_stack.routes import find_service

TIMEOUT: Final = httpx.Timeout(connect=2.0, read=60.0, write=60.0, pool=5.0)
CONNECTIONS: Final = httpx.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=5.0)
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
FORWARDING: Final = frozenset({b"host", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"})
WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})

log = logging.getLogger(__name__)


class Gateway:
    """An ASGI application that passes each request to the service that owns its path."""

    def __init__(self, service_urls: Mapping[str, str], *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._urls = {name: url.rstrip("/") for name, url in service_urls.items()}
        # Not from the environment: a proxy configured for the outside must not see loopback traffic.
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT, limits=CONNECTIONS, trust_env=False, follow_redirects=False, transport=transport
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._forward(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._client.aclose()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if path == "/health/live":
            await _answer(send, 200, {"live": True})
            return
        found = find_service(path)
        if found is None or found[0] not in self._urls:
            await _problem(send, 404, "not_found", f"no service answers {path}")
            return
        service, inner = found
        query = scope["query_string"].decode("latin-1")
        request = self._client.build_request(
            scope["method"],
            f"{self._urls[service]}{inner}{'?' + query if query else ''}",
            headers=_forwarded_headers(scope),
            content=None if scope["method"] in WITHOUT_BODY else _body(receive),
        )
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            await _problem(send, 503, "service_unavailable", f"{service} does not answer; try again", retry_after=1)
            return
        except httpx.TimeoutException:
            await _problem(send, 504, "service_timeout", f"{service} took longer than {TIMEOUT.read:g} s")
            return
        except httpx.TransportError as error:
            await _problem(send, 502, "bad_gateway", f"{service} broke off: {type(error).__name__}", retry_after=1)
            return
        try:
            headers = [(name, value) for name, value in response.headers.raw if name.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.TransportError as error:
            # The answer has begun, so it is left incomplete: the server closes the connection and the client notices.
            log.warning("%s broke off its answer to %s: %r", service, path, error)
        finally:
            await response.aclose()


def _forwarded_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    # A method without a body is sent without one, so its length must not be announced either.
    dropped = HOP_BY_HOP | FORWARDING | ({b"content-length"} if scope["method"] in WITHOUT_BODY else frozenset())
    kept = [(n, v) for n, v in scope["headers"] if n.lower() not in dropped]
    host = next((value for name, value in scope["headers"] if name.lower() == b"host"), b"")
    client = scope["client"][0] if scope.get("client") else ""
    return [
        *kept,
        (b"host", host),
        (b"x-forwarded-for", client.encode()),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scope["scheme"].encode()),
    ]


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx.RemoteProtocolError("the client went away in the middle of its request")
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _answer(send: Send, status: int, document: Mapping[str, object], *, retry_after: int | None = None) -> None:
    body = json.dumps(document).encode()
    kind = b"application/json" if status == 200 else b"application/problem+json"  # noqa: PLR2004
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _problem(send: Send, status: int, code: str, detail: str, *, retry_after: int | None = None) -> None:
    """Answer in the shape of every service's errors."""
    kind = "invalid_request" if status < 500 else "server_error"  # noqa: PLR2004 - HTTP's own border
    document = {"type": kind, "code": code, "detail": detail, "attr": None}
    await _answer(send, status, document, retry_after=retry_after)


def main() -> None:
    """Serve until a signal."""
    app = AnswerFailures(Gateway(json.loads(os.environ["QUILL_SERVICE_URLS"])))
    uvicorn.run(app, host=HOST, port=int(os.environ["HTTP_PORT"]), access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
