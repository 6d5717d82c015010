"""``/v1/limits/webhooks`` on the memory store: who may, what is refused by field, what is never shown (L18, L20)."""

import hashlib
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from quill_quota_limiter.api import webhooks
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.domain.webhook_delivery import plan
from quill_quota_limiter.gateways.webhook_sender import HttpWebhookSender
from quill_quota_limiter.store.memory import MemoryLimits
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.http import create_app
from quill_runtime.sealing import Sealer

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
PATH = "/v1/limits/webhooks"
OPERATOR = {"Authorization": "Bearer operator-token"}
BY = {"actor": "ada@example.org", "reason": "asked for it"}
ADDRESSES = {"example.org": ["8.8.8.8"], "inside.example": ["10.0.0.1"]}


class FrozenClock:
    def now(self) -> datetime:
        return NOW


async def resolve(host, port):
    if host not in ADDRESSES:
        raise OSError("no such name")
    return ADDRESSES[host]


@pytest.fixture
def store():
    return MemoryLimits()


@pytest.fixture
async def client(store):
    scopes = {"operator-token": "operator", "service-token": "service"}
    entries = [f"{s}:{s}:{hashlib.sha256(token.encode()).hexdigest()}" for token, s in scopes.items()]
    gate = Gate(ApiTokens.parse(",".join(entries)), Keyring(), FrozenClock())
    sender = HttpWebhookSender(allow_http=False, allow_private=False, resolve=resolve)
    routes = webhooks.router(
        store=store, sender=sender, sealer=Sealer.parse("k1:" + "A" * 43), gate=gate, clock=FrozenClock()
    )
    app = create_app(title="test", routers=[routes])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test", headers=OPERATOR
    ) as client:
        yield client


async def add(client, **given):
    answer = await client.post(PATH, json={"url": "https://example.org/quill", **BY, **given})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_secret_is_said_once_and_every_change_is_kept_with_person_and_reason(client):
    added = await add(client, description="theirs", organization_id="acme")
    assert added["secret"].startswith("whsec_")
    path = f"{PATH}/{added['endpoint_id']}"
    rotated = (await client.post(f"{path}/rotate", json={"overlap_hours": 2, **BY})).json()
    assert rotated["secret"] not in ("", added["secret"])
    assert datetime.fromisoformat(rotated["previous_secret_until"]) == NOW + timedelta(hours=2)
    changed = (await client.patch(path, json={"enabled": False, "events": ["limits.threshold"], **BY})).json()
    assert (changed["enabled"], changed["disabled_because"]) == (False, "person")
    shown = await client.get(path)
    assert [(each["type"], each["actor"], each["reason"]) for each in shown.json()["changes"]] == [
        ("webhook_added", BY["actor"], BY["reason"]),
        ("webhook_secret_rotated", BY["actor"], BY["reason"]),
        ("webhook_changed", BY["actor"], BY["reason"]),
    ]
    listed = await client.get(PATH)
    for text in (shown.text, listed.text):
        assert "secret" not in text.replace("previous_secret_until", "").replace("webhook_secret_rotated", "")
        assert "sealed" not in text
    removed = await client.delete(path, params=BY)
    assert removed.json() == {"endpoint_id": added["endpoint_id"], "removed": True}
    assert (await client.get(path)).status_code == 404
    assert (await client.get(PATH)).json() == {"results": [], "pending": 0}


@pytest.mark.parametrize(
    ("body", "attr", "says"),
    [
        ({"url": "http://example.org/"}, "url", "https://"),
        ({"url": "https://inside.example/"}, "url", "private"),
        ({"url": "https://nowhere.example/"}, "url", "leads nowhere"),
        ({"url": "https://me@example.org/"}, "url", "user or password"),
        ({"events": []}, "events", ""),
        ({"events": ["limits.else"]}, "events__0", ""),
        ({"reason": ""}, "reason", ""),
        ({"actor": None}, "actor", ""),
        ({"secret": "mine"}, "secret", ""),
    ],
)
async def test_what_makes_no_endpoint_is_refused_by_field(client, body, attr, says):
    answer = await client.post(PATH, json={"url": "https://example.org/", **BY, **body})
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)
    assert says in answer.json()["detail"]
    assert (await client.get(PATH)).json()["results"] == []


async def test_an_address_is_checked_again_when_it_changes(client):
    path = f"{PATH}/{(await add(client))['endpoint_id']}"
    for body, attr in (
        ({"url": "https://inside.example/"}, "url"),
        ({"url": None}, "url"),
        ({"enabled": None}, "enabled"),
    ):
        answer = await client.patch(path, json={**body, **BY})
        assert (answer.status_code, answer.json()["attr"]) == (400, attr)
    assert (await client.delete(path)).json()["attr"] == "actor"


async def test_failed_deliveries_are_listed_and_sent_again_once(client, store):
    endpoint_id = (await add(client))["endpoint_id"]
    delivery = plan(
        endpoint_id=endpoint_id,
        event="limits.transition",
        fact_id="acme/events/1",
        organization_id="acme",
        body=b'{"type":"limits.transition"}',
        now=NOW,
    )
    async with store.begin() as tx:
        await tx.webhooks.plan([delivery])
        await tx.webhooks.give_up(NOW, endpoint_id=endpoint_id, error="no answer")
    (shown,) = (await client.get(f"{PATH}/deliveries", params={"status": "failed"})).json()["results"]
    assert (shown["delivery_id"], shown["last_error"]) == (delivery.delivery_id, "no answer")
    again = f"{PATH}/deliveries/{delivery.delivery_id}/replay"
    assert (await client.post(again, json=BY)).json()["status"] == "pending"
    assert (await client.post(again, json=BY)).status_code == 409
    assert (await client.post(f"{PATH}/{endpoint_id}/replay", json=BY)).json() == {"results": []}
    assert (await client.get(f"{PATH}/deliveries", params={"status": "failed"})).json() == {"results": []}
    unknown = await client.post(f"{PATH}/deliveries/msg_x/replay", json=BY)
    assert (unknown.status_code, unknown.json()["attr"]) == (404, "delivery_id")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/msg_1/replay"),
        ("GET", "/whe_1"),
        ("PATCH", "/whe_1"),
        ("DELETE", "/whe_1"),
        ("POST", "/whe_1/rotate"),
        ("POST", "/whe_1/replay"),
    ],
)
async def test_nobody_but_an_operator_may(client, method, path):
    body = None if method in ("GET", "DELETE") else {**BY, **({"url": "https://example.org/"} if path == "" else {})}
    for authorization, status in (("Bearer service-token", 403), ("Bearer nobody", 401), ("", 401)):
        answer = await client.request(method, PATH + path, json=body, headers={"Authorization": authorization})
        assert answer.status_code == status
