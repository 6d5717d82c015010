"""Each command against answers of the API's shape: what is asked, what people see, what machines get, what goes wrong."""

import base64
import json
from pathlib import Path

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.dead_letters import ServiceName, readable
from quill_cli.gateway import choose_address, client_for, connect_over_http
from quill_contracts.topics import TOPICS
from quill_contracts.usage import MeterUsage
from typer.testing import CliRunner

URL = "https://billing.example"


class Api:
    """Answers by method and path, and remembers what it was asked."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def __call__(self, request):
        self.asked.append(request)
        answer = self.answers.get(
            (request.method, request.url.path), (404, {"code": "not_found", "detail": "nothing here"})
        )
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(request)
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        return httpx.Response(status, content=body) if isinstance(body, bytes) else httpx.Response(status, json=body)

    def run(self, *arguments, url=URL, token="op-token", columns="160"):
        app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(self)))
        environment = {"COLUMNS": columns, "QUILL_URL": url, "QUILL_TOKEN": token}
        return CliRunner().invoke(app, list(arguments), env=environment)


def shown(api, *arguments):
    result = api.run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


USAGE = {
    "organization_id": "org-1",
    "revision": 7,
    "periods": [
        {
            "period_start": "2026-10-01T00:00:00+00:00",
            "period_end": "2026-11-01T00:00:00+00:00",
            "as_of": "2026-10-12T06:30:00+00:00",
            "revision": 7,
            "meters": {"events": MeterUsage(complete=12_000_000, partial=34_000, maximum=12_034_000).model_dump()},
            "freshness": {
                "sentence": "From 2 of 3 expected sources, complete through 2026-10-12T00:00Z; eu is silent."
            },
        }
    ],
}
CELLS = {
    **USAGE,
    "meter": "events",
    "counter": "event_count_in_period",
    "cells": [
        {
            "window_start": "2026-10-11T00:00:00+00:00",
            "window_end": "2026-10-12T00:00:00+00:00",
            "source": "cloud-us",
            "quantity": 991_002,
            "completeness": "complete",
            "as_of": "2026-10-12T00:10:00+00:00",
        }
    ],
    "sources": [{"source": "cloud-us", "complete": 991_002, "partial": 0}],
}


def test_usage_shows_complete_and_counting_days_apart_and_the_maximum():
    """L3, L6."""
    api = Api({("GET", "/v1/usage/org-1"): USAGE})
    text = shown(api, "usage", "show", "org-1")
    for expected in ("2026-10-01 00:00:00Z", "events", "12,000,000", "34,000", "12,034,000", "From 2 of 3"):
        assert expected in text
    assert api.asked[0].headers["Authorization"] == "Bearer op-token"


def test_usage_of_one_meter_shows_what_its_number_is_made_of():
    """L5."""
    api = Api({("GET", "/v1/usage/org-1"): CELLS})
    text = shown(api, "usage", "show", "org-1", "--meter", "events")
    assert api.asked[0].url.params["meter"] == "events"
    for expected in ("cloud-us", "991,002", "complete", "2026-10-11"):
        assert expected in text


def test_nothing_used_yet_is_said_in_a_sentence():
    api = Api({("GET", "/v1/usage/org-1"): {**USAGE, "periods": []}})
    assert "Nothing was reported for org-1 yet." in shown(api, "usage", "show", "org-1")


EXPLANATION = {
    "organization_id": "org-1",
    "usage_key": "events",
    "at": "2026-10-12T12:00:00Z",
    "state": "limited",
    "since": "2026-10-12T06:30:01Z",
    "limited_until": "2026-11-01T00:00:00Z",
    "suspended_until": None,
    "sentence": "1,000,100 events used of 1,000,000: dropped until the period ends.",
    "rule": "over-quota",
    "rule_version": 2,
    "rule_since": "2026-10-12T06:30:01Z",
    "evidence": {"usage": 1_000_100, "quota": 1_000_000, "usage_revision": 7, "billing_limit_usd": None},
    "transition": {
        "organization_id": "org-1",
        "usage_key": "events",
        "sequence": 3,
        "from_state": "near",
        "to_state": "limited",
        "at": "2026-10-12T06:30:01Z",
        "rule": "over-quota",
        "rule_version": 2,
        "sentence": "1,000,100 events used of 1,000,000: dropped until the period ends.",
        "evidence": {"usage": 1_000_100, "quota": 1_000_000, "usage_revision": 7, "billing_limit_usd": None},
    },
}


def test_a_limit_is_explained_with_its_rule_and_every_input():
    """L7."""
    api = Api({("GET", "/v1/limits/org-1/explain"): EXPLANATION})
    text = shown(api, "limits", "explain", "org-1", "events", "--at", "2026-10-12T12:00:00Z")
    assert dict(api.asked[0].url.params) == {"meter": "events", "at": "2026-10-12T12:00:00+00:00"}
    for expected in ("limited", "dropped until", "over-quota, version 2", "usage revision", "1,000,100", "2026-11-01"):
        assert expected in text


@pytest.mark.parametrize("at", ["yesterday", "2026-10-12T12:00:00", "2026-10-12"])
def test_an_instant_without_its_offset_is_a_usage_error_and_nothing_is_asked(at):
    api = Api({})
    result = api.run("limits", "explain", "org-1", "events", "--at", at)
    assert result.exit_code == 2
    assert "2026-10" in result.stderr
    assert api.asked == []


INVOICES = {
    "results": [
        {
            "number": "Q-0001",
            "status": "paid",
            "currency": "usd",
            "period_start": "2026-09-01T00:00:00Z",
            "period_end": "2026-10-01T00:00:00Z",
            "total": "393.00",
            "total_minor": 39300,
            "reconciliation": "equal",
            "lines": [
                {"description": "Events, tier 2", "quantity": 1_000_000, "unit_amount": "0.00005", "amount": "50.00"},
                {
                    "description": "Events, tier 3",
                    "quantity": 10_000_000,
                    "unit_amount": "0.0000343",
                    "amount": "343.00",
                },
            ],
        }
    ]
}


def test_an_invoice_shows_each_line_its_total_and_the_comparison():
    """L11, L16."""
    api = Api({("GET", "/v1/invoices"): INVOICES})
    text = shown(api, "invoices", "show", "org-1")
    assert api.asked[0].url.params["organization_id"] == "org-1"
    for expected in ("Q-0001", "paid", "equal", "10,000,000", "0.0000343", "343.00", "393.00 USD"):
        assert expected in text
    assert "No invoice for org-1 yet" in shown(
        Api({("GET", "/v1/invoices"): {"results": []}}), "invoices", "show", "org-1"
    )


ISSUED = {
    "license_id": "lic_0123456789abcdef",
    "license_key": "lic_0123456789abcdef::" + "s" * 43,
    "type": "scale",
    "status": "active",
    "source": "home",
    "email": "ada@b.example",
    "organization_name": "Hedgehogs",
    "issued_at": "2026-10-01T12:00:00Z",
}


def test_issuing_a_license_shows_the_whole_key_once_even_on_a_narrow_terminal():
    api = Api({("POST", "/v1/licenses"): (201, ISSUED)})
    result = api.run(
        "licenses",
        "issue",
        "--email",
        "ada@b.example",
        "--organization",
        "Hedgehogs",
        "--source",
        "home",
        columns="60",
    )
    assert result.exit_code == 0, result.output
    assert ISSUED["license_key"] in result.stdout
    assert json.loads(api.asked[0].content) == {
        "email": "ada@b.example",
        "organization_name": "Hedgehogs",
        "type": "scale",
        "source": "home",
    }
    assert len(api.asked[0].headers["Idempotency-Key"]) >= 16


def test_a_signup_that_was_not_answered_says_how_to_ask_again_without_making_two():
    """L15."""
    api = Api({("POST", "/v1/licenses"): httpx.ReadTimeout("timed out")})
    result = api.run("licenses", "issue", "--email", "a@b.example", "--organization", "x")
    assert result.exit_code == 1
    assert f"--idempotency-key {api.asked[0].headers['Idempotency-Key']}" in result.stderr


STORY = {
    **{name: value for name, value in ISSUED.items() if name != "license_key"},
    "status": "revoked",
    "organization_id": "org-1",
    "revoked_at": "2026-10-02T12:00:00Z",
    "revocation_reason": "stolen",
    "revision": 3,
    "activations": [
        {"organization_id": "org-1", "organization_name": "Hedgehogs", "first_seen_at": "2026-10-01T13:00:00Z"}
    ],
    "mail": {"status": "sent", "attempts": 2, "error": None},
    "history": [
        {
            "type": "license_issued",
            "actor": "signup",
            "at": "2026-10-01T12:00:00Z",
            "before": None,
            "after": {"type": "scale"},
        },
        {
            "type": "license_revoked",
            "actor": "operator:kim",
            "at": "2026-10-02T12:00:00Z",
            "before": {"status": "active"},
            "after": {"status": "revoked", "reason": "stolen"},
        },
    ],
}


def test_a_license_shows_who_uses_it_and_who_changed_what():
    """L17, L20."""
    text = shown(Api({("GET", "/v1/licenses/lic_1"): STORY}), "licenses", "show", "lic_1")
    for expected in ("revoked", "stolen", "operator:kim", "status: active", "org-1", "sent, attempts: 2"):
        assert expected in text


def test_revoking_needs_a_reason_and_sends_it():
    api = Api({("POST", "/v1/licenses/lic_1/revoke"): STORY})
    assert api.run("licenses", "revoke", "lic_1").exit_code == 2
    assert "stolen" in shown(api, "licenses", "revoke", "lic_1", "--reason", "stolen")
    assert json.loads(api.asked[0].content) == {"reason": "stolen"}


def letter(number, **changed):
    fields = {
        "id": number,
        "topic": "usage.reports.v1",
        "partition": 1,
        "offset": 40 + number,
        "consumer_group": "usage-ingest",
        "reason_code": "unknown_organization",
        "attribute": "organization_id",
        "detail": "organization_id: not known yet",
        "subject": f"org-{number}",
        "parked_at": "2026-10-01T12:00:00+00:00",
        "replayed_at": None,
        "replays": 0,
    }
    return {**fields, **changed}


def page(*letters):
    return {"results": list(letters), "next_after_id": letters[-1]["id"] if letters else None}


def test_dead_letters_of_all_services_are_listed_and_filters_are_passed_on():
    api = Api({("GET", f"/{name}/v1/dead-letters"): page() for name in ServiceName})
    api.answers["GET", "/usage-ingest/v1/dead-letters"] = page(letter(1), letter(2))
    text = shown(api, "dead-letters", "list", "--reason-code", "unknown_organization", "--subject", "org-1")
    assert len(api.asked) == 5
    assert {request.url.params["reason_code"] for request in api.asked} == {"unknown_organization"}
    assert {request.url.params["subject"] for request in api.asked} == {"org-1"}
    for expected in ("usage.reports.v1[1]@41", "unknown_organization", "org-2", "licensing: nothing is parked."):
        assert expected in text
    documents = json.loads(shown(api, "dead-letters", "list", "--json"))
    assert list(documents) == list(ServiceName)
    assert documents["usage-ingest"]["results"][0]["id"] == 1


def test_a_full_page_says_how_to_go_on():
    api = Api({("GET", "/licensing/v1/dead-letters"): page(letter(1), letter(2))})
    text = shown(api, "dead-letters", "list", "--service", "licensing", "--limit", "2")
    assert "quill dead-letters list --service licensing --after-id 2" in text
    assert api.run("dead-letters", "list", "--after-id", "2").exit_code == 2


def test_a_dead_letter_is_shown_with_its_bytes():
    value = base64.b64encode(b'{"organization_id":"org-1"}').decode()
    shown_letter = letter(1, headers={"traceparent": "00-x"}, key_base64=None, value_base64=value)
    text = shown(
        Api({("GET", "/usage-ingest/v1/dead-letters/1"): shown_letter}),
        "dead-letters",
        "show",
        "1",
        "--service",
        "usage-ingest",
    )
    for expected in ('"organization_id": "org-1"', "header traceparent", "usage.reports.v1[1] at offset 41"):
        assert expected in text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (None, "(no value)"),
        (b"", ""),
        (b'{"a":"\xc3\xa9"}', '{\n  "a": "é"\n}'),
        (b"not json\n\xff", "not json\n\\\\xff"),
        (b"\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        (b"[" * 100_000, None),
    ],
)
def test_bytes_of_strangers_are_readable_and_never_control_the_terminal(raw, text):
    said = readable(None if raw is None else base64.b64encode(raw).decode())
    assert all(line.isprintable() for line in said.split("\n"))
    assert len(said) < 21_000
    if text is not None:
        assert said.replace("\\\\", "\\") == text.replace("\\\\", "\\")


def test_names_of_strangers_in_tables_are_neither_markup_nor_control_codes():
    text = shown(
        Api({("GET", "/v1/licenses/lic_1"): {**STORY, "organization_name": "[red]\x1b[31mx"}}),
        "licenses",
        "show",
        "lic_1",
    )
    assert "[red]\\x1b[31mx" in text
    assert "\x1b" not in text


def test_named_letters_are_replayed_and_one_that_fails_holds_up_no_other():
    api = Api({("POST", f"/licensing/v1/dead-letters/{n}/replay"): letter(n, replays=1) for n in (1, 3)})
    result = api.run("dead-letters", "replay", "1", "2", "3", "--service", "licensing", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [sent["id"] for sent in document["results"]] == [1, 3]
    assert [failure["id"] for failure in document["failed"]] == [2]
    assert "may be repeated" in result.stderr


def test_replaying_all_settles_which_ones_first_and_so_comes_to_an_end():
    """A record that is parked again gets a new id; chasing those would never end."""
    parked = {number: letter(number) for number in range(1, 701)}

    def list_page(request):
        after, limit = int(request.url.params["after_id"]), int(request.url.params["limit"])
        return page(*[parked[n] for n in sorted(parked) if n > after][:limit])

    def replay(request):
        number = int(request.url.path.split("/")[-2])
        new = max(parked) + 1
        parked[new] = letter(new)
        return letter(number, replays=1)

    api = Api({("GET", "/licensing/v1/dead-letters"): list_page})
    api.answers.update({("POST", f"/licensing/v1/dead-letters/{n}/replay"): replay for n in range(1, 2_000)})
    text = shown(
        api, "dead-letters", "replay", "--service", "licensing", "--all", "--reason-code", "unknown_organization"
    )
    assert "700 sent again to their topics, 0 failed." in text
    assert sum(request.method == "POST" for request in api.asked) == 700


@pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["1", "--subject", "org-1"], ["0"], ["--reason-code", "x"]])
def test_what_to_replay_must_be_said_clearly(arguments):
    api = Api({})
    assert api.run("dead-letters", "replay", "--service", "licensing", *arguments).exit_code == 2
    assert api.asked == []


def test_topics_need_no_service():
    api = Api({})
    text = shown(api, "topics")
    documents = json.loads(shown(api, "topics", "--json"))
    assert [document["name"] for document in documents] == [topic.name for topic in TOPICS]
    for topic in TOPICS:
        assert topic.name in text
    assert documents[0]["message"] == "UsageReport"
    assert api.asked == []


JSON_COMMANDS = [
    (("usage", "show", "org-1"), ("GET", "/v1/usage/org-1")),
    (("limits", "explain", "org-1", "events"), ("GET", "/v1/limits/org-1/explain")),
    (("invoices", "show", "org-1"), ("GET", "/v1/invoices")),
    (("sources",), ("GET", "/v1/sources")),
    (("sources", "show", "us"), ("GET", "/v1/sources/us")),
    (("closings", "held"), ("GET", "/v1/closings/held")),
    (("closings", "show", "org-1"), ("GET", "/v1/closings")),
    (("licenses", "issue", "--email", "a@b.example", "--organization", "x"), ("POST", "/v1/licenses")),
    (("licenses", "show", "lic_1"), ("GET", "/v1/licenses/lic_1")),
    (("licenses", "revoke", "lic_1", "--reason", "x"), ("POST", "/v1/licenses/lic_1/revoke")),
    (("dead-letters", "list", "--service", "licensing"), ("GET", "/licensing/v1/dead-letters")),
    (("dead-letters", "show", "1", "--service", "licensing"), ("GET", "/licensing/v1/dead-letters/1")),
]


@pytest.mark.parametrize(("arguments", "route"), JSON_COMMANDS, ids=lambda value: " ".join(value[:2]))
def test_machines_get_the_exact_json_of_the_api(arguments, route):
    body = b'{"a" : 1,\n "new field":"\xc3\xa9"}'
    assert shown(Api({route: (200, body)}), *arguments, "--json") == body.decode() + "\n"


@pytest.mark.parametrize(("arguments", "route"), JSON_COMMANDS, ids=lambda value: " ".join(value[:2]))
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"code": "authentication_failed", "detail": "the token is not known"}), "QUILL_TOKEN"),
        ((403, {"code": "permission_denied", "detail": "needs the scope operator"}), "operator's token"),
        ((404, {"code": "not_found", "detail": "no license has the id"}), "check the id"),
        ((429, {"code": "throttled", "detail": "too many signups"}), "wait"),
        ((503, {"code": "unavailable", "detail": "a store is away"}), "try again shortly"),
        ((502, b"<html>bad gateway\x1b[2J</html>"), "logs"),
        ((400, {"code": "invalid_input", "detail": "email: wrong"}), "email: wrong (invalid_input)"),
        ((200, b"not json"), "correct the command"),
        ((200, {"another": "form"}), "--json"),
        ((200, b"[]"), "--json"),
        (httpx.ConnectError("refused"), "billing.example does not answer"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_every_failure_is_a_sentence_with_a_next_step_and_never_a_trace(arguments, route, answer, said):
    result = Api({route: answer}).run(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert "  next: " in result.stderr
    assert said in result.stderr
    assert "\x1b" not in result.stderr


def test_an_id_with_any_characters_stays_one_part_of_the_path():
    api = Api({})
    assert api.run("usage", "show", "../v1/licenses?x=#y").exit_code == 1
    assert api.asked[0].url.raw_path == b"/v1/usage/..%2Fv1%2Flicenses%3Fx%3D%23y"


@pytest.fixture
def stack_folder(tmp_path):
    file = tmp_path / ".local" / "stack" / "env.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"base_url": "http://127.0.0.1:28000", "operator_token": "local-token"}))
    (tmp_path / "apps").mkdir()
    return tmp_path


def test_a_running_stack_is_found_from_any_folder_below_it(stack_folder):
    found = choose_address(None, None, folder=stack_folder / "apps")
    assert (found.url, found.token) == ("http://127.0.0.1:28000", "local-token")
    assert "local-token" not in repr(found)


@pytest.mark.parametrize(
    ("url", "token", "expected"),
    [
        ("https://billing.example/", None, None),
        ("https://billing.example", "mine", "mine"),
        ("http://127.0.0.1:28000/", None, "local-token"),
        (None, "mine", "mine"),
    ],
)
def test_the_token_of_the_local_stack_goes_nowhere_else(stack_folder, url, token, expected):
    assert choose_address(url, token, folder=stack_folder).token == expected


@pytest.mark.parametrize("url", ["ftp://x", "billing.example", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none_is_a_usage_error(url):
    result = Api({}).run("usage", "show", "org-1", url=url)
    assert result.exit_code == 2
    assert "--url" in result.stderr


def test_without_an_address_the_next_step_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = Api({}).run("usage", "show", "org-1", url=None, token=None)
    assert result.exit_code == 2
    assert "QUILL_URL" in result.stderr
    assert "make up" in result.stderr


def test_a_damaged_stack_file_counts_as_none(stack_folder, monkeypatch):
    (stack_folder / ".local" / "stack" / "env.json").write_text("{")
    monkeypatch.chdir(stack_folder)
    assert Api({}).run("usage", "show", "org-1", url=None, token=None).exit_code == 2


def test_the_real_client_waits_for_a_bounded_time_and_uses_no_proxy_to_its_own_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    for url, trusts in [
        ("http://127.0.0.1:28000", False),
        ("http://[::1]:28000", False),
        ("http://billing.example", True),
    ]:
        with connect_over_http(choose_address(url, "t", folder=Path("/"))) as client:
            assert client.timeout.read is not None
            assert client.trust_env is trusts
