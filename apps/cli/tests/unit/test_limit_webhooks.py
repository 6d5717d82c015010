"""``quill limits webhooks`` against answers of the API's shape."""

import json

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

BY = ("--actor", "ada@example.org", "--reason", "case 12")
WHO = {"actor": "ada@example.org", "reason": "case 12"}
ENDPOINT = {
    "endpoint_id": "whe_1",
    "url": "https://example.org/quill",
    "description": "theirs",
    "events": ["limits.transition"],
    "organization_id": None,
    "enabled": False,
    "disabled_because": "gone",
    "failing_since": "2026-10-10T12:00:00Z",
    "previous_secret_until": None,
    "created_at": "2026-10-01T00:00:00Z",
}
CHANGES = [{"type": "webhook_added", "actor": "ada@example.org", "at": "2026-10-01T00:00:00Z", "reason": "case 1"}]
DELIVERY = {
    "delivery_id": "msg_abc",
    "endpoint_id": "whe_1",
    "event": "limits.transition",
    "organization_id": "acme",
    "status": "failed",
    "attempts": 17,
    "due_at": None,
    "last_error": "no answer within 15 seconds",
    "last_status": None,
}


def run(document, *arguments, exit_code=0, **given):
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=document)

    app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(answer)))
    where = ("--url", "http://127.0.0.1:9", "--token", "t")
    result = CliRunner().invoke(app, ["limits", "webhooks", *arguments, *where], env={"COLUMNS": "220"}, **given)
    assert result.exit_code == exit_code, result.output
    return result.output, asked


def test_endpoints_are_listed_with_how_they_are_doing():
    text, (request,) = run({"results": [ENDPOINT], "pending": 1_234}, "list")
    assert (request.method, request.url.path) == ("GET", "/v1/limits/webhooks")
    for expected in ("whe_1", "https://example.org/quill", "1,234", "answered 410", "2026-10-10 12:00:00Z"):
        assert expected in text


def test_no_endpoints_name_the_next_step():
    assert "webhooks add" in run({"results": [], "pending": 0}, "list")[0]


def test_an_endpoint_is_shown_with_its_changes():
    text, _ = run({**ENDPOINT, "changes": CHANGES}, "show", "whe_1")
    for expected in ("theirs", "webhook_added", "ada@example.org", "case 1"):
        assert expected in text


@pytest.mark.parametrize(
    ("flags", "more"),
    [
        ((), {"description": ""}),
        (
            ("--event", "limits.threshold", "--organization", "acme", "--description", "theirs"),
            {"events": ["limits.threshold"], "organization_id": "acme", "description": "theirs"},
        ),
    ],
)
def test_adding_prints_the_secret_alone_on_the_last_line(flags, more):
    text, (request,) = run({**ENDPOINT, "secret": "whsec_x"}, "add", "https://example.org/quill", *flags, *BY)
    assert json.loads(request.content) == {"url": "https://example.org/quill", **WHO, **more}
    assert text.splitlines()[-1] == "whsec_x"


def test_rotating_says_how_long_both_sign():
    text, (request,) = run({**ENDPOINT, "secret": "whsec_y"}, "rotate", "whe_1", "--overlap-hours", "2", *BY)
    assert request.url.path == "/v1/limits/webhooks/whe_1/rotate"
    assert json.loads(request.content) == {"overlap_hours": 2, **WHO}
    assert text.splitlines()[-1] == "whsec_y"


@pytest.mark.parametrize(("command", "enabled"), [("enable", True), ("disable", False)])
def test_switching_names_who_and_why(command, enabled):
    _, (request,) = run(ENDPOINT, command, "whe_1", *BY)
    assert (request.method, json.loads(request.content)) == ("PATCH", {"enabled": enabled, **WHO})


def test_removing_asks_first():
    _, asked = run({}, "remove", "whe_1", *BY, exit_code=1, input="n\n")
    assert asked == []
    text, (request,) = run({"endpoint_id": "whe_1"}, "remove", "whe_1", "--yes", *BY)
    assert (request.method, dict(request.url.params)) == ("DELETE", WHO)
    assert "Removed whe_1" in text


def test_failed_deliveries_are_listed():
    text, (request,) = run({"results": [DELIVERY]}, "deliveries", "--status", "failed", "--endpoint", "whe_1")
    assert dict(request.url.params) == {"status": "failed", "endpoint_id": "whe_1", "limit": "100"}
    for expected in ("msg_abc", "failed", "17", "no answer within 15 seconds"):
        assert expected in text


@pytest.mark.parametrize(
    ("what", "document", "path"),
    [
        ("msg_abc", DELIVERY, "/v1/limits/webhooks/deliveries/msg_abc/replay"),
        ("whe_1", {"results": [DELIVERY]}, "/v1/limits/webhooks/whe_1/replay"),
    ],
)
def test_a_delivery_or_all_of_an_endpoint_is_replayed(what, document, path):
    text, (request,) = run(document, "replay", what, *BY)
    assert (request.url.path, json.loads(request.content)) == (path, WHO)
    assert "msg_abc" in text
    assert json.loads(run(document, "replay", what, *BY, "--json")[0]) == document
