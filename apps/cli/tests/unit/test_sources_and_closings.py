"""``sources`` and ``closings``: what is asked, what people see, what goes wrong (L20)."""

import json

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

WAIVER = {
    "waiver_id": "october",
    "through": "2026-11-01T00:00:00+00:00",
    "organization_id": None,
    "actor": "ada@b.example",
    "reason": "the importer lost the day",
    "at": "2026-11-02T10:00:00+00:00",
    "taken_back_by": None,
}
US = {
    "source": "us",
    "revision": 9,
    "state": "silent",
    "is_expected": True,
    "silent_after_hours": 26,
    "heard_at": "2026-10-06T03:45:00+00:00",
    "silent_since": "2026-10-07T05:45:00+00:00",
    "complete_through": "2026-10-06T00:00:00+00:00",
    "complete_later": [{"start": "2026-10-07T00:00:00+00:00", "end": "2026-10-08T00:00:00+00:00"}],
    "parked": 1_204,
    "waiting": [
        {
            "start": None,
            "complete_through": "2026-10-09T00:00:00+00:00",
            "as_of": "2026-10-09T01:00:00+00:00",
            "origin": "usage.watermarks.v1",
            "actor": "source:us",
        }
    ],
    "waivers": [WAIVER, {**WAIVER, "waiver_id": "september", "taken_back_by": "bob"}],
}
HELD = {
    "total": 3,
    "results": [
        {
            "organization_id": "acme",
            "period_start": "2026-10-01T00:00:00Z",
            "period_end": "2026-11-01T00:00:00Z",
            "since": "2026-11-02T00:00:01Z",
            "missing": [
                {"source": "us", "state": "silent", "complete_through": "2026-10-06T00:00:00Z", "heard_at": None},
                {"source": "inst", "state": "reporting", "complete_through": None, "heard_at": None},
            ],
        }
    ],
}
CLOSED = {
    "results": [
        {
            "organization_id": "acme",
            "period_start": "2026-10-01T00:00:00Z",
            "period_end": "2026-11-01T00:00:00Z",
            "closed_at": "2026-11-02T10:00:01Z",
            "usage_revision": 17,
            "invoice_id": "inv_1",
            "waivers": [{**WAIVER, "source": "us"}],
        }
    ]
}
ADA = ("--actor", "ada@b.example", "--reason", "asked the region")
NAMED = {"actor": "ada@b.example", "reason": "asked the region"}


class Api:
    """Answers everything alike and remembers what it was asked."""

    def __init__(self, body, status=200):
        self.body = body
        self.status = status
        self.asked = []

    def __call__(self, request):
        self.asked.append(request)
        return httpx.Response(self.status, json=self.body)

    def run(self, *arguments):
        app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(self)))
        environment = {"COLUMNS": "200", "QUILL_URL": "https://billing.example", "QUILL_TOKEN": "op"}
        return CliRunner().invoke(app, list(arguments), env=environment)


def test_the_list_shows_who_is_silent_how_far_each_is_and_which_waivers_are_in_force():
    result = Api({"results": [US]}).run("sources")
    assert result.exit_code == 0, result.output
    for text in ("silent since 2026-10-07 05:45:00Z", "2026-10-06 00:00:00Z", "1,204", "october", "yes"):
        assert text in result.stdout
    assert "september" not in result.stdout, "it was taken back"
    assert json.loads(Api({"results": [US]}).run("sources", "--json").stdout) == {"results": [US]}
    assert "No source is known" in Api({"results": []}).run("sources").stdout


def test_one_source_shows_its_hole_what_waits_and_all_waivers():
    result = Api(US).run("sources", "show", "us")
    for text in (
        "complete beyond a hole",
        "said, not all entered yet",
        "september",
        "bob",
        "the importer lost the day",
    ):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body"),
    [
        (
            ("expect", "us"),
            "PUT",
            "/v1/sources/us",
            {"is_expected": True, "silent_after_hours": 26, "is_retired": False},
        ),
        (
            ("expect", "us", "--no", "--silent-after", "48"),
            "PUT",
            "/v1/sources/us",
            {"is_expected": False, "silent_after_hours": 48, "is_retired": False},
        ),
        (
            ("expect", "us", "--retired"),
            "PUT",
            "/v1/sources/us",
            {"is_expected": False, "silent_after_hours": 26, "is_retired": True},
        ),
        (
            ("watermark", "us", "2026-11-01"),
            "POST",
            "/v1/sources/us/watermark",
            {"complete_through": "2026-11-01T00:00:00+00:00", "reset": False},
        ),
        (
            ("watermark", "us", "2026-11-01T02:00:00+02:00", "--reset"),
            "POST",
            "/v1/sources/us/watermark",
            {"complete_through": "2026-11-01T00:00:00+00:00", "reset": True},
        ),
        (
            ("waive", "us", "2026-11-01T00:00:00Z", "--id", "october", "--organization", "acme"),
            "POST",
            "/v1/sources/us/waivers",
            {"waiver_id": "october", "through": "2026-11-01T00:00:00+00:00", "organization_id": "acme"},
        ),
        (("take-back", "us", "october"), "POST", "/v1/sources/us/waivers/october/take-back", {}),
    ],
)
def test_every_change_names_a_person_and_a_reason(arguments, method, path, body):
    api = Api(US)
    result = api.run("sources", *arguments, *ADA)
    assert result.exit_code == 0, result.output
    (request,) = api.asked
    assert (request.method, request.url.path, json.loads(request.content)) == (method, path, {**body, **NAMED})
    assert "silent since" in result.stdout
    assert api.run("sources", *arguments, "--actor", "ada").exit_code == 2, "a reason is required"


def test_an_instant_that_is_none_asks_nothing():
    api = Api(US)
    result = api.run("sources", "watermark", "us", "soon", *ADA)
    assert (result.exit_code, api.asked) == (2, [])
    assert "2026-11-01T00:00:00Z" in result.stderr


def test_held_periods_name_what_they_wait_for_and_how_many_more_there_are():
    result = Api(HELD).run("closings", "held")
    for text in ("2 more", "acme", "us", "inst", "silent", "2026-11-02 00:00:01Z"):
        assert text in result.stdout
    assert "No period waits" in Api({"total": 0, "results": []}).run("closings", "held").stdout


def test_closed_periods_say_by_whose_word_they_were_closed():
    result = Api(CLOSED).run("closings", "show", "acme")
    for text in ("inv_1", "us", "ada@b.example: the importer lost the day"):
        assert text in result.stdout
    assert "No period of acme is closed yet." in Api({"results": []}).run("closings", "show", "acme").stdout
