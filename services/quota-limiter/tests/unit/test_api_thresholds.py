"""``/v1/limits/{organization}/thresholds`` on the memory store: who may, what is refused by field (L18, L20)."""

import hashlib
from datetime import UTC, datetime

import httpx
import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.api import thresholds
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.http import create_app

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
PATH = "/v1/limits/acme/thresholds"
OPERATOR = {"Authorization": "Bearer operator-token"}
SERVICE = {"Authorization": "Bearer service-token"}
BY = {"actor": "ada@example.org", "reason": "asked for it"}


class FrozenClock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
async def client(customer_snapshot, usage_snapshot):
    store = MemoryLimits()
    async with store.begin() as tx:
        await take_in_customers([wire.from_wire_customer(customer_snapshot(events=1_000))], tx=tx, now=NOW)
        await take_in_usage([wire.from_wire_usage(usage_snapshot(events=850))], tx=tx, now=NOW)
    scopes = {"operator-token": "operator", "service-token": "service"}
    entries = [f"{s}:{s}:{hashlib.sha256(token.encode()).hexdigest()}" for token, s in scopes.items()]
    gate = Gate(ApiTokens.parse(",".join(entries)), Keyring(), FrozenClock())
    app = create_app(title="test", routers=[thresholds.router(store=store, gate=gate, clock=FrozenClock())])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_the_default_is_shown_with_what_was_told(client):
    assert (await client.get(PATH, headers=SERVICE)).json() == {
        "organization_id": "acme",
        "percents": [50, 80, 100],
        "meters": {},
        "told": {"events": [50, 80]},
        "spend": {},
        "spend_told": {},
    }


async def test_a_setting_of_a_meter_holds_at_once_and_can_be_taken_back(client):
    changed = await client.put(PATH, json={"meter": "events", "percents": [85, 60], **BY}, headers=OPERATOR)
    assert (changed.json()["meters"], changed.json()["told"]) == ({"events": [60, 85]}, {"events": [50, 80, 60, 85]})
    back = await client.put(PATH, json={"meter": "events", "percents": None, **BY}, headers=OPERATOR)
    assert back.json()["meters"] == {}


@pytest.mark.parametrize(
    ("body", "attr"),
    [
        ({"percents": [0]}, "percents__0"),
        ({"percents": [50, 101]}, "percents__1"),
        ({"percents": [0.5]}, "percents__0"),
        ({"percents": list(range(1, 22))}, "percents"),
        ({"percents": [50], "meter": "Events"}, "meter"),
        ({"percents": [50], "reason": ""}, "reason"),
        ({}, "percents"),
    ],
)
async def test_a_setting_without_sense_is_refused_by_field(client, body, attr):
    answer = await client.put(PATH, json={**BY, **body}, headers=OPERATOR)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)


async def test_nobody_but_an_operator_sets_and_an_unknown_organization_is_named(client):
    body = {"percents": [50], **BY}
    assert (await client.put(PATH, json=body, headers=SERVICE)).status_code == 403
    unknown = await client.put("/v1/limits/nobody/thresholds", json=body, headers=OPERATOR)
    assert (unknown.status_code, unknown.json()["attr"]) == (400, "organization_id")
