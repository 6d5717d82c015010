"""``usage series`` and ``licenses attach``: what is asked, what people see, what goes wrong."""

import json

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

SERIES = {
    "organization_id": "acme",
    "meter": "events",
    "series": {
        "from": "2026-10-01",
        "to": "2026-10-03",
        "interval": "day",
        "by": "team",
        "series": [
            {
                "key": "17",
                "total": 12_000_005,
                "points": [
                    {"start": "2026-10-01", "end": "2026-10-02", "quantity": 12_000_000, "is_partial": False},
                    {"start": "2026-10-02", "end": "2026-10-03", "quantity": 5, "is_partial": True},
                ],
            }
        ],
    },
}
ACCOUNT = {"organization_id": "acme", "license_id": "one", "further_license_ids": ["three", "two"], "revision": 4}


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
        environment = {"COLUMNS": "160", "QUILL_URL": "https://billing.example", "QUILL_TOKEN": "op"}
        return CliRunner().invoke(app, list(arguments), env=environment)


def test_a_series_shows_each_interval_and_team_and_marks_what_is_still_counted():
    api = Api(SERIES)
    result = api.run("usage", "series", "acme", "events", "--from", "2026-10-01", "--by", "team")
    assert result.exit_code == 0, result.output
    assert api.asked[0].url.path == "/v1/usage/acme"
    assert dict(api.asked[0].url.params) == {
        "meter": "events",
        "from": "2026-10-01",
        "interval": "day",
        "by": "team",
    }
    assert "12,000,000" in result.stdout
    assert [line.split("│")[2].strip() for line in result.stdout.splitlines() if "still counting" in line] == ["17"]


def test_a_series_of_the_whole_organization_has_no_column_for_teams():
    whole = {**SERIES, "series": {**SERIES["series"], "by": None}}
    result = Api(whole).run("usage", "series", "acme", "events")
    assert "team" not in result.stdout
    assert json.loads(Api(whole).run("usage", "series", "acme", "events", "--json").stdout) == whole


def test_a_refused_series_says_what_to_do():
    refused = Api({"code": "usage_date_range_too_long", "detail": "from: ask for at most 366 days at a time"}, 400)
    result = refused.run("usage", "series", "acme", "events", "--from", "2020-01-01")
    assert result.exit_code == 1
    assert "at most 366 days" in result.stderr


@pytest.mark.parametrize(
    ("command", "path", "body"),
    [
        ("attach", "/v1/customers/acme/licenses", {"license_id": "two", "reason": "another region"}),
        ("detach", "/v1/customers/acme/licenses/two/detach", {"reason": "another region"}),
    ],
)
def test_a_license_is_attached_and_detached_with_a_reason(command, path, body):
    api = Api(ACCOUNT)
    result = api.run("licenses", command, "acme", "two", "--reason", "another region")
    assert result.exit_code == 0, result.output
    assert (api.asked[0].method, api.asked[0].url.path, json.loads(api.asked[0].content)) == ("POST", path, body)
    assert "three, two" in result.stdout
    assert api.run("licenses", command, "acme", "two").exit_code == 2, "a reason is required"
