"""``/v1/limits/rules`` on the memory store: who may, what is refused by field, the way of a version (L7, L20)."""

import hashlib
from datetime import UTC, datetime

import httpx
import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.api import limit_rules, rule_changes
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.usecases import take_in_customers, take_in_usage, walk_everybody
from quill_quota_limiter.wire.rules import FIRST_RULES
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.http import create_app

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
PATH = "/v1/limits/rules"
OPERATOR = {"Authorization": "Bearer operator-token"}
BY = {"actor": "ada@example.org", "reason": "support case 12"}
BUFFERED = {**FIRST_RULES, "resources": {**FIRST_RULES["resources"], "events": {"buffer": 500}}}


class FrozenClock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def store():
    return MemoryLimits()


@pytest.fixture
async def client(store):
    scopes = {"operator-token": "operator", "service-token": "service"}
    entries = [f"{s}:{s}:{hashlib.sha256(token.encode()).hexdigest()}" for token, s in scopes.items()]
    gate = Gate(ApiTokens.parse(",".join(entries)), Keyring(), FrozenClock())
    routers = [module.router(store=store, gate=gate, clock=FrozenClock()) for module in (limit_rules, rule_changes)]
    app = create_app(title="test", routers=routers)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def add(client, document=BUFFERED):
    return await client.post(PATH, json={"document": document, **BY}, headers=OPERATOR)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("GET", "/1"),
        ("GET", "/events"),
        ("GET", "/1/shadow"),
        ("POST", "/1/shadow"),
        ("POST", "/1/discard"),
        ("POST", "/1/activate"),
    ],
)
async def test_only_operators_see_and_change_rules(client, method, path):
    body = None if method == "GET" else {"document": BUFFERED, **BY} if path == "" else BY
    for headers, status in (({}, 401), ({"Authorization": "Bearer service-token"}, 403)):
        answer = await client.request(method, PATH + path, json=body, headers=headers)
        assert answer.status_code == status


def changed(**parts):
    return {**FIRST_RULES, **parts}


@pytest.mark.parametrize(
    ("document", "attr", "says"),
    [
        ({}, "document__near_percent", "equired"),
        (changed(near_percent=0), "document__near_percent", "greater than or equal to 1"),
        (changed(near_percent="eighty"), "document__near_percent", "valid integer"),
        (changed(buffers={}), "document__buffers", "not permitted"),
        (changed(resources={"Events": {}}), "document__resources__Events__[key]", "pattern"),
        (changed(resources={"events": {"buffer": -1}}), "document__resources__events__buffer", "greater than"),
        (changed(resources={"events": {"buffer": 0.5}}), "document__resources__events__buffer", "integer"),
        (changed(resources={"events": {"bufer": 5}}), "document__resources__events__bufer", "not permitted"),
        (changed(grace_days_by_trust={"0": 1}), "document", "exactly the trust scores 0, 3, 7, 10, 15"),
        (
            changed(grace_days_by_trust={"0": 0, "3": 0, "7": 2, "10": 1, "15": 5}),
            "document",
            "more trust must never give less grace",
        ),
        (
            changed(
                resources={"events": {"is_exempt": True, "grace_days_by_trust": FIRST_RULES["grace_days_by_trust"]}}
            ),
            "document__resources__events",
            "an exempt meter gets no grace by trust",
        ),
    ],
)
async def test_a_table_without_sense_is_refused_by_field(client, document, attr, says):
    answer = await add(client, document)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)
    assert says in answer.json()["detail"]
    assert len((await client.get(PATH, headers=OPERATOR)).json()["results"]) == 1


async def test_a_version_on_its_way_from_added_to_in_force(client, store, customer_snapshot, usage_snapshot):
    async with store.begin() as tx:
        await take_in_customers([wire.from_wire_customer(customer_snapshot(events=1_000))], tx=tx, now=NOW)
        await take_in_usage([wire.from_wire_usage(usage_snapshot(events=1_200))], tx=tx, now=NOW)
    board = MemoryBoard()
    added = (await add(client)).json()
    assert (added["version"], added["status"], added["is_repeat"], added["document"]) == (2, "added", False, BUFFERED)
    assert (await add(client)).json()["is_repeat"]
    early = await client.post(f"{PATH}/2/activate", json=BY, headers=OPERATOR)
    assert (early.status_code, early.json()["code"]) == (409, "rules_conflict")
    started = (await client.post(f"{PATH}/2/shadow", json=BY, headers=OPERATOR)).json()
    assert (started["in_force"], started["shadow"], started["is_settled"]) == (1, 2, False)
    await walk_everybody(store=store, board=board, now=NOW)
    report = (await client.get(f"{PATH}/2/shadow", headers=OPERATOR)).json()
    assert report["sentence"] == "1 limits of 1 organizations would stand otherwise"
    assert report["groups"] == [
        {"usage_key": "events", "state": "limited", "shadow_state": "near", "now": 1, "ever": 1}
    ]
    (difference,) = report["results"]
    assert difference["in_force"]["sentence"].startswith("events limited until 2026-11-01")
    assert difference["shadow"]["sentence"] == "events not limited: 1,200 of 1,000 used, inside the buffer of 500."
    assert difference["evidence"]["quota"] == 1_000
    assert (await client.get(f"{PATH}/1/shadow", headers=OPERATOR)).status_code == 404
    activated = (await client.post(f"{PATH}/2/activate", json=BY, headers=OPERATOR)).json()
    assert (activated["in_force"], activated["shadow"]) == (2, None)
    listed = (await client.get(PATH, headers=OPERATOR)).json()
    assert [(v["version"], v["status"]) for v in listed["results"]] == [(1, "retired"), (2, "in_force")]
    events = (await client.get(f"{PATH}/events", headers=OPERATOR)).json()["results"]
    assert [(e["type"], e["actor"], e["reason"]) for e in events] == [
        (kind, BY["actor"], BY["reason"]) for kind in ("version_added", "shadow_started", "activated")
    ]


async def test_differences_are_paged(client, store, customer_snapshot, usage_snapshot):
    async with store.begin() as tx:
        for name in ("a", "b", "c"):
            await take_in_customers([wire.from_wire_customer(customer_snapshot(name, events=10))], tx=tx, now=NOW)
            await take_in_usage([wire.from_wire_usage(usage_snapshot(name, events=12))], tx=tx, now=NOW)
    await add(client)
    await client.post(f"{PATH}/2/shadow", json=BY, headers=OPERATOR)
    await walk_everybody(store=store, board=MemoryBoard(), now=NOW)
    first = (await client.get(f"{PATH}/2/shadow?limit=2", headers=OPERATOR)).json()
    second = (await client.get(f"{PATH}/2/shadow?limit=2&after={first['next_after']}", headers=OPERATOR)).json()
    assert [d["organization_id"] for page in (first, second) for d in page["results"]] == ["a", "b", "c"]
    assert second["next_after"] is None
    wrong = await client.get(f"{PATH}/2/shadow?after=nonsense", headers=OPERATOR)
    assert (wrong.status_code, wrong.json()["attr"]) == (400, "after")


@pytest.mark.parametrize(("command", "body"), [("shadow", {}), ("discard", {"actor": "", "reason": "x"})])
async def test_a_change_needs_a_person_and_a_reason(client, command, body):
    answer = await client.post(f"{PATH}/1/{command}", json=body, headers=OPERATOR)
    assert (answer.status_code, answer.json()["attr"]) == (400, "actor")


async def test_an_unknown_version_is_named(client):
    answer = await client.get(f"{PATH}/7", headers=OPERATOR)
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no rule version 7; known: 1")
