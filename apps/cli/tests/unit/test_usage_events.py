"""``usage events`` and event meters in the other views: what is asked, what people see."""

import httpx
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

EDGE = {"id": "call-1", "source": "gateway", "time": "2026-10-05T12:30:00+00:00"}
HOUR = {
    "window_start": "2026-10-05T12:00:00+00:00",
    "window_end": "2026-10-05T13:00:00+00:00",
    "quantity": 14_000,
    "events": 3,
    "first": EDGE,
    "last": {**EDGE, "id": "call-3"},
    "groups": [
        {"dimensions": {"model": None}, "quantity": 8_000, "events": 1, "first": EDGE, "last": EDGE},
        {"dimensions": {"model": "large"}, "quantity": 6_000, "events": 2, "first": EDGE, "last": EDGE},
    ],
}
METER = {"meter": "compute", "event_type": "call", "aggregation": "sum", "windows": [HOUR]}
EVENTS = {
    "results": [
        {
            "id": "call-1",
            "source": "gateway",
            "type": "call",
            "organization_id": "acme",
            "time": "2026-10-05T12:30:00+00:00",
            "data": {"seconds": "12.375", "model": "large"},
            "received_at": "2026-10-05T12:30:01+00:00",
            "intake": "http",
            "topic": None,
            "partition": None,
            "offset": None,
        }
    ],
    "next": "abc",
}


class Api:
    """Answers everything alike and remembers what it was asked."""

    def __init__(self, body):
        self.body = body
        self.asked = []

    def __call__(self, request):
        self.asked.append(request)
        return httpx.Response(200, json=self.body)

    def run(self, *arguments):
        app = build_app(lambda address: client_for(address, transport=httpx.MockTransport(self)))
        environment = {"COLUMNS": "200", "QUILL_URL": "https://billing.example", "QUILL_TOKEN": "op"}
        result = CliRunner().invoke(app, list(arguments), env=environment)
        assert result.exit_code == 0, result.output
        return result.output


def test_events_are_listed_with_their_exact_data_and_where_to_go_on():
    api = Api(EVENTS)
    output = api.run("usage", "events", "acme", "--type", "call", "--limit", "1")
    assert api.asked[0].url.path == "/v1/meter-events"
    assert dict(api.asked[0].url.params) == {"organization_id": "acme", "type": "call", "limit": "1"}
    assert "seconds=12.375, model=large" in output
    assert "--after abc" in output
    assert "No event was kept" in Api({"results": [], "next": None}).run("usage", "events", "acme")


def test_an_explanation_shows_hours_groups_and_the_events_at_their_edges():
    document = {**METER, "sentence": "14,000 compute: the sum of seconds of 3 call events.", "parked": []}
    output = Api(document).run("usage", "explain", "acme", "--meter", "compute")
    assert "14,000 compute: the sum of seconds" in output
    lines = [line for line in output.splitlines() if "gateway" in line]
    assert [part in lines[0] for part in ("14,000", "call-1", "call-3")] == [True] * 3
    assert "model=none" in lines[1]
    assert "model=large" in lines[2]


def test_usage_of_an_event_meter_shows_its_hours():
    output = Api({"organization_id": "acme", "periods": [], **METER}).run("usage", "show", "acme", "--meter", "compute")
    assert "What compute is made of (call, sum)" in output
    assert "14,000" in output


def test_a_series_may_be_asked_for_by_a_dimension():
    series = {"from": "2026-10-01", "to": "2026-10-02", "interval": "day", "by": "model", "series": []}
    api = Api({"organization_id": "acme", "meter": "compute", "series": series})
    api.run("usage", "series", "acme", "compute", "--by", "model")
    assert api.asked[0].url.params["by"] == "model"
