"""Quota checks answered before the application is reached: a framework costs four times what an answer does.

A raw ASGI function. It takes exactly the requests it knows well (performance.md, 2a) and hands on everything else:
other paths and methods, compressed or chunked bodies, a NUL in the address. What it answers, problems included, is byte
for byte what the application would have said; authentication and metrics are the application's.
"""

import time
from typing import Final, get_args

from quill_runtime.http import BODY_BYTES_MAX
from quill_runtime.problems import Problem, response_to
from quill_runtime.tallies import ObservationTally
from quill_runtime.telemetry import HTTP_SECONDS
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.quota import Answered, QuotaDesk, Said
from quill_quota_limiter.ports import AnswerSource

SAID_MAX: Final = 50_000
"""Addresses of single checks whose answers are kept."""
PREFIX: Final = "/v1/quota"
ONE: Final = "/v1/quota/{organization_id}/{usage_key}"
ORGANIZATION: Final = "/v1/quota/{organization_id}"
MANY: Final = "/v1/quota"
PACKED: Final = "/v1/quota/packed"

_BY_SEGMENTS: Final = {4: ORGANIZATION, 5: ONE}
_SECONDS = {
    (method, route): ObservationTally(HTTP_SECONDS.labels(method, route, "200"))
    for method, route in (("GET", ONE), ("GET", ORGANIZATION), ("POST", MANY), ("POST", PACKED))
}
_ONE_SECONDS: Final = _SECONDS["GET", ONE]
_SOURCES: Final = {name: (b"quill-answer-source", name.encode()) for name in get_args(AnswerSource)}
_JSON: Final = (b"content-type", b"application/json")


class QuotaFront:
    """Stands before ``app``."""

    def __init__(self, app: ASGIApp, *, desk: QuotaDesk, gate: Gate) -> None:
        self._app = app
        self._desk = desk
        self._gate = gate
        self._said: dict[str, Said] = {}
        """What was answered at the addresses of single checks, so that the next look is the only one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        said = self._said.get(scope.get("path", ""))
        if said is not None and (scope.get("method") != "GET" or scope["query_string"]):
            said = None
        route = ONE if said is not None else _route(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        try:
            answered = None if said is None else self._desk.repeat(self._gate.admit(_authorization(scope)), said)
            if answered is None:
                answered = await self._answer(route, scope, receive)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a document and never a trace
            response = response_to(error, path=scope["path"])
            HTTP_SECONDS.labels(scope["method"], route, str(response.status_code)).observe(
                time.perf_counter() - started
            )
            await response(scope, receive, send)
            return
        body = answered.body
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    _SOURCES[answered.source],
                    (b"quill-answer-age-ms", b"%d" % answered.age_ms),
                    (b"content-length", b"%d" % len(body)),
                    _JSON,
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})
        seconds = _ONE_SECONDS if said is not None else _SECONDS[scope["method"], route]
        seconds.add(time.perf_counter() - started)

    async def _answer(self, route: str, scope: Scope, receive: Receive) -> Answered:
        authorization = _authorization(scope)
        if scope["method"] == "POST":
            body = await _read_body(receive)
            caller = self._gate.admit(authorization)
            answer = self._desk.answer_packed if route == PACKED else self._desk.answer_many
            return await answer(caller, body)
        caller = self._gate.admit(authorization)
        query = scope["query_string"]
        by, part = "organization", None
        if query:
            named = QueryParams(query)
            by = named.get("by", "organization")
            part = named.get(by) if by in ("team", "scope") else None
        segments = scope["path"].rstrip("/").split("/")
        if route == ONE:
            answered = await self._desk.answer_one(caller, segments[3], segments[4], by=by, part=part)
            if not query:
                self._remember(scope["path"], self._desk.said(segments[3], segments[4]))
            return answered
        return await self._desk.answer_organization(caller, segments[3], by=by, part=part)

    def _remember(self, path: str, said: Said | None) -> None:
        if said is not None:
            if len(self._said) >= SAID_MAX:
                self._said.clear()
            self._said[path] = said


def _route(scope: Scope) -> str | None:
    """Which of our routes this is, or none if it is another's or needs more than we do here."""
    if scope["type"] != "http":
        return None
    path: str = scope["path"]
    if not path.startswith(PREFIX) or "\x00" in path or b"%00" in scope["query_string"]:
        return None
    path = path.rstrip("/")
    if scope["method"] == "GET":
        segments = path.split("/")
        route = _BY_SEGMENTS.get(len(segments))
        return route if route is not None and segments[2] == "quota" and all(segments[3:]) else None
    if scope["method"] == "POST" and path in (MANY, PACKED) and _is_plain(scope):
        return path
    return None


def _authorization(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            header: str = value.decode("latin-1")
            return header
    return None


def _is_plain(scope: Scope) -> bool:
    """Neither compressed nor chunked nor too long: then the length that is declared is the length that comes."""
    declared = None
    for name, value in scope["headers"]:
        if name == b"content-encoding" or name == b"transfer-encoding":  # noqa: PLR1714 - quicker than a tuple
            return False
        if name == b"content-length":
            declared = value
    return declared is not None and declared.isdigit() and int(declared) <= BODY_BYTES_MAX


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        return whole
    chunks: list[bytes] = []
    while True:
        if message["type"] == "http.disconnect":
            raise Problem(400, "incomplete_body", "the body ended before its declared length")
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
