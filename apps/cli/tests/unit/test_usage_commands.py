"""``usage explain``, ``as-of``, ``correct`` and ``backfill`` against answers of the API's shape."""

import gzip
import json

import httpx
import pytest
from quill_cli import usage_backfill
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

TOTALS = {"complete": 120, "partial": 5, "to_date": 125, "maximum": 130}
NOTHING = {"complete": 0, "partial": 0, "to_date": 0, "maximum": 0}
BY = {"correction_id": "c-1", "actor": "ada", "reason": "counted twice", "since": "2026-10-03T00:00:00+00:00"}
EXPLANATION = {
    "organization_id": "org-1",
    "meter": "events",
    "counter": "event_count_in_period",
    "sentence": "125 events from 2026-10-01 to 2026-11-01 (exclusive): 1 window of 1 source (us).",
    "freshness": {"sentence": "From 1 of 1 expected source, complete through 2026-10-02T00:00Z."},
    "cells": [
        {
            "window_start": "2026-10-01T00:00:00+00:00",
            "source": "us",
            "quantity": 125,
            "completeness": "complete",
            "as_of": "2026-10-02T00:00:00+00:00",
            "held_by": 4_711,
            "others": [{"report": 4_712, "quantity": 999, "why_not": "voided", "voided_by": BY}],
        },
        {
            "window_start": "2026-10-02T00:00:00+00:00",
            "source": "us",
            "quantity": None,
            "completeness": None,
            "as_of": None,
            "held_by": None,
            "others": [],
        },
    ],
    "reports": [
        {
            "id": 4_711,
            "intake": "kafka",
            "topic": "usage.reports.v1",
            "partition": 3,
            "offset": 77,
            "received_at": "2026-10-02T00:00:05+00:00",
        }
    ],
    "timeline": [
        {
            "at": "2026-10-02T00:00:05+00:00",
            "kind": "arrived",
            "reports": [4_711],
            "before": NOTHING,
            "after": TOTALS,
            "correction": None,
        },
        {
            "at": "2026-10-03T00:00:00+00:00",
            "kind": "voided",
            "reports": [4_712],
            "before": TOTALS,
            "after": TOTALS,
            "correction": BY,
        },
    ],
    "parked": [
        {"id": 9, "topic": "usage.reports.v1", "offset": 12, "reason_code": "overlapping_window", "detail": "twice"}
    ],
}
CHANGE = {
    "correction_id": "c-1",
    "is_preview": True,
    "is_repeat": False,
    "reverted": None,
    "changes": [
        {
            "period_start": "2026-10-01T00:00:00Z",
            "period_end": "2026-11-01T00:00:00Z",
            "counters": [
                {
                    "counter": "event_count_in_period",
                    "meters": ["events"],
                    "before": {**TOTALS, "to_date": 1_125},
                    "after": TOTALS,
                }
            ],
            "limits": [{"meter": "events", "quota": 1_000, "is_over_before": True, "is_over_after": False}],
            "amounts": [
                {
                    "meter": "events",
                    "currency": "usd",
                    "before_minor": 39_300,
                    "after_minor": 5_005,
                    "becomes": "adjustment",
                }
            ],
        }
    ],
}


class Api:
    """Answers by path, and remembers what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def __call__(self, request):
        self.asked.append(request)
        status, document = self.answer(request)
        return httpx.Response(status, json=document)

    def run(self, *arguments, **options):
        app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(self)))
        environment = {"COLUMNS": "220", "QUILL_URL": "https://billing.example", "QUILL_TOKEN": "op-token"}
        return CliRunner().invoke(app, list(arguments), env=environment, **options)

    @property
    def bodies(self):
        return [json.loads(request.content) for request in self.asked]


def test_an_explanation_shows_the_sentence_the_holders_the_reasons_and_the_way_it_moved():
    """L5."""
    api = Api(lambda _: (200, EXPLANATION))
    result = api.run("usage", "explain", "org-1", "--meter", "events", "--at", "2026-10-05T00:00:00Z")
    assert result.exit_code == 0, result.output
    assert dict(api.asked[0].url.params) == {"meter": "events", "at": "2026-10-05T00:00:00Z"}
    for expected in (
        EXPLANATION["sentence"],
        "kafka 3/77",
        "4711",
        "voided",
        "ada (c-1): counted twice",
        "+125",
        "130",
        "overlapping_window",
    ):
        assert expected in result.stdout


def test_as_of_shows_then_and_now():
    answer = {
        "organization_id": "org-1",
        "at": "2026-10-05T00:00:00+00:00",
        "period_start": "2026-10-01T00:00:00+00:00",
        "period_end": "2026-11-01T00:00:00+00:00",
        "meters": {"events": {**TOTALS, "now": {**TOTALS, "to_date": 2_000}, "moved_since": 1_875}},
    }
    result = Api(lambda _: (200, answer)).run("usage", "as-of", "org-1", "--at", "2026-10-05T00:00:00Z")
    assert result.exit_code == 0, result.output
    for expected in ("events", "125", "2,000", "+1,875"):
        assert expected in result.stdout


CORRECT = ("usage", "correct", "void", "org-1", "4712", "--actor", "ada", "--reason", "counted twice", "--id", "c-1")


def test_a_preview_shows_totals_limits_and_money_and_asks_for_nothing_else():
    """L20."""
    api = Api(lambda _: (200, CHANGE))
    result = api.run(*CORRECT, "--preview")
    assert result.exit_code == 0, result.output
    for expected in ("would change", "1,125", "1,000", "yes", "no", "393.00 usd", "50.05 usd", "an adjustment"):
        assert expected in result.stdout
    assert api.bodies == [
        {
            "kind": "void",
            "report_ids": [4712],
            "actor": "ada",
            "reason": "counted twice",
            "correction_id": "c-1",
            "preview": True,
        }
    ]


def test_a_correction_is_done_only_after_its_preview_was_agreed_to():
    api = Api(lambda request: (200, {**CHANGE, "is_preview": json.loads(request.content)["preview"]}))
    assert api.run(*CORRECT, input="n\n").exit_code == 1
    assert [body["preview"] for body in api.bodies] == [True]
    assert api.run(*CORRECT, input="y\n").exit_code == 0
    assert [body["preview"] for body in api.bodies] == [True, True, False]
    assert len({body["correction_id"] for body in api.bodies}) == 1


@pytest.mark.parametrize("listed", [lambda events: events, lambda events: {"results": events, "next": None}])
def test_voided_events_are_named_by_a_file(tmp_path, listed):
    event = {"source": "gateway", "id": "evt-1", "time": "2026-10-01T05:00:00+00:00"}
    file = tmp_path / "events.json"
    file.write_text(json.dumps(listed([{**event, "data": {"n": 1}}])))
    api = Api(lambda _: (200, CHANGE))
    ran = api.run("usage", "correct", "void-events", "org-1", str(file), "--actor", "ada", "--reason", "r", "--yes")
    assert ran.exit_code == 0, ran.output
    (body,) = api.bodies
    assert (body["kind"], body["events"], body["preview"]) == ("void-events", [event], False)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"results": "all"}', "[{"])
def test_a_file_that_names_no_events_is_refused_before_anything_is_asked(tmp_path, content):
    file = tmp_path / "events.json"
    file.write_text(content)
    api = Api(lambda _: (200, CHANGE))
    ran = api.run("usage", "correct", "void-events", "org-1", str(file), "--actor", "ada", "--reason", "r", "--yes")
    assert ran.exit_code == 2
    assert api.bodies == []


def test_a_replacement_takes_its_windows_from_a_file(tmp_path):
    file = tmp_path / "windows.json"
    file.write_text(json.dumps({"source": "us", "start": "a", "end": "b", "windows": [], "counters": {"events": 1}}))
    api = Api(lambda _: (200, CHANGE))
    ran = api.run("usage", "correct", "replace", "org-1", str(file), "--actor", "ada", "--reason", "r", "--yes")
    assert ran.exit_code == 0, ran.output
    (body,) = api.bodies
    assert (body["kind"], body["source"], body["preview"]) == ("replace", "us", False)


def backfilled(request):
    """An answer per line; a line with "bad" is refused, one with "poison" spoils its whole batch."""
    lines = json.loads(request.content)["reports"]
    if any("poison" in line for line in lines):
        return 400, {"code": "invalid_input", "detail": "cannot be read"}
    return 200, {
        "results": [
            {"outcome": "refused", "code": "invalid_input", "detail": "is bad", "attr": "bad", "changes": {}}
            if "bad" in line
            else {"outcome": "applied", "changes": {"events": {"before": 1, "after": 1 + line["n"]}}}
            for line in lines
        ]
    }


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "us.jsonl.gz"
    content = [{"n": 1}, {"n": 2, "bad": 1}, {"n": 3}, {"n": 4, "poison": 1}, {"n": 5}]
    text = [json.dumps(line) for line in content]
    file.write_bytes(gzip.compress("\n".join([*text, "NaN", ""]).encode()))
    return file


def test_a_backfill_sends_every_good_line_and_writes_down_why_the_others_were_refused(lines):
    """L4."""
    api = Api(backfilled)
    result = api.run("usage", "backfill", str(lines), "--source", "us", "--day", "2026-10-05")
    assert result.exit_code == 1, result.output
    taken = [
        line["n"] for body in api.bodies for line in body["reports"] if not any("poison" in x for x in body["reports"])
    ]
    assert sorted(taken) == [1, 2, 3, 5]
    assert {(body["source"], body["day"], body["dry_run"]) for body in api.bodies} == {("us", "2026-10-05", False)}
    refused = [json.loads(line) for line in lines.with_name("us.jsonl.gz.refused.jsonl").read_text().splitlines()]
    assert sorted((each["line"], each["code"]) for each in refused) == [
        (2, "invalid_input"),
        (4, "refused"),
        (6, "not_json"),
    ]
    assert not lines.with_name("us.jsonl.gz.progress").exists()


def test_a_backfill_that_was_stopped_goes_on_where_it_was_with_the_same_instant(tmp_path, monkeypatch):
    monkeypatch.setattr(usage_backfill, "BATCH_LINES", 2)
    file = tmp_path / "us.jsonl"
    file.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(1, 7)))
    is_away = True

    def answer(request):
        if is_away and json.loads(request.content)["reports"][0]["n"] == 3:
            return 503, {"code": "unavailable", "detail": "away"}
        return backfilled(request)

    api = Api(answer)
    assert api.run("usage", "backfill", str(file)).exit_code == 1
    is_away = False
    assert api.run("usage", "backfill", str(file)).exit_code == 0
    assert [[line["n"] for line in body["reports"]] for body in api.bodies] == [[1, 2], [3, 4], [3, 4], [5, 6]]
    assert len({body["as_of"] for body in api.bodies}) == 1


def test_a_dry_run_says_what_would_move_and_leaves_no_place_to_go_on_from(tmp_path):
    file = tmp_path / "us.jsonl"
    file.write_text('{"n": 7}\n{"n": 8}\n')
    api = Api(backfilled)
    result = api.run("usage", "backfill", str(file), "--dry-run")
    assert result.exit_code == 0, result.output
    assert [body["dry_run"] for body in api.bodies] == [True]
    for expected in ("would be applied", "dry run", "15"):
        assert expected in result.stdout
    assert [each.name for each in tmp_path.iterdir()] == ["us.jsonl"]
