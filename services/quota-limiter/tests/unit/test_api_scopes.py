"""Scopes over HTTP: who may set them, what is refused by field, and what checks of teams and tokens are told (L10, L18)."""

import asyncio
import hashlib
from datetime import UTC, datetime

import httpx
import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.api import limits, quota, scopes, what_if
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.front import QuotaFront
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.standing_lookup import StandingLookup
from quill_quota_limiter.usecases import publish_answers, rebuild_answers, take_in_customers, take_in_usage
from quill_quota_limiter.usecases.take_in_team_usage import take_in_team_usage
from quill_quota_limiter.wire.scope_states import from_wire_team_usage
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.http import create_app

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
PATH = "/v1/limits/acme/scopes"
WHAT_IF = "/v1/limits/acme/what-if"
OPERATOR = {"Authorization": "Bearer operator-token"}
SERVICE = {"Authorization": "Bearer service-token"}
BY = {"actor": "ada@example.org", "reason": "asked for it"}
TEAM = {"id": "team:0", "kind": "team", "limits": {"events": {"units": 10}}}
WEB = {"id": "project:web", "kind": "project", "teams": ["0", "1"], "limits": {"events": {"units": 25}}}


class FrozenClock:
    def now(self) -> datetime:
        return NOW


class NoDrops:
    async def totals(self, organization_id, *, start, end):
        return {}


class Parts:
    """The service on memory; ``from_mirror`` answers checks from a mirror, otherwise they ask the board."""

    def __init__(self) -> None:
        self.store, self.board = MemoryLimits(), MemoryBoard()
        named = {"operator-token": "operator", "service-token": "service"}
        entries = [f"{s}:{s}:{hashlib.sha256(token.encode()).hexdigest()}" for token, s in named.items()]
        gate = Gate(ApiTokens.parse(",".join(entries)), Keyring(), FrozenClock())
        self.mirror = Mirror(organizations_max=100)
        desk = quota.QuotaDesk(StandingLookup(self.mirror, self.board, self.store, 5.0), FrozenClock(), "allow")
        given = {"store": self.store, "board": self.board, "gate": gate, "clock": FrozenClock()}
        self.app = create_app(
            title="test",
            routers=[
                quota.router(desk, gate),
                limits.router(**given, drops=NoDrops()),
                scopes.router(**given),
                what_if.router(store=self.store, gate=gate, clock=FrozenClock()),
            ],
        )
        self.front = QuotaFront(self.app, desk=desk, gate=gate)

    async def load_mirror(self) -> None:
        async with self.store.begin() as tx:
            tokens = (await tx.tokens(["acme"]))["acme"].active
        standing = (await self.board.read(["acme"])).standings["acme"]
        self.mirror.begin_load()
        self.mirror.put("acme", standing)
        self.mirror.claim("acme", tokens)
        self.mirror.end_load({"acme"}, tokens=tokens, synced_at=asyncio.get_running_loop().time())

    async def ask(self, method, path, *, entrance=None, headers=SERVICE, **request):
        transport = httpx.ASGITransport(entrance or self.front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return await client.request(method, path, **request)

    async def put(self, *given, revision=0, **more):
        body = {"revision": revision, "scopes": list(given), **BY, **more}
        return await self.ask("PUT", PATH, json=body, headers=OPERATOR)


@pytest.fixture
async def parts(customer_snapshot, usage_snapshot, team_usage_snapshot):
    parts = Parts()
    customer = customer_snapshot(events=None, recordings=None, tokens=("phc_0", "phc_1", "phc_2"))
    used = [team_usage_snapshot(name, events=units) for name, units in (("0", 10), ("1", 9), ("2", 1))]
    async with parts.store.begin() as tx:
        await take_in_customers([wire.from_wire_customer(customer)], tx=tx, now=NOW)
        await take_in_usage([wire.from_wire_usage(usage_snapshot(events=20))], tx=tx, now=NOW)
        await take_in_team_usage([from_wire_team_usage(each) for each in used], tx=tx, now=NOW)
    await rebuild_answers(store=parts.store, board=parts.board)
    return parts


async def test_what_is_set_is_shown_as_it_is_put_with_where_each_limit_stands(parts):
    assert (await parts.ask("GET", PATH)).json() == {
        "organization_id": "acme", "revision": 0, "scopes": [], "each_team": {}, "states": {},
    }  # fmt: skip
    money = {"money": {"amount_minor": 500, "currency": "usd"}}
    put = await parts.put(TEAM, {**WEB, "limits": {"events": money}}, each_team={"recordings": {"units": 3}})
    shown = (await parts.ask("GET", PATH)).json()
    assert put.json() == shown
    assert (shown["revision"], shown["scopes"]) == (
        1,
        [{**TEAM, "teams": ["0"]}, {**WEB, "limits": {"events": money}}],
    )
    found = {(scope, key): (s["state"], s["usage"], s["quota"]) for scope, of in shown["states"].items() for key, s in of.items()}  # fmt: skip
    assert found["team:0", "events"] == ("limited", 10, 10)
    assert found["project:web", "events"] == ("within", 19, 500)
    assert found["team:2", "recordings"] == ("within", 0, 3)
    again = await parts.put(*shown["scopes"], revision=shown["revision"], each_team=shown["each_team"])
    assert again.json()["revision"] == 1, "what is equal changes nothing"


@pytest.mark.parametrize(
    ("given", "attr", "told"),
    [
        ([{**TEAM, "id": "12"}], "scopes__0__id", "pattern"),
        ([{**TEAM, "kind": "project"}], "scopes__0__id", "begins with 'project:'"),
        ([TEAM, TEAM], "scopes__1__id", "is scope 0 already"),
        ([{**TEAM, "teams": ["7"]}], "scopes__0__teams", "limits itself alone"),
        ([{**WEB, "teams": None}], "scopes__0__teams", "names the teams"),
        ([{**WEB, "teams": ["1", "1"]}], "scopes__0__teams", "once"),
        ([WEB, {**WEB, "id": "project:app"}], "scopes__1__teams__0", "in project:web already"),
        ([{**WEB, "limits": {"events": None}}], "scopes__0__limits__events", "lifts each_team"),
        ([{**TEAM, "limits": {"events": {}}}], "scopes__0__limits__events", "either units"),
        ([{**TEAM, "limits": {"events": {"units": 1.5}}}], "scopes__0__limits__events__units", "integer"),
        ([{**TEAM, "limits": {"evnets": {"units": 1}}}], "scopes__0__limits__evnets", "known: events, recordings"),
        ([{**TEAM, "limits": {}}], "scopes__0__limits", "at least 1"),
        ([{**WEB, "teams": [str(n) for n in range(501)]}], "scopes__0__teams", "at most 500"),
        ([{**TEAM, "id": f"team:{n}"} for n in range(501)], "scopes", "at most 500"),
        ([{**TEAM, "limits": {"events": {"money": {"amount_minor": 1, "currency": "eur"}}}}],
         "scopes__0__limits__events__money__currency", "is in usd, not eur"),
        ([{**TEAM, "limits": {"events": {"money": {"amount_minor": 1, "currency": "zzz"}}}}],
         "scopes__0__limits__events__money__currency", "zzz"),
    ],
)  # fmt: skip
async def test_settings_without_sense_are_refused_by_field_with_the_fix(parts, given, attr, told):
    answer = await parts.put(*given)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)
    assert told in answer.json()["detail"]
    assert (await parts.ask("GET", PATH)).json()["revision"] == 0


async def test_only_an_operator_sets_and_nobody_overwrites_what_he_did_not_see(parts):
    body = {"revision": 0, "scopes": [TEAM], **BY}
    assert (await parts.ask("PUT", PATH, json=body)).status_code == 403
    assert (await parts.put(TEAM)).status_code == 200
    conflict = await parts.put(WEB)
    assert (conflict.status_code, conflict.json()["attr"]) == (409, "revision")
    unknown = await parts.ask("PUT", "/v1/limits/nobody/scopes", json=body, headers=OPERATOR)
    assert (unknown.status_code, unknown.json()["attr"]) == (400, "organization_id")


async def answers(parts):
    """Who may use events, and whose limit says so, through the front; the application says the same bytes."""
    found = {}
    for path in (
        "/v1/quota/acme/events",
        "/v1/quota/phc_0/events?by=token",
        "/v1/quota/phc_1/events?by=token",
        "/v1/quota/phc_2/events?by=token",
        "/v1/quota/acme/events?by=team&team=1",
        "/v1/quota/acme/events?by=team&team=99",
        "/v1/quota/acme/events?by=scope&scope=project:web",
        "/v1/quota/acme/recordings?by=team&team=0",
    ):
        answer = await parts.ask("GET", path)
        assert answer.content == (await parts.ask("GET", path, entrance=parts.app)).content
        found[path.removeprefix("/v1/quota/")] = (answer.json()["allowed"], answer.json().get("scope"))
    return found


@pytest.mark.parametrize("from_mirror", [False, True])
async def test_a_check_by_token_team_or_project_is_the_tightest_and_says_whose(parts, from_mirror):
    before = {path: allowed for path, (allowed, _) in (await answers_without_scopes(parts)).items()}
    assert set(before.values()) == {True}
    await parts.put(TEAM, {**WEB, "limits": {"events": {"units": 20}}})
    if from_mirror:
        await parts.load_mirror()
    assert await answers(parts) == {
        "acme/events": (True, None),
        "phc_0/events?by=token": (False, "team:0"),
        "phc_1/events?by=token": (True, "project:web"),
        "phc_2/events?by=token": (True, "organization"),
        "acme/events?by=team&team=1": (True, "project:web"),
        "acme/events?by=team&team=99": (True, "organization"),
        "acme/events?by=scope&scope=project:web": (True, "project:web"),
        "acme/recordings?by=team&team=0": (True, "organization"),
    }
    batch = [
        {"token": "phc_0"}, {"token": "phc_1"}, {"organization_id": "acme", "team": "0"}, {"organization_id": "acme"},
        {"token": "phc_none"},
    ]  # fmt: skip
    body = {"checks": [{**each, "usage_key": "events"} for each in batch]}
    told = (await parts.ask("POST", "/v1/quota", json=body)).json()["answers"]
    assert [(each["allowed"], each.get("scope")) for each in told] == [
        (False, "team:0"), (True, "project:web"), (False, "team:0"), (True, None), (True, None),
    ]  # fmt: skip
    packed = {"usage_key": "events", "tokens": ["phc_2", "phc_0", "phc_none", "phc_1", "phc_0"]}
    assert (await parts.ask("POST", "/v1/quota/packed", json=packed)).json() == {"limited": [1, 4], "unknown": [2]}
    whole = (await parts.ask("GET", "/v1/quota/phc_0?by=token")).json()["answers"]
    assert [(a["usage_key"], a["allowed"], a["scope"]) for a in whole] == [
        ("events", False, "team:0"),
        ("recordings", True, "organization"),
    ]


async def answers_without_scopes(parts):
    """By token and organization nothing names a scope before one is set: the bytes are what they were."""
    found = {}
    for path in ("/v1/quota/acme/events", "/v1/quota/phc_0/events?by=token"):
        answer = (await parts.ask("GET", path)).json()
        assert "scope" not in answer
        found[path] = (answer["allowed"], None)
    return found


@pytest.mark.parametrize(
    ("path", "status", "attr"),
    [
        ("/v1/quota/acme/events?by=team", 400, "team"),
        ("/v1/quota/acme/events?by=scope&team=1", 400, "scope"),
        ("/v1/quota/acme/events?by=house", 400, "by"),
        ("/v1/quota/acme/events?by=scope&scope=project:app", 404, "scope"),
        ("/v1/quota/acme/evnets?by=team&team=0", 404, "usage_key"),
        ("/v1/limits/acme/explain?meter=events&scope=project:app", 404, "scope"),
        ("/v1/limits/acme/explain?meter=recordings&scope=team:0", 404, "meter"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_field(parts, path, status, attr):
    await parts.put(TEAM)
    answer = await parts.ask("GET", path)
    assert (answer.status_code, answer.json()["attr"]) == (status, attr)


async def test_why_a_team_is_limited_is_said_with_what_each_team_used(parts):
    await parts.put({**WEB, "limits": {"events": {"units": 19}}})
    why = (await parts.ask("GET", "/v1/limits/acme/explain?meter=events&scope=project:web")).json()
    assert (why["scope"], why["state"]) == ("project:web", "limited")
    assert {team: used["usage"] for team, used in why["transition"]["evidence"]["scope"]["teams"].items()} == {
        "0": 10,
        "1": 9,
    }
    own = (await parts.ask("GET", "/v1/limits/acme/explain?meter=events")).json()
    assert (own["scope"], own["state"]) == ("organization", "within")
    history = (await parts.ask("GET", "/v1/limits/acme/history?meter=events&scope=project:web")).json()
    assert [each["scope"] for each in history["transitions"]] == ["project:web"]
    (shown,) = (await parts.ask("GET", "/v1/limits/acme")).json()["scopes"]
    assert (shown["scope"], shown["teams"], shown["states"]["events"]["state"]) == (
        "project:web",
        ["0", "1"],
        "limited",
    )


async def test_a_scope_that_is_set_while_the_board_is_away_is_kept_and_goes_up_later(parts):
    parts.board.is_away = True
    assert (await parts.put(TEAM)).status_code == 200
    parts.board.is_away = False
    async with parts.store.begin() as tx:
        (limits_of_acme,) = (await tx.limits(["acme"])).values()
        assert await tx.due_organizations(limits_of_acme.next_evaluation_at, at_most=1) == ["acme"]
    assert (limits_of_acme.next_evaluation_at - NOW).total_seconds() == 10
    await publish_answers(["acme"], store=parts.store, board=parts.board)
    assert (await parts.ask("GET", "/v1/quota/phc_0/events?by=token")).json()["allowed"] is False


async def test_what_if_of_a_team_or_project_speaks_of_its_limit_alone(parts):
    """Nine and a half days gave 19 units to the project: two a day."""
    money = {"money": {"amount_minor": 5_000, "currency": "usd"}}
    await parts.put(TEAM, WEB, {**TEAM, "id": "team:1", "limits": {"events": money}})
    asked = {"meter": "events", "scope": "project:web", "usage_per_day": 2, "periods": 2}
    found = (await parts.ask("POST", WHAT_IF, json=asked)).json()
    assert (found["scope"], found["limited_at"]) == ("project:web", "2026-10-13T12:00:00Z")
    assert [(step["at"], step["state"], step["usage"]) for step in found["timeline"]] == [
        ("2026-10-10T12:00:00Z", "within", 19),
        ("2026-10-11T00:00:00Z", "near", 20),
        ("2026-10-13T12:00:00Z", "limited", 25),
        ("2026-11-01T00:00:00Z", "within", 0),
        ("2026-11-11T00:00:00Z", "near", 20),
        ("2026-11-13T12:00:00Z", "limited", 25),
    ]
    assert found["sentence"] == "events of project:web would be limited at 2026-10-13 12:00 UTC, in 3 days, at 2 a day."
    # At the present rate: 9 units in nine and a half days, 5,000 bought by fifty dollars.
    found = (await parts.ask("POST", WHAT_IF, json={"meter": "events", "scope": "team:1"})).json()
    assert (found["limited_at"], found["usage_per_day"], len(found["timeline"])) == (None, 0, 1)
    # A limit that nobody has set yet, on a team that used one unit; and its own limit with another number.
    asked = {"meter": "events", "scope": "team:2", "quota": 2, "usage_per_day": 1}
    assert (await parts.ask("POST", WHAT_IF, json=asked)).json()["limited_at"] == "2026-10-11T12:00:00Z"
    for assumed, limited_at in (({"quota": None}, None), ({"quota": 10}, "2026-10-10T12:00:00Z"), ({"usage": 9}, None)):
        asked = {"meter": "events", "scope": "team:0", "usage_per_day": 0, **assumed}
        assert (await parts.ask("POST", WHAT_IF, json=asked)).json()["limited_at"] == limited_at


@pytest.mark.parametrize(
    ("asked", "attr", "told"),
    [
        ({"scope": "project:app"}, "scope", "known: project:web"),
        ({"scope": "organization"}, "scope", "pattern"),
        ({"scope": "team:2"}, "quota", "has no limit on events"),
        ({"scope": "team:0", "trust_score": 7}, "trust_score", "assume quota, usage"),
        ({"scope": "team:0", "meter": "evnets"}, "meter", "known: events, recordings"),
    ],
)
async def test_a_what_if_of_a_scope_without_sense_is_refused_by_field(parts, asked, attr, told):
    await parts.put(TEAM, WEB)
    answer = await parts.ask("POST", WHAT_IF, json={"meter": "events", **asked})
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)
    assert told in answer.json()["detail"]


async def test_a_team_may_be_asked_about_where_no_scope_was_ever_set(parts):
    asked = {"meter": "events", "scope": "team:0", "quota": 11, "usage_per_day": 1}
    found = (await parts.ask("POST", WHAT_IF, json=asked)).json()
    assert [(step["at"], step["state"]) for step in found["timeline"]] == [
        ("2026-10-10T12:00:00Z", "near"),
        ("2026-10-11T12:00:00Z", "limited"),
    ]
