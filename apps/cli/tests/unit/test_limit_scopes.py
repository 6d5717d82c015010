"""``quill limits scopes`` against a stand-in for the service: what is sent and what is printed."""

import json

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

SHOWN = {
    "organization_id": "org-1",
    "revision": 3,
    "scopes": [
        {"id": "project:web", "kind": "project", "teams": ["7", "8"], "limits": {"events": {"units": 100}}},
        {"id": "team:7", "kind": "team", "teams": ["7"], "limits": {"events": {"money": {"amount_minor": 500}}}},
    ],
    "each_team": {"recordings": {"units": 5}},
    "states": {
        "project:web": {
            "events": {"state": "limited", "usage": 1_234, "quota": 100, "limited_until": "2026-11-01T00:00:00Z"}
        },
        "team:7": {"events": {"state": "within", "usage": 4, "quota": None, "limited_until": None}},
    },
}
BY = ("--actor", "ada@example.org", "--reason", "case 12")


def run(*arguments, exit_code=0):
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=SHOWN)

    app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(answer)))
    arguments = ["limits", "scopes", *map(str, arguments), "--url", "http://127.0.0.1:9", "--token", "t"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "220"})
    assert result.exit_code == exit_code, result.output
    return result.output, asked


def test_each_limit_is_shown_with_where_it_stands():
    text, (request,) = run("show", "org-1")
    assert request.url.path == "/v1/limits/org-1/scopes"
    for expected in ("revision 3", "project:web", "7, 8", "limited", "1,234", "2026-11-01 00:00:00Z", "team:7", "none"):
        assert expected in text


def test_what_show_prints_can_be_edited_and_set(tmp_path):
    file = tmp_path / "scopes.json"
    file.write_text(run("show", "org-1", "--json")[0])
    _, (request,) = run("set", "org-1", file, *BY)
    assert (request.method, request.url.path) == ("PUT", "/v1/limits/org-1/scopes")
    settings = {name: SHOWN[name] for name in ("revision", "scopes", "each_team")}
    assert json.loads(request.content) == {**settings, "actor": "ada@example.org", "reason": "case 12"}


@pytest.mark.parametrize("content", ["{", "[]", '{"organization_id": "org-2"}'])
def test_a_file_that_holds_something_else_is_refused_before_anything_is_sent(tmp_path, content):
    file = tmp_path / "scopes.json"
    file.write_text(content)
    assert run("set", "org-1", file, *BY, exit_code=2)[1] == []
