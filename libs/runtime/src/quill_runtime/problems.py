"""Errors as JSON documents ``{type, code, detail, attr}``, the shape PostHog's client reads."""

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quill_runtime.database import is_unavailable, is_unstorable_text
from quill_runtime.publisher import PublishFailed

log = structlog.get_logger(__name__)

PATH_SHOWN = 200
_TYPES = {
    400: "validation_error",
    401: "authentication_error",
    403: "permission_error",
    413: "validation_error",
    422: "validation_error",
}


class Problem(Exception):
    """An answer with an error status.

    Args:
        status: 4xx or 5xx. Never 401 or 404 for a mutation refused for a business reason: PostHog's client takes those
            as answered (wire contract 1.2).
        code: stable, for machines.
        detail: for people: what is wrong and what to do.
        attr: the field at fault, nested names joined with two underscores.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, attr: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.attr = attr
        self.headers = headers or {}

    def document(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request")  # noqa: PLR2004
        return {"type": kind, "code": self.code, "detail": self.detail, "attr": self.attr}

    def response(self) -> JSONResponse:
        return JSONResponse(self.document(), self.status, self.headers, media_type="application/problem+json")


def problem_from_validation(errors: list[Any]) -> Problem:
    """The first wrong field, by name, with the number of the others."""
    first = errors[0]
    location = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    if first["type"] in ("json_invalid", "value_error.jsondecode"):
        return Problem(400, "not_json", "the body is not JSON", attr=None)
    code = "required" if first["type"] == "missing" else "invalid_input"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    attr = "__".join(location) or None
    return Problem(400, code, f"{attr or 'body'}: {first['msg']}{more}", attr=attr)


def install(app: FastAPI, *, never_404_below: Sequence[str] = ()) -> None:
    """Answer what a route refuses, and what the framework refuses for it, with a problem document.

    Below the paths of ``never_404_below`` an unknown route answers 501, with or without a token: PostHog's client takes
    404 and 401 as done (wire contract 1.2).

    There is no handler for ``Exception``: Starlette calls it in its outermost layer, answers, and raises the exception
    again, so that the server closes the connection under the next request. `AnswerFailures` does that work.
    """

    @app.exception_handler(Problem)
    async def _problem(_request: Request, problem: Problem) -> JSONResponse:
        return problem.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return problem_from_validation(list(error.errors())).response()

    @app.exception_handler(ValidationError)
    async def _invalid_model(_request: Request, error: ValidationError) -> JSONResponse:
        return problem_from_validation(list(error.errors(include_url=False))).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        path = request.scope["path"]
        if error.status_code == 404 and any(_is_below(path, prefix) for prefix in never_404_below):  # noqa: PLR2004
            detail = f"{request.method} {path[:PATH_SHOWN]} is not implemented by this version"
            return Problem(501, "not_implemented", detail).response()
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "http_error")
        headers = dict(error.headers) if error.headers else None
        return Problem(error.status_code, code, str(error.detail), headers=headers).response()


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


class AnswerFailures:
    """Answers every exception of ``app`` with a problem document, and never raises one.

    A failure is one request's: the connection stays open for the next. If the answer has begun, it cannot be replaced;
    it is left incomplete, and the server closes the connection so that the client notices.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_begun = False

        async def noting_send(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception as error:  # noqa: BLE001 - every failure gets an answer
            response = response_to(error, path=scope["path"])
            if not is_begun:
                await response(scope, receive, send)


def response_to(error: Exception, *, path: str) -> JSONResponse:
    """The answer to a request that failed with ``error``: a problem's own, or one that says no more than it must.

    A store that is away is logged as a warning, an unexpected error once with its trace; both without SQL parameters,
    which the engine hides.
    """
    if isinstance(error, Problem):
        return error.response()
    if is_unavailable(error) or isinstance(error, PublishFailed):
        log.warning("http.unavailable", path=path, error=repr(error))
        return Problem(
            503, "unavailable", "a store is not answering; try again shortly", headers={"Retry-After": "2"}
        ).response()
    if is_unstorable_text(error):
        return Problem(400, "invalid_input", "a text holds a NUL character, which cannot be stored").response()
    log.error("http.failed", path=path, error=repr(error), exc_info=error)
    return Problem(500, "internal_error", "the request failed; it was logged and may be repeated").response()
