"""``credits``, ``operations`` and ``alerts``: what is asked and what people see (K4, L15)."""

import json

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

BALANCES = {
    "results": [
        {
            "organization_id": "acme",
            "organization_name": "Acme",
            "is_subscribed": False,
            "currency": "usd",
            "balance_minor": 34_300,
            "balance": "343.00",
        }
    ],
    "next_after": "acme:usd",
}
ENTRIES = {
    "results": [
        {
            "entry_id": "i-1:kept",
            "kind": "kept",
            "currency": "usd",
            "amount_minor": 34_300,
            "amount": "343.00",
            "invoice_id": "i-1",
            "recorded_at": "2026-12-02T01:00:00Z",
        }
    ]
}
FAILED = {
    "operation_id": "collect:a/b:1",
    "kind": "collect",
    "subject": "acme",
    "status": "failed",
    "attempts": 12,
    "error": "APIError: request req_1",
}


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


def test_balances_name_the_customer_and_whether_they_left():
    api = Api(BALANCES)
    result = api.run("credits", "list", "--after", "a:usd")
    for expected in ("acme", "343.00", "USD", "no", "--after acme:usd"):
        assert expected in result.stdout
    assert api.asked[0].url.params["after"] == "a:usd"
    assert "Nobody is owed" in Api({"results": [], "next_after": None}).run("credits", "list").stdout
    assert json.loads(api.run("credits", "list", "--json").stdout) == BALANCES


def test_the_entries_of_a_customer_say_what_made_the_balance():
    result = Api(ENTRIES).run("credits", "show", "acme")
    for expected in ("kept", "343.00", "i-1", "2026-12-02 01:00:00Z"):
        assert expected in result.stdout
    assert "No credit was ever kept for acme" in Api({"results": []}).run("credits", "show", "acme").stdout


def test_operations_that_were_given_up_are_listed_and_retried():
    api = Api({"results": [FAILED]})
    result = api.run("operations", "list")
    assert api.asked[0].url.path == "/invoicing/v1/operations"
    assert api.asked[0].url.params["status"] == "failed"
    for expected in ("collect:a/b:1", "acme", "12", "APIError"):
        assert expected in result.stdout
    retried = Api({**FAILED, "status": "planned"})
    assert retried.run("operations", "retry", "collect:a/b:1").exit_code == 0
    assert retried.asked[0].url.raw_path == b"/invoicing/v1/operations/collect%3Aa%2Fb%3A1/retry"


@pytest.mark.parametrize("service", ["licensing", "invoicing"])
def test_operations_are_those_of_the_named_service(service):
    api = Api({"results": []})
    assert "No operation of" in api.run("operations", "list", "--service", service, "--status", "sent").stdout
    assert api.asked[0].url.path == f"/{service}/v1/operations"


def test_a_retry_that_is_refused_says_why():
    api = Api({"type": "x", "code": "not_failed", "detail": "operation x is done", "attr": "operation_id"}, 409)
    result = api.run("operations", "retry", "x")
    assert result.exit_code == 1
    assert "operation x is done" in result.stderr


ALERT = {
    "alert_id": "price_archived:price_1/2",
    "kind": "price_archived",
    "subject": "price_1/2",
    "detail": "the price of events is archived at Stripe",
    "first_seen_at": "2026-11-02T01:00:00Z",
    "last_seen_at": "2026-11-03T01:00:00Z",
    "count": 7,
    "resolved_at": None,
    "resolved_by": None,
    "reason": None,
}


def test_alerts_say_what_happened_how_often_and_are_resolved_by_a_named_person():
    """K18: the operator is told."""
    result = Api({"results": [ALERT]}).run("alerts", "list")
    for expected in ("price_archived:price_1/2", "7", "2026-11-03 01:00:00Z", "archived at Stripe"):
        assert expected in result.stdout
    assert "No alert is open." in Api({"results": []}).run("alerts", "list", "--include-resolved").stdout
    api = Api({**ALERT, "resolved_by": "ada"})
    assert api.run("alerts", "resolve", ALERT["alert_id"]).exit_code == 2, "a person and a reason are required"
    assert "ada" in api.run("alerts", "resolve", ALERT["alert_id"], "--actor", "ada", "--reason", "sold anew").stdout
    (request,) = api.asked
    assert request.url.raw_path == b"/v1/alerts/price_archived%3Aprice_1%2F2/resolve"
    assert json.loads(request.content) == {"actor": "ada", "reason": "sold anew"}
