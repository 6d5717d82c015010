"""``quill runs`` against answers of the API's shape."""

import json

import httpx
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

RUN = {
    "run_id": "r1",
    "source": "eu",
    "date": "2026-10-05",
    "completeness": "complete",
    "state": "failed",
    "chunks_done": 1,
    "chunks": 3,
    "lines_sent": 50_000,
    "organizations": 120_000,
    "attempts": 3,
    "reason": "missing",
    "arrived_at": "2026-10-06T00:41:00+00:00",
}


def asked(*arguments: str, results: list[dict]) -> str:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.url.path, request.url.params["limit"]) == ("/v1/report-runs", "50")
        return httpx.Response(200, json={"results": results})

    app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(answer)))
    result = CliRunner().invoke(
        app, ["runs", "--url", "http://127.0.0.1:9", "--token", "t", *arguments], env={"COLUMNS": "160"}
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_a_failed_run_shows_how_far_it_came_and_why():
    shown = asked(results=[RUN])
    for text in ("r1", "failed", "1 of 3", "50,000", "120,000", "missing"):
        assert text in shown


def test_machines_get_the_answer_as_it_is_and_people_a_sentence_when_there_is_none():
    assert json.loads(asked("--json", results=[RUN])) == {"results": [RUN]}
    assert "No run has arrived" in asked(results=[])
