"""``quill limits rules``, ``history`` and ``what-if`` against answers of the API's shape."""

import json

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

BY = ("--actor", "ada@example.org", "--reason", "case 12")
TABLE = {
    "near_percent": 80,
    "grace_days_by_trust": {"0": 0, "3": 0, "7": 1, "10": 3, "15": 5},
    "resources": {"recordings": {"buffer": 1_000}, "events": {}},
}
VERSION = {
    "version": 2,
    "status": "shadow",
    "created_at": "2026-10-10T12:00:00Z",
    "created_by": "ada@example.org",
    "reason": "case 12",
    "document": TABLE,
}
STANDING = {
    "in_force": 1,
    "shadow": 2,
    "shadow_since": "2026-10-10T12:00:00Z",
    "is_settled": False,
    "walked_to": "org-7",
}
VERDICT = {"state": "limited", "sentence": "events limited until 2026-11-01"}
REPORT = {
    **STANDING,
    "version": 2,
    "sentence": "1 limits of 20,000 organizations would stand otherwise",
    "is_full": False,
    "groups": [{"usage_key": "events", "state": "limited", "shadow_state": "near", "now": 1, "ever": 3}],
    "results": [
        {
            "organization_id": "org-1",
            "usage_key": "events",
            "at": "2026-10-10T12:00:00Z",
            "ended_at": None,
            "in_force": VERDICT,
            "shadow": {"state": "near", "sentence": "events not limited: inside the buffer"},
        }
    ],
    "next_after": "org-1|events|2|3",
}
TRANSITION = {
    "sequence": 2,
    "at": "2026-10-10T12:00:00Z",
    "to_state": "limited",
    "limited_until": "2026-11-01T00:00:00Z",
    "suspended_until": None,
    "sentence": "events limited until 2026-11-01 00:00 UTC",
    "rule": "no_grace",
    "rule_version": 1,
    "evidence": {"usage": 1_200, "quota": None},
}
FORECAST = {
    "organization_id": "org-1",
    "usage_key": "events",
    "scope": "organization",
    "until": "2026-11-01T00:00:00Z",
    "sentence": "events would be limited at 2026-10-21 00:00 UTC, in 10 days, at 50 a day.",
    "assumed": {"quota": None},
    "timeline": [{**TRANSITION, "state": "limited", "usage": 1_000}],
}


def run(document, *arguments, exit_code=0):
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=document)

    app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(answer)))
    result = CliRunner().invoke(
        app, ["limits", *arguments, "--url", "http://127.0.0.1:9", "--token", "t"], env={"COLUMNS": "220"}
    )
    assert result.exit_code == exit_code, result.output
    return result.output, asked


def test_versions_are_listed_with_what_they_do():
    text, (request,) = run({**STANDING, "results": [VERSION]}, "rules", "list")
    assert request.url.path == "/v1/limits/rules"
    for expected in ("shadow", "ada@example.org", "case 12", "still being decided anew"):
        assert expected in text


def test_a_version_is_shown_with_every_number():
    text, _ = run(VERSION, "rules", "show", "2")
    for expected in ("recordings", "1,000", "7: 1, 10: 3, 15: 5", "80 %"):
        assert expected in text


@pytest.mark.parametrize("content", [TABLE, VERSION], ids=["a table", "what rules show --json printed"])
def test_a_file_becomes_a_version(tmp_path, content):
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(content))
    text, (request,) = run({**VERSION, "is_repeat": False}, "rules", "add", str(path), *BY)
    assert json.loads(request.content) == {"document": TABLE, "actor": "ada@example.org", "reason": "case 12"}
    assert "Added as rule version 2" in text


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_file_that_holds_no_table_is_a_usage_error_and_nothing_is_asked(tmp_path, content):
    path = tmp_path / "rules.json"
    path.write_text(content)
    _, asked = run({}, "rules", "add", str(path), *BY, exit_code=2)
    assert asked == []


@pytest.mark.parametrize("name", ["shadow", "discard", "activate"])
def test_a_command_names_person_and_reason(name):
    text, (request,) = run(STANDING, "rules", name, "2", *BY, "--yes")
    assert (request.method, request.url.path) == ("POST", f"/v1/limits/rules/2/{name}")
    assert json.loads(request.content) == {"actor": "ada@example.org", "reason": "case 12"}
    assert "version 2, since 2026-10-10 12:00:00Z" in text


def test_activation_asks_first():
    _, asked = run(STANDING, "rules", "activate", "2", *BY, exit_code=1)
    assert asked == []


def test_a_report_says_whose_limits_would_stand_otherwise():
    text, (request,) = run(REPORT, "rules", "report", "2")
    assert request.url.path == "/v1/limits/rules/2/shadow"
    for expected in ("20,000 organizations", "org-1", "inside the buffer", "--after 'org-1|events|2|3'"):
        assert expected in text


def test_a_history_is_a_timeline():
    document = {"transitions": [TRANSITION], "reason_changes": [], "next_after": 2}
    text, (request,) = run(document, "history", "org-1", "events", "--from", "2026-10-01T00:00:00Z")
    assert request.url.params["from"] == "2026-10-01T00:00:00Z"
    for expected in ("limited", "2026-11-01 00:00:00Z", "1,200", "unlimited", "no_grace v1", "--after 2"):
        assert expected in text


def test_what_if_sends_only_what_is_assumed():
    text, (request,) = run(FORECAST, "what-if", "org-1", "events", "--quota", "none", "--usage-per-day", "50")
    assert json.loads(request.content) == {"meter": "events", "periods": 1, "quota": None, "usage_per_day": 50}
    for expected in ("in 10 days", 'assuming {"quota": null}', "1,000"):
        assert expected in text


def test_what_if_of_a_team_names_it():
    text, (request,) = run({**FORECAST, "scope": "team:12"}, "what-if", "org-1", "events", "--scope", "team:12")
    assert json.loads(request.content) == {"meter": "events", "periods": 1, "scope": "team:12"}
    assert "events of team:12 of org-1 until" in text


def test_a_number_that_is_none_is_a_usage_error():
    _, asked = run({}, "what-if", "org-1", "events", "--quota", "many", exit_code=2)
    assert asked == []


THRESHOLDS = {
    "organization_id": "org-1",
    "percents": [50],
    "meters": {"events": []},
    "told": {"recordings": [50, 80]},
    "spend": {"events": [{"amount_minor": 5_000, "currency": "usd"}, {"amount_minor": 10_050, "currency": "usd"}]},
    "spend_told": {"events": [{"amount_minor": 5_000, "currency": "usd"}]},
}


def test_thresholds_are_shown_by_meter():
    text, _ = run(THRESHOLDS, "thresholds", "show", "org-1")
    for expected in ("nothing", "50, 80", "all others", "50.00 usd, 100.50 usd"):
        assert expected in text


@pytest.mark.parametrize(
    ("given", "percents"), [(("50", "90"), [50, 90]), (("--default",), None), (("--nothing",), [])]
)
def test_thresholds_are_set_by_a_person(given, percents):
    _, (request,) = run(THRESHOLDS, "thresholds", "set", "org-1", *given, "--meter", "events", *BY)
    assert (request.method, request.url.path) == ("PUT", "/v1/limits/org-1/thresholds")
    sent = json.loads(request.content)
    assert sent == {"meter": "events", "percents": percents, "actor": "ada@example.org", "reason": "case 12"}


@pytest.mark.parametrize("given", [(), ("50", "--nothing"), ("101",)])
def test_thresholds_that_are_unclear_are_a_usage_error(given):
    _, asked = run(THRESHOLDS, "thresholds", "set", "org-1", *given, *BY, exit_code=2)
    assert asked == []


@pytest.mark.parametrize(
    ("given", "amounts"),
    [(("50", "100.50"), [5_000, 10_050]), (("500", "--currency", "jpy"), [500]), (("--nothing",), [])],
)
def test_amounts_are_given_as_people_write_them_and_sent_in_minor_units(given, amounts):
    _, (request,) = run(THRESHOLDS, "thresholds", "spend", "org-1", *given, "--meter", "events", *BY)
    assert (request.method, request.url.path) == ("PUT", "/v1/limits/org-1/thresholds/spend")
    sent = json.loads(request.content)
    currency = "jpy" if "jpy" in given else "usd"
    by = {"actor": "ada@example.org", "reason": "case 12"}
    assert sent == {"meter": "events", "amounts_minor": amounts, "currency": currency, **by}


@pytest.mark.parametrize(
    "given", [(), ("50", "--nothing"), ("50.001",), ("0.5", "--currency", "jpy"), ("5", "--currency", "xyz"), ("1e2",)]
)
def test_amounts_that_are_unclear_are_a_usage_error(given):
    _, asked = run(THRESHOLDS, "thresholds", "spend", "org-1", *given, "--meter", "events", *BY, exit_code=2)
    assert asked == []
