"""The HTTP side every service shares: bounded bodies, tolerant paths, problem documents, metrics, traces."""

import time
import zlib
from collections.abc import Sequence
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quill_runtime import problems
from quill_runtime.problems import Problem
from quill_runtime.telemetry import HTTP_SECONDS, trace_context, tracer

BODY_BYTES_MAX = 8 * 1024 * 1024
COMPRESSED_BYTES_MAX = 2 * 1024 * 1024
RATIO_MAX = 100
_INFLATE_STEP = 64 * 1024


def create_app(
    *,
    title: str,
    routers: Sequence[APIRouter],
    body_bytes_max: int = BODY_BYTES_MAX,
    never_404_below: Sequence[str] = (),
) -> FastAPI:
    """A FastAPI application with nothing connected yet. For ``never_404_below`` see `problems.install`."""
    app = FastAPI(title=title, redirect_slashes=False, docs_url=None, redoc_url=None)
    problems.install(app, never_404_below=never_404_below)
    for router in routers:
        app.include_router(router)
    app.add_middleware(BodyLimit, body_bytes_max=body_bytes_max)
    app.add_middleware(problems.AnswerFailures)
    app.add_middleware(Observe)
    app.add_middleware(StorableAddress)
    app.add_middleware(TolerantPath)
    return app


class TolerantPath:
    """Every path with and without its trailing slash, and never a redirect: one turns a write into a read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)


class StorableAddress:
    """Refuses a NUL in path or query: no Postgres text can hold one, so asking for it would fail deep inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            problem = _nul_in_address(scope)
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Observe:
    """Measures each request and continues the caller's trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with tracer.start_as_current_span(f"{scope['method']} {scope['path']}", context=trace_context(headers)):
            try:
                await self._app(scope, receive, observed_send)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                HTTP_SECONDS.labels(scope["method"], route, str(status)).observe(time.perf_counter() - started)


class BodyLimit:
    """Refuses bodies that are too large, before and after decompression (API4).

    A gzip body is inflated here in steps, so a bomb is noticed at the limit and never held whole.
    """

    def __init__(self, app: ASGIApp, *, body_bytes_max: int) -> None:
        self._app = app
        self._max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body, scope = await self._read(scope, receive)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        delivered = False

        async def receive_read() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_read, send)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[bytes, Scope]:
        headers = {name.lower(): value for name, value in scope["headers"]}
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b"gzip", b""):
            raise Problem(415, "unsupported_encoding", "send the body plain or with Content-Encoding: gzip")
        limit = min(COMPRESSED_BYTES_MAX, self._max) if encoding == b"gzip" else self._max
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "incomplete_body", "the body ended before its declared length")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
            more = message.get("more_body", False)
        body = b"".join(chunks)
        if encoding != b"gzip":
            return body, scope
        body = inflate(body, limit=min(self._max, max(len(body), 1024) * RATIO_MAX))
        kept = [(n, v) for n, v in scope["headers"] if n.lower() not in (b"content-encoding", b"content-length")]
        return body, {**scope, "headers": [*kept, (b"content-length", str(len(body)).encode())]}


def inflate(compressed: bytes, *, limit: int) -> bytes:
    """Gzip or zlib to bytes, stopping at ``limit``.

    Raises:
        Problem: 413 above the limit, 400 when the data is not gzip or ends early.
    """
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    chunks: list[bytes] = []
    size = 0
    rest = compressed
    try:
        while rest and not stream.eof:
            chunk = stream.decompress(rest, _INFLATE_STEP)
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
            rest = stream.unconsumed_tail
            if not chunk and not rest:
                break
    except zlib.error as error:
        raise Problem(400, "invalid_encoding", f"the body is not gzip: {error}") from error
    if not stream.eof:
        raise Problem(400, "invalid_encoding", "the gzip body ends early")
    return b"".join(chunks)


def _nul_in_address(scope: Scope) -> Problem | None:
    if "\x00" in scope["path"]:
        return Problem(400, "invalid_input", "the path holds a NUL character")
    if b"%00" not in scope["query_string"]:
        return None
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    name = next((name for name, value in query if name and "\x00" in value), None)
    return Problem(400, "invalid_input", f"{name or 'query'}: holds a NUL character", attr=name)


def _too_large(limit: int) -> Problem:
    return Problem(
        413, "body_too_large", f"the body may have {limit} bytes at most (compressed: {COMPRESSED_BYTES_MAX})"
    )
