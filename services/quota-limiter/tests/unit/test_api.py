"""The HTTP surface on the memory store: who may ask, what is refused, and what survives a board that is away."""

import hashlib
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.api import dropped, limit_rules, limits, quota, rule_changes, what_if
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.front import QuotaFront
from quill_quota_limiter.store.drop_reports import MemoryDropReports
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.standing_lookup import StandingLookup
from quill_quota_limiter.usecases import publish_answers, rebuild_answers, take_in_customers, take_in_usage
from quill_runtime.auth import ApiTokens, Key, Keyring
from quill_runtime.http import create_app

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
SECRET = b"s" * 32
OPERATOR = {"Authorization": "Bearer operator-token"}
SERVICE = {"Authorization": "Bearer service-token"}


class FrozenClock:
    def now(self) -> datetime:
        return NOW


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def signed(organization_id: object, *, license_id: str = "license-1", secret: bytes = SECRET, **claims):
    given = {
        "id": license_id,
        "organization_id": organization_id,
        "aud": "posthog:license-key",
        "exp": int((NOW + timedelta(minutes=15)).timestamp()),
    } | claims
    return {"Authorization": f"Bearer {jwt.encode(given, secret, algorithm='HS256')}"}


@pytest.fixture
def board():
    return MemoryBoard()


@pytest.fixture(params=["application", "front"])
async def client(request, board, customer_snapshot, usage_snapshot):
    """Two organizations of one cloud license and one of another: acme is limited on events."""
    store, clock, keyring = MemoryLimits(), FrozenClock(), Keyring()
    snapshots = [
        customer_snapshot("acme", events=1_000, recordings=5),
        customer_snapshot("beta", events=1_000, tokens=("phc_b",)),
        customer_snapshot("solo", events=1_000, tokens=("phc_s",), license_id="license-2"),
    ]
    async with store.begin() as tx:
        await take_in_customers([wire.from_wire_customer(s) for s in snapshots], tx=tx, now=NOW)
        await take_in_usage([wire.from_wire_usage(usage_snapshot(events=1_200))], tx=tx, now=NOW)
    await rebuild_answers(store=store, board=board)
    await publish_answers(["acme", "beta", "solo"], store=store, board=board)
    for license_id in ("license-1", "license-2"):
        keyring.put(Key(license_id, SECRET, revoked=False), revision=1)
    tokens = ApiTokens.parse(f"ops:operator:{hashed('operator-token')},edge:service:{hashed('service-token')}")
    gate = Gate(tokens, keyring, clock)
    lookup = StandingLookup(Mirror(organizations_max=10), board, store, stale_seconds=5.0)
    drops = MemoryDropReports()
    desk = quota.QuotaDesk(lookup, clock, "allow")
    app = create_app(
        title="test",
        routers=[
            quota.router(desk, gate),
            limit_rules.router(store=store, gate=gate, clock=clock),
            rule_changes.router(store=store, gate=gate, clock=clock),
            dropped.router(store=store, drops=drops, gate=gate, clock=clock),
            limits.router(store=store, board=board, drops=drops, gate=gate, clock=clock),
            what_if.router(store=store, gate=gate, clock=clock),
        ],
    )
    entrance = {"application": app, "front": QuotaFront(app, desk=desk, gate=gate)}[request.param]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(entrance), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/quota/acme/events", "/v1/quota/acme/events/"])
async def test_one_check_is_answered_with_and_without_the_slash(client, path):
    answer = await client.get(path, headers=SERVICE)
    assert answer.status_code == 200
    assert answer.json() == {
        "organization_id": "acme",
        "usage_key": "events",
        "allowed": False,
        "state": "limited",
        "usage": 1_200,
        "quota": 1_000,
        "limited_until": "2026-11-01T00:00:00Z",
        "suspended_until": None,
        "revision": 2,
        "known": True,
    }


async def test_answers_are_the_same_while_the_board_is_away_or_empty(client, board):
    usual = (await client.get("/v1/quota/acme/events", headers=SERVICE)).json()
    board.is_away = True
    assert (await client.get("/v1/quota/acme/events", headers=SERVICE)).json() == usual
    board.is_away = False
    board.empty()
    assert (await client.get("/v1/quota/acme/events", headers=SERVICE)).json() == usual


async def test_an_unknown_organization_is_answered_by_policy_and_says_so(client):
    answer = (await client.get("/v1/quota/nobody/events", headers=SERVICE)).json()
    assert (answer["allowed"], answer["known"], answer["state"]) == (True, False, None)


async def test_a_meter_that_a_known_organization_does_not_have_is_named(client):
    answer = await client.get("/v1/quota/acme/evnets", headers=SERVICE)
    assert answer.status_code == 404
    assert answer.json()["attr"] == "usage_key"
    assert "events, recordings" in answer.json()["detail"]


async def test_many_checks_are_answered_in_their_order(client):
    pairs = [("beta", "events"), ("acme", "events"), ("acme", "recordings"), ("nobody", "events"), ("acme", "evnets")]
    body = {"checks": [{"organization_id": o, "usage_key": k} for o, k in pairs]}
    answers = (await client.post("/v1/quota", json=body, headers=SERVICE)).json()["answers"]
    assert [(a["organization_id"], a["usage_key"]) for a in answers] == pairs
    assert [(a["allowed"], a["known"]) for a in answers] == [
        (True, True),
        (False, True),
        (True, True),
        (True, False),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("body", "code", "attr"),
    [
        (b"{", "not_json", None),
        (b"{}", "invalid_input", "checks"),
        (b'{"checks": [{"organization_id": "a", "usage_key": 3}]}', "invalid_input", "checks__0__usage_key"),
        (b'{"checks": [{"organization_id": "", "usage_key": "e"}]}', "invalid_input", "checks__0__organization_id"),
        (
            b'{"checks": [' + b",".join([b'{"organization_id": "a", "usage_key": "e"}'] * 10_001) + b"]}",
            "too_many_checks",
            "checks",
        ),
    ],
    ids=["not json", "nothing", "wrong type", "empty name", "too many"],
)
async def test_a_bad_batch_is_refused_by_field(client, body, code, attr):
    answer = await client.post("/v1/quota", content=body, headers=SERVICE)
    assert (answer.status_code, answer.json()["code"], answer.json()["attr"]) == (400, code, attr)


GETS = [
    "/v1/quota/{}/events",
    "/v1/quota/{}",
    "/v1/limits/{}",
    "/v1/limits/{}/explain?meter=events",
    "/v1/limits/{}/history?meter=events",
]


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize(
    ("headers", "organization_id", "status"),
    [
        ({}, "acme", 401),
        ({"Authorization": "Bearer nonsense"}, "acme", 401),
        (signed("acme", secret=b"x" * 32), "acme", 401),
        (signed("acme", aud="somebody-else"), "acme", 401),
        (signed("acme", exp=int(NOW.timestamp()) - 120), "acme", 401),
        (signed("acme", license_id="never-issued"), "acme", 401),
        (signed(None), "acme", 403),
        (signed("beta"), "acme", 403),
        (signed("solo"), "solo", 403),
        (signed("nobody"), "nobody", 403),
        (signed("acme"), "acme", 200),
        (OPERATOR, "acme", 200),
        (SERVICE, "acme", 200),
    ],
    ids=[
        "no token",
        "unknown token",
        "forged",
        "wrong audience",
        "expired",
        "unknown license",
        "names nobody",
        "names another",
        "another license's organization",
        "unknown organization",
        "its own",
        "operator",
        "service",
    ],
)
async def test_only_the_organization_that_the_token_names_is_shown(client, path, headers, organization_id, status):
    answer = await client.get(path.format(organization_id), headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert set(answer.json()) == {"type", "code", "detail", "attr"}


async def test_a_license_cannot_slip_another_organization_into_a_batch(client):
    checks = [{"organization_id": name, "usage_key": "events"} for name in ("acme", "acme", "beta")]
    answer = await client.post("/v1/quota", json={"checks": checks}, headers=signed("acme"))
    assert (answer.status_code, answer.json()["attr"]) == (403, "checks__2__organization_id")
    allowed = await client.post("/v1/quota", json={"checks": checks[:2]}, headers=signed("acme"))
    assert allowed.status_code == 200


@pytest.mark.parametrize(("headers", "status"), [(OPERATOR, 200), (SERVICE, 403), (signed("acme"), 401)])
async def test_only_operators_rebuild(client, headers, status):
    assert (await client.post("/v1/limits/rebuild", headers=headers)).status_code == status


async def test_an_explanation_has_a_sentence_and_all_the_evidence(client):
    found = (await client.get("/v1/limits/acme/explain?meter=events", headers=OPERATOR)).json()
    assert found["state"] == "limited"
    assert "1,200 of 1,000 used" in found["sentence"]
    assert found["transition"]["evidence"]["usage_revision"] == 1
    assert found["transition"]["rule"] == "no_grace"
    assert found["links"]["usage_as_of"] == "/v1/usage/acme/as-of?meter=events&at=2026-10-10T12%3A00%3A00%2B00%3A00"


@pytest.mark.parametrize(
    ("query", "status", "attr"),
    [
        ("meter=evnets", 404, "meter"),
        ("", 400, "meter"),
        ("meter=events&at=2026-01-01T00:00:00Z", 404, "at"),
        ("meter=events&at=2026-01-01T00:00:00", 400, "at"),
        ("meter=events&at=yesterday", 400, "at"),
        ("meter=events&at=2026-10-10T12:00:01Z", 400, "at"),
    ],
    ids=["unknown meter", "no meter", "before anything was decided", "no offset", "not an instant", "ahead"],
)
async def test_an_explanation_that_cannot_be_given_says_which_parameter(client, query, status, attr):
    answer = await client.get(f"/v1/limits/acme/explain?{query}", headers=OPERATOR)
    assert (answer.status_code, answer.json()["attr"]) == (status, attr)


async def test_a_history_is_paged_from_the_oldest(client):
    path = "/v1/limits/acme/history?meter=events&limit=1"
    first = (await client.get(path, headers=OPERATOR)).json()
    second = (await client.get(f"{path}&after={first['next_after']}", headers=OPERATOR)).json()
    third = (await client.get(f"{path}&after={second['next_after']}", headers=OPERATOR)).json()
    assert [t["to_state"] for page in (first, second) for t in page["transitions"]] == ["within", "limited"]
    assert third == {"transitions": [], "reason_changes": [], "next_after": None}


@pytest.mark.parametrize(
    ("span", "found"),
    [
        ("from=2026-10-10T12:00:00Z", 2),
        ("from=2026-10-10T12:00:01Z", 0),
        ("to=2026-10-10T12:00:00Z", 0),
        ("from=2026-10-10T12:00:00Z&to=2026-10-10T12:00:01Z", 2),
    ],
)
async def test_a_history_has_a_first_instant_and_an_end_that_is_not_in_it(client, span, found):
    answer = await client.get(f"/v1/limits/acme/history?meter=events&{span}", headers=OPERATOR)
    assert len(answer.json()["transitions"]) == found


@pytest.mark.parametrize(
    ("span", "attr"),
    [
        ("from=2026-10-10T12:00:00", "from"),
        ("to=now", "to"),
        ("from=2026-10-10T12:00:00Z&to=2026-10-10T12:00:00Z", "to"),
        ("limit=1001", "limit"),
        ("after=-1", "after"),
    ],
)
async def test_a_history_that_cannot_be_given_says_which_parameter(client, span, attr):
    answer = await client.get(f"/v1/limits/acme/history?meter=events&{span}", headers=OPERATOR)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)


async def test_what_if_answers_from_present_facts_and_changes_nothing(client):
    before = (await client.get("/v1/limits/acme", headers=OPERATOR)).json()
    asked = {"meter": "events", "quota": 2_000, "usage_per_day": 100}
    found = (await client.post("/v1/limits/acme/what-if", json=asked, headers=signed("acme"))).json()
    assert [(s["at"], s["state"], s["usage"]) for s in found["timeline"]] == [
        ("2026-10-10T12:00:00Z", "within", 1_200),
        ("2026-10-14T12:00:00Z", "near", 1_600),
        ("2026-10-18T12:00:00Z", "limited", 2_000),
    ]
    assert (found["limited_at"], found["usage_per_day"]) == ("2026-10-18T12:00:00Z", 100)
    assert found["sentence"] == "events would be limited at 2026-10-18 12:00 UTC, in 8 days, at 100 a day."
    assert found["assumed"] == {"quota": 2_000, "usage_per_day": 100}
    assert (await client.get("/v1/limits/acme", headers=OPERATOR)).json() == before


@pytest.mark.parametrize(
    ("asked", "attr"),
    [
        ({"meter": "evnets"}, "meter"),
        ({"meter": "events", "quota": -1}, "quota"),
        ({"meter": "events", "trust_score": 4}, "trust_score"),
        ({"meter": "events", "usage_per_day": 0.5}, "usage_per_day"),
        ({"meter": "events", "usage_per_week": 7}, "usage_per_week"),
        ({"meter": "events", "periods": 13}, "periods"),
        ({"meter": "events", "free_trial_until": "2026-10-20"}, "free_trial_until"),
        ({"meter": "events", "rule_version": 2}, "rule_version"),
    ],
)
async def test_a_what_if_without_sense_is_refused_by_field(client, asked, attr):
    answer = await client.post("/v1/limits/acme/what-if", json=asked, headers=OPERATOR)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (signed("beta"), 403), (SERVICE, 200)])
async def test_what_if_is_for_who_may_see_the_limits(client, headers, status):
    answer = await client.post("/v1/limits/acme/what-if", json={"meter": "events"}, headers=headers)
    assert answer.status_code == status


def dropped_report(**changes):
    return {
        "id": "us-1",
        "organization_id": "acme",
        "usage_key": "events",
        "source": "us",
        "window_start": "2026-10-10T11:00:00Z",
        "window_end": "2026-10-10T12:00:00Z",
        "allowed": 70,
        "dropped": 30,
    } | changes


async def test_what_was_let_through_and_dropped_is_kept_once_and_shown(client):
    async def report(headers=SERVICE, **changes):
        return await client.post("/v1/limits/dropped", json=dropped_report(**changes), headers=headers)

    told = [
        await report(),
        await report(),
        await report(dropped=31),
        await report(id="us-2", dropped=5, headers=signed("acme")),
        await report(id="us-3", window_start="2026-09-30T23:00:00Z"),
        await report(id="us-4", organization_id="beta"),
    ]
    verdicts = [answer.json().get("verdict") or answer.json()["code"] for answer in told]
    assert verdicts == ["new", "repeat", "id_reused", "new", "new", "new"]
    shown = (await client.get("/v1/limits/acme", headers=OPERATOR)).json()
    assert shown["dropped"] == {"events": {"allowed": 140, "dropped": 35, "reports": 2}}
    explained = (await client.get("/v1/limits/acme/explain?meter=events", headers=OPERATOR)).json()
    assert explained["dropped"] == {"allowed": 140, "dropped": 35, "reports": 2}


@pytest.mark.parametrize(
    ("changes", "headers", "status", "attr"),
    [
        ({"dropped": -1}, SERVICE, 400, "dropped"),
        ({"dropped": 1.5}, SERVICE, 400, "dropped"),
        ({"window_start": "2026-10-10T11:00:00"}, SERVICE, 400, "window_start"),
        ({"window_end": "2026-10-10T11:00:00Z"}, SERVICE, 400, None),
        ({"usage_key": ""}, SERVICE, 400, "usage_key"),
        ({"more": 1}, SERVICE, 400, "more"),
        ({"organization_id": "nobody"}, SERVICE, 404, "organization_id"),
        ({}, signed("beta"), 403, "organization_id"),
        ({}, {}, 401, None),
    ],
)
async def test_a_drop_report_that_cannot_be_kept_says_why(client, changes, headers, status, attr):
    answer = await client.post("/v1/limits/dropped", json=dropped_report(**changes), headers=headers)
    assert (answer.status_code, answer.json()["attr"]) == (status, attr)
