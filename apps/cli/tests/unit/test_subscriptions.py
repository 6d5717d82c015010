"""``quill subscriptions set-quantities``: what is asked, what people see, what goes wrong (K5)."""

import json

import httpx
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from typer.testing import CliRunner

CUSTOMER = {
    "organization_id": "acme",
    "items": [
        {"product_key": "seats", "quantity": 1_030, "price_id": "seats_2026", "subscribed": True},
        {"product_key": "desks", "quantity": None, "price_id": "desks_2026", "subscribed": False},
        {"product_key": "events", "quantity": None, "price_id": "events_2026", "subscribed": True},
    ],
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
        environment = {"COLUMNS": "160", "QUILL_URL": "https://billing.example", "QUILL_TOKEN": "op"}
        return CliRunner().invoke(app, ["subscriptions", "set-quantities", *arguments], env=environment)


def test_quantities_are_set_and_what_is_held_is_shown():
    api = Api(CUSTOMER)
    result = api.run("acme", "seats=1030", "desks=2")
    assert result.exit_code == 0, result.output
    (asked,) = api.asked
    assert (asked.method, asked.url.path) == ("POST", "/v1/customers/acme/subscription/quantities")
    assert json.loads(asked.content) == {"quantities": {"seats": 1030, "desks": 2}}
    assert "1,030" in result.stdout
    assert "events" not in result.stdout
    assert json.loads(Api(CUSTOMER).run("acme", "seats=1030", "--json").stdout) == CUSTOMER


@pytest.mark.parametrize(
    "quantities",
    [
        (),
        ("seats",),
        ("seats=",),
        ("=3",),
        ("seats=0",),
        ("seats=-1",),
        ("seats=2.5",),
        ("seats=٣",),
        ("seats=1", "seats=2"),
    ],
)
def test_what_is_no_quantity_is_refused_before_anything_is_asked(quantities):
    api = Api(CUSTOMER)
    assert api.run("acme", *quantities).exit_code == 2
    assert api.asked == []


def test_a_refusal_is_shown():
    detail = "the subscription does not include seats"
    result = Api({"code": "not_subscribed", "detail": detail, "attr": "quantities__seats"}, 409).run("acme", "seats=3")
    assert result.exit_code == 1
    assert detail in result.stderr
