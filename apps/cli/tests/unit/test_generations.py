"""``quill usage compare`` and ``accept-difference`` against answers of the API's shape."""

import json

import httpx
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

DOCUMENT = {
    "from": "2026-10-01",
    "to": "2026-11-01",
    "summary": [
        {
            "source": "us",
            "days": 20,
            "days_equal": 19,
            "organization_days": 1_000_000,
            "organization_days_agreeing": 999_999,
            "share_agreeing": "0.999999",
            "states": {"equal": 900_000, "equal_zero": 99_999, "different": 1, "only_v1": 0, "only_v2": 0},
            "accepted": 0,
            "v1_retirement": {
                "can_be_retired": False,
                "since": "2026-10-12",
                "equal_days": 8,
                "needed_days": 14,
                "broken_on": "2026-10-11",
                "sentence": "v1 cannot be retired for us yet: 8 of 14 days in a row are equal; 2026-10-11 is different",
            },
        }
    ],
    "results": [
        {
            "organization_id": "acme",
            "day": "2026-10-11",
            "source": "us",
            "state": "different",
            "differing_counters": 7,
            "differences": [{"counter": f"c{n}_in_period", "v1": 1_200 + n, "v2": None} for n in range(7)],
            "v1_report_id": 1,
            "v2_report_id": 2,
            "compared_at": "2026-10-12T04:00:00+00:00",
            "accepted": {"actor": "ada@example.org", "reason": "known bug", "at": "2026-10-13T00:00:00+00:00"},
        }
    ],
    "next_after": "2026-10-11|us|acme",
}


def run(document: object, *arguments: str) -> tuple[str, httpx.Request]:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=document)

    app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(answer)))
    result = CliRunner().invoke(
        app, ["usage", *arguments, "--url", "http://127.0.0.1:9", "--token", "t"], env={"COLUMNS": "220"}
    )
    assert result.exit_code == 0, result.output
    return result.output, asked[0]


def test_people_see_the_share_the_verdict_and_both_numbers():
    shown, request = run(DOCUMENT, "compare", "--from", "2026-10-01", "--state", "different", "--source", "us")
    for text in ("0.999999", "1,000,000", "v1 cannot be retired for us yet", "c0_in_period: 1,200 / -", "2 more"):
        assert text in shown
    assert "ada@example.org: known bug" in shown
    assert "--after '2026-10-11|us|acme'" in shown
    assert request.url.path == "/v1/generations/comparison"
    assert dict(request.url.params) == {
        "from": "2026-10-01",
        "state": "different",
        "source": "us",
        "needed_days": "14",
        "limit": "100",
    }


def test_machines_get_the_answer_as_it_is_and_people_a_sentence_when_nothing_was_compared():
    assert json.loads(run(DOCUMENT, "compare", "--json")[0]) == DOCUMENT
    assert "no source sends both generations" in run({**DOCUMENT, "summary": [], "results": []}, "compare")[0]


def test_a_difference_is_accepted_with_name_and_reason():
    shown, request = run(
        DOCUMENT["results"][0],
        "accept-difference",
        "acme",
        "2026-10-11",
        "us",
        "--actor",
        "ada@example.org",
        "--reason",
        "known bug",
    )
    assert "different accepted by ada@example.org on 2026-10-13 00:00:00Z: known bug" in shown
    assert (request.method, request.url.path) == ("POST", "/v1/generations/comparison/accept")
    assert json.loads(request.content) == {
        "organization_id": "acme",
        "day": "2026-10-11",
        "source": "us",
        "actor": "ada@example.org",
        "reason": "known bug",
    }
