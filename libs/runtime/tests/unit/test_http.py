"""Bodies, paths and problems, through a whole application without a socket."""

import gzip
from typing import Annotated, Any

import httpx
import pytest
from asyncpg.exceptions import CharacterNotInRepertoireError
from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict
from quill_runtime.http import create_app
from quill_runtime.problems import Problem
from sqlalchemy.exc import DBAPIError

LIMIT = 100_000


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int
    inner: dict[str, int] = {}


@pytest.fixture
async def client():
    routes = APIRouter()

    @routes.post("/items")
    async def take(item: Annotated[Item, Body()]) -> Item:
        return item

    @routes.get("/fails")
    async def fails() -> None:
        raise RuntimeError("a secret inside")

    @routes.get("/away")
    async def away() -> None:
        raise ConnectionError("postgres://user:password@host")

    @routes.get("/refused")
    async def refused() -> None:
        raise Problem(409, "open_invoices_error", "pay first", attr="customer")

    @routes.get("/unstorable")
    async def unstorable() -> None:
        raise DBAPIError("INSERT", {}, CharacterNotInRepertoireError("invalid byte sequence: 0x00"))

    app = create_app(title="test", routers=[routes], body_bytes_max=LIMIT)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


def assert_problem(answer: httpx.Response, status: int, code: str, attr: str | None = None) -> None:
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["code"], document["attr"]) == (status, code, attr), document
    assert set(document) == {"type", "code", "detail", "attr"}


@pytest.mark.parametrize("path", ["/items", "/items/"])
async def test_a_path_works_with_and_without_its_slash_and_never_redirects(client: httpx.AsyncClient, path: str):
    answer = await client.post(path, json={"count": 1})
    assert (answer.status_code, answer.json()["count"]) == (200, 1)


@pytest.mark.parametrize(
    ("body", "code", "attr"),
    [
        (b"{", "not_json", None),
        (b"\xff\xfe", "not_json", None),
        (b"{}", "required", "count"),
        (b'{"count": "x"}', "invalid_input", "count"),
        (b'{"count": 1, "inner": {"a": -1.5}}', "invalid_input", "inner__a"),
        (b'{"count": 1, "other": 2}', "invalid_input", "other"),
    ],
)
async def test_a_wrong_body_is_answered_with_the_field_that_is_wrong(
    client: httpx.AsyncClient, body: bytes, code: str, attr: str | None
):
    answer = await client.post("/items", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400, code, attr)


async def test_a_body_above_the_limit_is_refused_whether_declared_or_streamed(client: httpx.AsyncClient):
    assert_problem(await client.post("/items", content=b"x" * (LIMIT + 1)), 413, "body_too_large")

    async def stream():
        for _ in range(20):
            yield b"x" * (LIMIT // 10)

    assert_problem(await client.post("/items", content=stream()), 413, "body_too_large")


async def test_a_gzip_body_is_read_and_a_bomb_is_not(client: httpx.AsyncClient):
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    good = await client.post("/items", content=gzip.compress(b'{"count": 3}'), headers=headers)
    assert good.json()["count"] == 3
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < LIMIT
    assert_problem(await client.post("/items", content=bomb, headers=headers), 413, "body_too_large")
    broken = gzip.compress(b'{"count": 3}')[:-6]
    assert_problem(await client.post("/items", content=broken, headers=headers), 400, "invalid_encoding")
    assert_problem(await client.post("/items", content=b"plain", headers=headers), 400, "invalid_encoding")
    assert_problem(
        await client.post("/items", content=b"x", headers={"Content-Encoding": "br"}), 415, "unsupported_encoding"
    )


async def test_failures_are_documents_without_a_trace(client: httpx.AsyncClient):
    failed = await client.get("/fails")
    assert_problem(failed, 500, "internal_error")
    assert "secret" not in failed.text
    away = await client.get("/away")
    assert_problem(away, 503, "unavailable")
    assert "password" not in away.text
    assert away.headers["retry-after"] == "2"
    assert_problem(await client.get("/refused"), 409, "open_invoices_error", "customer")
    assert_problem(await client.get("/nowhere"), 404, "not_found")
    assert_problem(await client.get("/items"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/wire/nothing", 501, "not_implemented"),
        ("POST", "/wire", 501, "not_implemented"),
        ("PATCH", "/wire/nothing/", 501, "not_implemented"),
        ("GET", "/wired", 404, "not_found"),
        ("GET", "/wire/gone", 404, "no_such_thing"),
        ("POST", "/wire/gone", 405, "method_not_allowed"),
    ],
)
async def test_an_unknown_route_is_not_404_where_clients_take_that_as_done(
    method: str, path: str, status: int, code: str
):
    """Item 13."""
    routes = APIRouter()

    @routes.get("/wire/gone")
    async def gone() -> None:
        raise Problem(404, "no_such_thing", "it is gone")

    app = create_app(title="test", routers=[routes], never_404_below=["/wire"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert_problem(await client.request(method, path), status, code)


@pytest.mark.parametrize(
    ("address", "attr"),
    [("/items/a%00b", None), ("/refused?customer=a%00b", "customer"), ("/refused?a=1&=%00", None)],
)
async def test_a_nul_in_an_address_is_refused_before_it_reaches_a_database(
    client: httpx.AsyncClient, address: str, attr: str | None
):
    assert_problem(await client.get(address), 400, "invalid_input", attr)


async def test_a_text_that_the_database_cannot_keep_is_the_callers_to_correct(client: httpx.AsyncClient):
    assert_problem(await client.get("/unstorable"), 400, "invalid_input")
