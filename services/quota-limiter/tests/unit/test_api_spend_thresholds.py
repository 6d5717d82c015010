"""``/v1/limits/{organization}/thresholds/spend`` on the memory store: who may, what is refused by field (L18, L20)."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.api import spend_thresholds, thresholds
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.http import create_app

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
SHOWN = "/v1/limits/acme/thresholds"
PATH = f"{SHOWN}/spend"
OPERATOR = {"Authorization": "Bearer operator-token"}
SERVICE = {"Authorization": "Bearer service-token"}
BY = {"actor": "ada@example.org", "reason": "asked for it"}


class FrozenClock:
    def now(self) -> datetime:
        return NOW


def usd(*cents: int) -> list[dict[str, object]]:
    return [{"amount_minor": each, "currency": "usd"} for each in cents]


@pytest.fixture
def store():
    return MemoryLimits()


@pytest.fixture
async def client(store, customer_snapshot, usage_snapshot):
    """At a cent each 6,000 events have cost 60 dollars; recordings are flat, what gatherings cost is not known."""
    customer = wire.from_wire_customer(customer_snapshot(events=None, recordings=None, gatherings=None))
    flat = {"model": "flat", "currency": "usd", "amount": "450.00"}
    customer = replace(customer, prices={"events": customer.prices["events"], "recordings": flat})
    async with store.begin() as tx:
        await take_in_customers([customer], tx=tx, now=NOW)
        await take_in_usage([wire.from_wire_usage(usage_snapshot(events=6_000))], tx=tx, now=NOW)
    scopes = {"operator-token": "operator", "service-token": "service"}
    entries = [f"{s}:{s}:{hashlib.sha256(token.encode()).hexdigest()}" for token, s in scopes.items()]
    parts = {"store": store, "gate": Gate(ApiTokens.parse(",".join(entries)), Keyring(), FrozenClock())}
    routers = [each.router(**parts, clock=FrozenClock()) for each in (thresholds, spend_thresholds)]
    app = create_app(title="test", routers=routers)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_an_amount_holds_at_once_is_shown_beside_the_shares_and_can_be_taken_back(client):
    body = {"meter": "events", "amounts_minor": [10_000, 5_000], "currency": "usd", **BY}
    changed = await client.put(PATH, json=body, headers=OPERATOR)
    shown = await client.get(SHOWN, headers=SERVICE)
    assert changed.json() == shown.json()
    assert (shown.json()["spend"], shown.json()["spend_told"]) == (
        {"events": usd(5_000, 10_000)},
        {"events": usd(5_000)},
    )
    assert shown.json()["percents"] == [50, 80, 100]
    back = await client.put(PATH, json={**body, "amounts_minor": []}, headers=OPERATOR)
    assert (back.json()["spend"], back.json()["spend_told"]) == ({}, {"events": usd(5_000)})


async def test_each_change_is_an_event_with_actor_reason_before_and_after(client, store):
    for amounts in ([5_000], [5_000], [7_000], []):
        body = {"meter": "events", "amounts_minor": amounts, **BY}
        assert (await client.put(PATH, json=body, headers=OPERATOR)).status_code == 200
    async with store.begin() as tx:
        events = await tx.recorded("limit-thresholds/acme")
    assert [(event.type, event.actor, event.data["reason"]) for event in events] == [
        ("spend_thresholds_set", "ada@example.org", "asked for it")
    ] * 3
    assert [(event.data["meter"], event.data["before"], event.data["after"]) for event in events] == [
        ("events", [], usd(5_000)),
        ("events", usd(5_000), usd(7_000)),
        ("events", usd(7_000), []),
    ]


@pytest.mark.parametrize(
    ("body", "code", "attr"),
    [
        ({"amounts_minor": [0]}, "invalid_input", "amounts_minor__0"),
        ({"amounts_minor": [50.5]}, "invalid_input", "amounts_minor__0"),
        ({"amounts_minor": ["50"]}, "invalid_input", "amounts_minor__0"),
        ({"amounts_minor": [1, 10**15]}, "invalid_input", "amounts_minor__1"),
        ({"amounts_minor": list(range(1, 22))}, "invalid_input", "amounts_minor"),
        ({"amounts_minor": None}, "invalid_input", "amounts_minor"),
        ({"currency": "dollars"}, "invalid_input", "currency"),
        ({"currency": "eur"}, "currency_mismatch", "currency"),
        ({"meter": None}, "invalid_input", "meter"),
        ({"meter": "nothing"}, "unknown_usage_key", "meter"),
        ({"meter": "recordings"}, "price_is_flat", "meter"),
        ({"meter": "gatherings"}, "price_unknown", "meter"),
        ({"reason": ""}, "invalid_input", "reason"),
    ],
)
async def test_a_setting_without_sense_is_refused_by_field_and_changes_nothing(client, body, code, attr):
    asked = {"meter": "events", "amounts_minor": [5_000], **BY, **body}
    answer = await client.put(PATH, json=asked, headers=OPERATOR)
    assert (answer.status_code, answer.json()["code"], answer.json()["attr"]) == (400, code, attr)
    assert (await client.get(SHOWN, headers=SERVICE)).json()["spend"] == {}


async def test_nobody_but_an_operator_sets_and_an_unknown_organization_is_named(client):
    body = {"meter": "events", "amounts_minor": [5_000], **BY}
    assert (await client.put(PATH, json=body, headers=SERVICE)).status_code == 403
    unknown = await client.put("/v1/limits/nobody/thresholds/spend", json=body, headers=OPERATOR)
    assert (unknown.status_code, unknown.json()["attr"]) == (400, "organization_id")
