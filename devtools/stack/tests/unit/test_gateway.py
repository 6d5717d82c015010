import json

import httpx
import pytest
from quill_stack.gateway import Gateway
from quill_stack.routes import PREFIXES, find_service

URLS = {name: f"http://{name}.test" for name in PREFIXES}


async def ask(answer, method: str, path: str, **options) -> httpx.Response:
    gateway = Gateway(URLS, transport=httpx.MockTransport(answer))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://base.test") as client:
        return await client.request(method, path, **options)


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/usage", ("usage-ingest", "/api/usage")),
        ("/api/usage/", ("usage-ingest", "/api/usage/")),
        ("/v1/quota/org/events", ("quota-limiter", "/v1/quota/org/events")),
        ("/api/billing/portal", ("subscriptions", "/api/billing/portal")),
        ("/api/products-v2", ("subscriptions", "/api/products-v2")),
        ("/webhooks/stripe", ("invoicing", "/webhooks/stripe")),
        ("/activation", ("licensing", "/activation")),
        ("/api/v2/billing/usage/status/", ("usage-ingest", "/api/v2/billing/usage/status/")),
        ("/api/v2/billing/usages", ("subscriptions", "/api/v2/billing/usages")),
        ("/usage-ingest/health/ready", ("usage-ingest", "/health/ready")),
        ("/licensing", ("licensing", "/")),
        ("/api/usages", ("subscriptions", "/api/usages")),
        ("/apis", None),
        ("/webhooks/stripe2", None),
        ("/licensing2/x", None),
        ("/", None),
    ],
)
def test_a_path_belongs_to_one_service_or_to_none(path, expected):
    assert find_service(path) == expected


def test_no_prefix_hides_another():
    prefixes = [prefix for owned in PREFIXES.values() for prefix in owned] + [f"/{name}" for name in PREFIXES]
    for prefix in prefixes:
        assert [other for other in prefixes if prefix == other or prefix.startswith(other + "/")] == [prefix]


async def test_method_query_headers_and_body_arrive_and_the_answer_comes_back():
    seen = {}

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.update(url=str(request.url), method=request.method, headers=request.headers, body=await request.aread())
        return httpx.Response(
            409, stream=httpx.ByteStream(b'{"code":"conflict"}'), headers={"x-own": "1", "connection": "close"}
        )

    response = await ask(
        answer,
        "POST",
        "/api/usage/?a=1&b=%2F",
        content=b"body",
        headers={"authorization": "Bearer t", "x-forwarded-for": "liar"},
    )
    assert seen["url"] == "http://usage-ingest.test/api/usage/?a=1&b=%2F"
    assert (seen["method"], seen["body"]) == ("POST", b"body")
    assert seen["headers"]["authorization"] == "Bearer t"
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert seen["headers"].get_list("host") == ["base.test"]
    assert (response.status_code, response.headers["x-own"]) == (409, "1")
    assert "connection" not in response.headers
    assert response.json() == {"code": "conflict"}


async def test_an_encoded_slash_stays_encoded():
    response = await ask(
        lambda request: httpx.Response(200, stream=httpx.ByteStream(request.url.raw_path)), "GET", "/v1/quota/a%2Fb"
    )
    assert response.text == "/v1/quota/a%2Fb"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (httpx.ConnectError, 503, "service_unavailable"),
        (httpx.ReadTimeout, 504, "service_timeout"),
        (httpx.RemoteProtocolError, 502, "bad_gateway"),
    ],
)
async def test_a_service_that_is_down_gives_a_problem_document(failure, status, code):
    def answer(request: httpx.Request) -> httpx.Response:
        raise failure("down", request=request)

    response = await ask(answer, "GET", "/v1/limits")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "code", "detail", "attr"}
    assert problem["detail"].startswith("quota-limiter")


async def test_a_path_nobody_owns_is_not_found():
    response = await ask(unreachable, "GET", "/nowhere")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_the_gateway_itself_is_live_when_every_service_is_down():
    response = await ask(unreachable, "GET", "/health/live")
    assert json.loads(response.content) == {"live": True}
