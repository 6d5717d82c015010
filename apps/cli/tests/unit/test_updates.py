"""``quill updates`` against answers of the API's shape."""

import json

import httpx
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

UPDATE = {
    "organization_id": "org-2",
    "license_id": "lic-eu",
    "due_at": None,
    "sent_at": "2026-10-05T00:41:00+00:00",
    "failed_at": "2026-10-06T00:41:00+00:00",
    "attempts": 0,
    "error": "not as it is",
}


def asked(*arguments: str, status: str, results: list[dict]) -> str:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/subscriptions/v1/billing-updates"
        assert request.url.params["status"] == status
        return httpx.Response(200, json={"results": results})

    app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(answer)))
    result = CliRunner().invoke(
        app, ["updates", "--url", "http://127.0.0.1:9", "--token", "t", *arguments], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_a_failed_update_shows_whose_it_is_and_why():
    shown = asked(status="failed", results=[UPDATE])
    for text in ("org-2", "lic-eu", "not as it is"):
        assert text in shown


def test_machines_get_the_answer_as_it_is_and_people_a_sentence_when_there_is_none():
    assert json.loads(asked("--json", status="failed", results=[UPDATE])) == {"results": [UPDATE]}
    assert "No update is due" in asked("--status", "due", status="due", results=[])
