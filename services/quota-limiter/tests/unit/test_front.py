"""The front and the application say the same, byte for byte; and what a verified token is worth, and how long."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import msgspec
import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.api import quota
from quill_quota_limiter.api.authorization import UNLICENSED, UNLICENSED_MAX, VERIFIED_MAX, Gate
from quill_quota_limiter.api.front import QuotaFront
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.mirror_follower import MirrorFollower
from quill_quota_limiter.store.standing_lookup import StandingLookup
from quill_quota_limiter.usecases import rebuild_answers, take_in_customers, take_in_usage
from quill_runtime import auth
from quill_runtime.auth import ApiTokens, Forbidden, Key, Keyring, Unauthorized
from quill_runtime.http import create_app

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
SECRET = b"s" * 32


class SettableClock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def license_token(organization_id: str, *, secret: bytes = SECRET, minutes: int = 15) -> str:
    claims = {
        "id": "license-1",
        "organization_id": organization_id,
        "aud": "posthog:license-key",
        "exp": int((NOW + timedelta(minutes=minutes)).timestamp()),
    }
    return jwt.encode(claims, secret, algorithm="HS256")


SERVICE = "Bearer service-token"


class Parts:
    """A desk on memory, reached through the front and around it; ``reached`` counts what the application was asked."""

    def __init__(self, store, board, policy="allow") -> None:
        self.store, self.board, self.clock, self.keyring = store, board, SettableClock(), Keyring()
        self.keyring.put(Key("license-1", SECRET, revoked=False), revision=1)
        tokens = ApiTokens.parse(f"edge:service:{hashed('service-token')}")
        self.gate = Gate(tokens, self.keyring, self.clock)
        self.mirror = Mirror(organizations_max=100)
        self.lookup = StandingLookup(self.mirror, board, store, stale_seconds=5.0)
        self.desk = quota.QuotaDesk(self.lookup, self.clock, policy)
        self.app = create_app(title="test", routers=[quota.router(self.desk, self.gate)])
        self.reached = 0
        self.front = QuotaFront(self._counting, desk=self.desk, gate=self.gate)

    async def _counting(self, scope, receive, send):
        self.reached += 1
        await self.app(scope, receive, send)

    async def ask(self, entrance, method, path, **request):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(entrance), base_url="http://test") as client:
            return await client.request(method, path, **request)


async def filled(customer_snapshot, usage_snapshot, policy="allow"):
    store, board = MemoryLimits(), MemoryBoard()
    snapshots = [
        customer_snapshot("acme", events=1_000, recordings=5, tokens=("phc_1", "phc_2")),
        customer_snapshot("beta", events=1_000, tokens=("phc_b",)),
    ]
    async with store.begin() as tx:
        await take_in_customers([wire.from_wire_customer(s) for s in snapshots], tx=tx, now=NOW)
        await take_in_usage([wire.from_wire_usage(usage_snapshot(events=1_200))], tx=tx, now=NOW)
    await rebuild_answers(store=store, board=board)
    return Parts(store, board, policy)


@pytest.fixture
async def parts(customer_snapshot, usage_snapshot):
    return await filled(customer_snapshot, usage_snapshot)


ASKED = [
    ("GET", "/v1/quota/acme/events", None),
    ("GET", "/v1/quota/acme/events/", None),
    ("GET", "/v1/quota/acme%20x/events", None),
    ("GET", "/v1/quota/acme/evnets", None),
    ("GET", "/v1/quota/nobody/events", None),
    ("GET", "/v1/quota/phc_1/events?by=token", None),
    ("GET", "/v1/quota/phc_none/events?by=token", None),
    ("GET", "/v1/quota/acme/events?by=team", None),
    ("GET", "/v1/quota/acme/events?by=organization&x=1", None),
    ("GET", "/v1/quota/acme", None),
    ("GET", "/v1/quota/phc_b?by=token", None),
    ("GET", "/v1/quota/nobody", None),
    ("GET", "/v1/quota/acme/events/more", None),
    ("GET", "/v1/quota", None),
    ("DELETE", "/v1/quota/acme/events", None),
    ("POST", "/v1/quota", {"checks": [{"organization_id": "acme", "usage_key": "events"}]}),
    ("POST", "/v1/quota/", {"checks": [{"token": t, "usage_key": "events"} for t in ("phc_1", "phc_b", "phc_x")]}),
    ("POST", "/v1/quota", {"checks": []}),
    ("POST", "/v1/quota", {"checks": [{"usage_key": "events"}]}),
    ("POST", "/v1/quota", {"checks": [{"organization_id": "acme", "token": "phc_1", "usage_key": "events"}]}),
    ("POST", "/v1/quota", [1]),
    ("POST", "/v1/quota/packed", {"usage_key": "events", "organization_ids": ["beta", "acme", "nobody"]}),
    ("POST", "/v1/quota/packed", {"usage_key": "recordings", "organization_ids": ["beta", "acme", "nobody"]}),
    ("POST", "/v1/quota/packed", {"usage_key": "events", "tokens": ["phc_b", "phc_x", "phc_2"]}),
    ("POST", "/v1/quota/packed", {"usage_key": "events", "organization_ids": ["a"] * 10_001}),
    ("POST", "/v1/quota/packed", {"usage_key": "events"}),
    ("POST", "/v1/quota/packed", {"usage_key": 3, "tokens": []}),
]


@pytest.mark.parametrize("policy", ["allow", "deny"])
@pytest.mark.parametrize("source", ["mirror", "redis", "store"])
async def test_the_front_and_the_application_answer_with_the_same_bytes(
    customer_snapshot, usage_snapshot, source, policy
):
    parts = await filled(customer_snapshot, usage_snapshot, policy)
    if source == "mirror":
        await load_whole(parts)
    elif source == "store":
        parts.board.is_away = True
    callers = (SERVICE, f"Bearer {license_token('acme')}", "Bearer nonsense", "Basic eA==", None)
    for method, path, body in ASKED:
        for caller in callers:
            headers = {} if caller is None else {"Authorization": caller}
            told = [
                await parts.ask(entrance, method, path, json=body, headers=headers)
                for entrance in (parts.app, parts.front)
            ]
            first, second = [(answer.status_code, answer.content, without_age(answer.headers)) for answer in told]
            assert first == second, (method, path, caller)
            if told[0].status_code == 200:
                assert told[0].headers["quill-answer-source"] == source
                assert int(told[0].headers["quill-answer-age-ms"]) < 5_000


def without_age(headers):
    return sorted((name, value) for name, value in headers.multi_items() if name != "quill-answer-age-ms")


async def load_whole(parts):
    """Bring the mirror up from the store, as the follower does while Redis is away."""
    await MirrorFollower(parts.mirror, url="redis://unused", redis=None, store=parts.store)._load_from_store_if_old()


async def test_the_front_answers_by_itself_and_hands_on_what_it_does_not_know(parts):
    headers = {"Authorization": SERVICE}
    await parts.ask(parts.front, "GET", "/v1/quota/acme/events", headers=headers)
    await parts.ask(parts.front, "POST", "/v1/quota", json={"checks": []}, headers=headers)
    await parts.ask(parts.front, "POST", "/v1/quota/packed", json={"usage_key": "e", "tokens": []}, headers=headers)
    assert parts.reached == 0
    for method, path in (("GET", "/v1/limits/acme"), ("PUT", "/v1/quota"), ("GET", "/v1/quota//events")):
        await parts.ask(parts.front, method, path, headers=headers)
    await parts.ask(parts.front, "POST", "/v1/quota", content=b"x", headers={"Content-Encoding": "gzip", **headers})
    await parts.ask(parts.front, "POST", "/v1/quota", content=b" " * 8_400_000, headers=headers)
    assert parts.reached == 5


async def test_packed_places_are_those_that_single_checks_refuse(parts):
    names = ["beta", "acme", "nobody", "acme"]
    for _ in range(2):
        packed = (
            await parts.ask(
                parts.front,
                "POST",
                "/v1/quota/packed",
                json={"usage_key": "events", "organization_ids": names},
                headers={"Authorization": SERVICE},
            )
        ).json()
        assert packed == {"limited": [1, 3], "unknown": [2]}
        await load_whole(parts)


async def test_a_limit_that_has_ended_allows_at_once_wherever_it_is_read(parts):
    asked = {"usage_key": "events", "organization_ids": ["acme"]}
    headers = {"Authorization": SERVICE}
    for _ in range(2):
        parts.clock.at = NOW
        assert not (await parts.ask(parts.front, "GET", "/v1/quota/acme/events", headers=headers)).json()["allowed"]
        parts.clock.at = datetime(2026, 11, 1, tzinfo=UTC)
        assert (await parts.ask(parts.front, "GET", "/v1/quota/acme/events", headers=headers)).json()["allowed"]
        packed = await parts.ask(parts.front, "POST", "/v1/quota/packed", json=asked, headers=headers)
        assert packed.json()["limited"] == []
        await load_whole(parts)


async def test_an_answer_at_hand_is_given_to_whom_it_concerns_and_only_while_it_is_true(parts):
    await load_whole(parts)
    service, acme = parts.gate.admit(SERVICE), parts.gate.admit(f"Bearer {license_token('acme')}")
    assert parts.desk.said("acme", "events") is None, "nobody has asked yet"
    answered = await parts.desk.answer_one(service, "acme", "events")
    said = parts.desk.said("acme", "events")
    for caller in (service, acme):
        again = parts.desk.repeat(caller, said)
        assert (again.body, again.source) == (answered.body, "mirror")
    with pytest.raises(Forbidden):
        parts.desk.repeat(parts.gate.admit(f"Bearer {license_token('beta')}"), said)
    parts.mirror.synced_at -= 3_600
    assert parts.desk.repeat(service, said) is None, "the mirror is stale"
    parts.mirror.synced_at += 3_600
    parts.clock.at = datetime(2026, 11, 1, tzinfo=UTC)
    assert parts.desk.repeat(service, said) is None, "the limit has ended"
    parts.clock.at = NOW
    parts.mirror.put("acme", replace(parts.mirror.standings["acme"], revision=99))
    assert parts.desk.repeat(service, said) is None, "something newer is known"
    parts.mirror.remove("acme")
    assert parts.desk.repeat(service, said) is None, "it is not known any more"


async def test_answers_kept_are_bounded_and_stay_right(parts, monkeypatch):
    monkeypatch.setattr(quota, "ENCODED_MAX", 3)
    await load_whole(parts)
    caller, known = parts.gate.admit(SERVICE), {"acme": {"events", "recordings"}, "beta": {"events"}}
    keys = ["events", "recordings", *(f"unknown-{n}" for n in range(7)), "events"]
    checks = [{"organization_id": name, "usage_key": key} for key in keys for name in ("acme", "beta")]
    for _ in range(2):
        said = await parts.desk.answer_many(caller, msgspec.json.encode({"checks": checks}))
        answers = msgspec.json.decode(said.body)["answers"]
        assert [(a["organization_id"], a["usage_key"], a["known"]) for a in answers] == [
            (c["organization_id"], c["usage_key"], c["usage_key"] in known[c["organization_id"]]) for c in checks
        ]
        assert sum(map(len, parts.desk._encoded.values())) <= 3


async def test_who_knows_nothing_refuses_and_who_once_knew_says_how_long_ago(parts):
    await parts.ask(parts.front, "GET", "/v1/quota/acme/events", headers={"Authorization": SERVICE})
    parts.board.is_away = True

    def begin():
        raise ConnectionError("Postgres is away")

    begin_before, parts.store.begin = parts.store.begin, begin
    refused = await parts.ask(parts.front, "GET", "/v1/quota/acme/events", headers={"Authorization": SERVICE})
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    parts.store.begin = begin_before
    await load_whole(parts)
    parts.store.begin = begin
    parts.mirror.synced_at -= 3_600
    told = await parts.ask(parts.front, "GET", "/v1/quota/acme/events", headers={"Authorization": SERVICE})
    assert not told.json()["allowed"]
    assert told.headers["quill-answer-source"] == "mirror"
    assert 3_600_000 <= int(told.headers["quill-answer-age-ms"]) < 3_660_000


async def test_a_verified_token_is_not_verified_again_while_it_is_good(parts, monkeypatch):
    calls = []
    verify = auth.verify_signed
    monkeypatch.setattr(auth, "verify_signed", lambda *args, **given: calls.append(1) or verify(*args, **given))
    token = license_token("acme", minutes=5)
    first = parts.gate.admit(f"Bearer {token}")
    assert parts.gate.admit(f"Bearer {token}") == first
    assert len(calls) == 1
    tampered = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    with pytest.raises(Unauthorized):
        parts.gate.admit(f"Bearer {tampered}")
    parts.clock.at = NOW + timedelta(minutes=6, seconds=59)
    assert parts.gate.admit(f"Bearer {token}") == first
    parts.clock.at = NOW + timedelta(minutes=7)
    with pytest.raises(Unauthorized, match="expired"):
        parts.gate.admit(f"Bearer {token}")


@pytest.mark.parametrize(
    "key",
    [
        Key("license-1", SECRET, revoked=True),
        Key("license-1", b"t" * 32, revoked=False),
        Key("license-1", SECRET, revoked=False, expires_at=NOW),
    ],
    ids=["revoked", "key replaced", "expired"],
)
async def test_a_license_that_changes_takes_its_verified_tokens_along(parts, key):
    token = license_token("acme")
    parts.gate.admit(f"Bearer {token}")
    parts.keyring.put(key, revision=2)
    with pytest.raises(Unauthorized):
        parts.gate.admit(f"Bearer {token}")


async def test_remembered_tokens_are_bounded(parts):
    parts.gate._verified.update(dict.fromkeys(map(str, range(VERIFIED_MAX))))
    parts.gate.admit(f"Bearer {license_token('acme')}")
    assert len(parts.gate._verified) == VERIFIED_MAX
    assert "0" not in parts.gate._verified


async def test_a_header_without_a_license_is_remembered_as_it_is_and_no_other(parts):
    header = SERVICE
    assert parts.gate.admit(header) is parts.gate.admit(header) is UNLICENSED
    for other in (header + "x", header[:-1], header.replace("Bearer", "Basic"), None):
        with pytest.raises(Unauthorized):
            parts.gate.admit(other)
    for spaces in range(2 * UNLICENSED_MAX):
        parts.gate.admit(header + " " * spaces)
    assert len(parts.gate._unlicensed) == UNLICENSED_MAX


async def test_the_document_declares_every_quota_path(parts):
    paths = parts.app.openapi()["paths"]
    assert set(paths) == {
        "/v1/quota",
        "/v1/quota/packed",
        "/v1/quota/{organization_id}",
        "/v1/quota/{organization_id}/{usage_key}",
    }
    assert paths["/v1/quota/packed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
