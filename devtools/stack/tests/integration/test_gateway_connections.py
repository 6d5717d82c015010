"""A failed request through the gateway leaves the connections behind it good for the next one (K13)."""

import asyncio
import http.client
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from fastapi import APIRouter, Request
from quill_runtime.http import create_app
from quill_runtime.problems import AnswerFailures, Problem
from quill_stack.gateway import Gateway
from starlette.types import ASGIApp
from structlog.testing import capture_logs

pytestmark = [pytest.mark.integration, pytest.mark.enable_socket]

FAILURES = {
    "store-away": (ConnectionError("postgres is away"), 503),
    "bug": (KeyError("unexpected"), 500),
    "refused": (Problem(400, "invalid_input", "no"), 400),
}


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def gateway_port() -> Iterator[int]:
    routes = APIRouter()

    @routes.api_route("/api/billing/{failure}", methods=["GET", "POST"])
    async def fail(failure: str) -> None:
        raise FAILURES[failure][0]

    @routes.api_route("/api/billing", methods=["GET", "POST"])
    async def answer(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    with ExitStack() as stack:
        stack.enter_context(capture_logs())
        service = stack.enter_context(serving(create_app(title="service", routers=[routes])))
        gateway = Gateway({"subscriptions": f"http://127.0.0.1:{service}"})
        yield stack.enter_context(serving(AnswerFailures(gateway)))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("failure", FAILURES)
def test_the_request_after_a_failed_one_is_served(gateway_port: int, failure: str, method: str):
    """K13: the service closed the connection after answering, so the next request through the gateway got 502."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway_port, timeout=10)
    for _ in range(10):
        for path, status in ((f"/api/billing/{failure}", FAILURES[failure][1]), ("/api/billing", 200)):
            connection.request(method, path, b"{}" if method == "POST" else None)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, True)
    connection.close()


def test_a_get_that_announces_a_body_is_served(gateway_port: int):
    """K13: h11 refused to forward a length without its body, and the caller got a failure."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway_port, timeout=10)
    for _ in range(2):
        connection.request("GET", "/api/billing", b'{"a": 1}')
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"bytes":0}')
    connection.close()
