"""Limits of teams and projects on the memory store and on Postgres, on the memory board and on Redis (L8, L9, L20)."""

import asyncio
import json
import random
from datetime import UTC, datetime
from itertools import permutations

import pytest
import redis.asyncio as redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_quota_limiter import wire
from quill_quota_limiter.domain.limit_state import replay
from quill_quota_limiter.domain.quota_answer import standing_of
from quill_quota_limiter.domain.scope import Cap, LimitScope, ScopeSettings
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.store.limit_streams import stream_of
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.store.postgres import PostgresLimits
from quill_quota_limiter.usecases import publish_answers, rebuild_answers, take_in_customers, take_in_usage
from quill_quota_limiter.usecases.answers import TokensReader
from quill_quota_limiter.usecases.change_webhooks import add_endpoint
from quill_quota_limiter.usecases.drift import find_drift
from quill_quota_limiter.usecases.evaluate import evaluate_due
from quill_quota_limiter.usecases.set_scopes import ImpossibleCap, SettingsConflict, set_scopes
from quill_quota_limiter.usecases.set_thresholds import UnknownCustomer
from quill_quota_limiter.usecases.take_in_team_usage import take_in_team_usage
from quill_quota_limiter.wire.scope_states import from_wire_team_usage
from quill_runtime.event_store import PostgresEventStream
from quill_runtime.outbox import Outbox

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
END = int(NOVEMBER.timestamp())
BY = {"actor": "ada@example.org", "reason": "asked for it"}
LIMITED = "@posthog/quota-limits/"


@pytest.fixture(params=["memory", "redis"])
async def board(request, redis_board):
    return await filled(MemoryBoard() if request.param == "memory" else redis_board)


@pytest.fixture
async def client(redis_url):
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    await client.aclose()


async def arrive(store, *snapshots, now=NOW):
    for snapshot in snapshots:
        async with store.begin() as tx:
            if hasattr(snapshot, "items"):
                await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=now)
            elif hasattr(snapshot, "team_id"):
                await take_in_team_usage([from_wire_team_usage(snapshot)], tx=tx, now=now)
            else:
                await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=now)


def team(name, **units):
    return LimitScope(f"team:{name}", "team", (name,), {key: Cap(units=each) for key, each in units.items()})


def project(name, teams, **units):
    return LimitScope(f"project:{name}", "project", tuple(teams), {key: Cap(units=u) for key, u in units.items()})


async def change(store, *scopes, revision=1, name="acme", each_team=None, now=NOW):
    async with store.begin() as tx:
        each = {key: Cap(units=units) for key, units in (each_team or {}).items()}
        return await set_scopes(name, ScopeSettings(revision, scopes, each), **BY, tx=tx, now=now)


async def limits_of(store, name="acme"):
    async with store.begin() as tx:
        return (await tx.limits([name]))[name]


def states(limits):
    return {
        (scope, key): (meter.state.name, meter.usage, meter.quota)
        for scope, meters in limits.scopes.in_force().items()
        for key, meter in meters.items()
    }


async def marks_on(board, client, meter="events"):
    if isinstance(board, MemoryBoard):
        return dict(board.limited.get(meter, {}))
    return {token: int(score) for token, score in await client.zrange(LIMITED + meter, 0, -1, withscores=True)}


async def test_usage_that_came_before_the_limit_counts_and_older_usage_changes_nothing(
    store, customer_snapshot, team_usage_snapshot
):
    await arrive(store, customer_snapshot(events=None, tokens=("phc_0", "phc_1")))
    await arrive(store, team_usage_snapshot("0", revision=2, events=60), team_usage_snapshot("1", events=39))
    after = await change(store, project("web", "01", events=100), team("0", events=60))
    assert states(after) == {
        ("project:web", "events"): ("near", 99, 100),
        ("team:0", "events"): ("limited", 60, 60),
    }
    await arrive(store, team_usage_snapshot("0", revision=1, events=1), team_usage_snapshot("1", revision=2, events=40))
    after = await limits_of(store)
    assert states(after)["project:web", "events"] == ("limited", 100, 100)
    assert after.scopes.tokens == {"phc_0": "0", "phc_1": "1"}
    async with store.begin() as tx:
        log = await tx.log("acme", "events", scope="project:web")
        before_it = await tx.log("acme", "events", scope="project:web", as_of=NOW)
        assert replay(log) == after.scopes.limits["project:web"]["events"].state
        assert [(t.from_state, t.to_state, t.scope) for t in log] == [
            (None, "near", "project:web"),
            ("near", "limited", "project:web"),
        ]
        assert log == before_it
        assert {name: used.usage for name, used in log[-1].evidence.scope.teams.items()} == {"0": 60, "1": 40}
        assert [t.scope for t in await tx.log("acme", "events")] == [None], "the organization's has its own"
        page = await tx.log_page("acme", "events", scope="project:web", after=1, start=None, end=None, at_most=9)
        assert page == [(2, log[1])]


async def test_a_webhook_tells_an_organizations_transition_and_its_teams_apart(
    store, customer_snapshot, team_usage_snapshot
):
    endpoint = WebhookEndpoint("whe_1", "https://hooks.example/q", "", ("limits.transition",), None, "sealed", NOW)
    async with store.begin() as tx:
        await add_endpoint(endpoint, **BY, tx=tx)
    await arrive(store, customer_snapshot(events=None), team_usage_snapshot("0", events=5))
    await change(store, team("0", events=5), project("p", "0", events=6))
    async with store.begin() as tx:
        planned = await tx.webhooks.deliveries(at_most=9)
    told = [json.loads(each.body)["data"] for each in planned]
    assert sorted((each["scope"] or "", each["to_state"], each["sequence"]) for each in told) == [
        ("", "within", 1),
        ("project:p", "near", 1),
        ("team:0", "limited", 1),
    ]


async def test_money_buys_units_at_the_price_in_force(store, customer_snapshot, team_usage_snapshot):
    await arrive(store, customer_snapshot(events=None), team_usage_snapshot("0", events=500))
    scope = LimitScope("team:0", "team", ("0",), {"events": Cap(money_minor=500, currency="usd")})
    assert states(await change(store, scope)) == {("team:0", "events"): ("limited", 500, 500)}


async def test_what_contradicts_the_facts_is_refused_and_nothing_is_changed(store, customer_snapshot):
    with pytest.raises(UnknownCustomer):
        await change(store, team("0", events=1))
    await arrive(store, customer_snapshot(events=10))
    await change(store, team("0", events=5))
    with pytest.raises(SettingsConflict, match="at revision 1"):
        await change(store, team("0", events=6), revision=1)
    with pytest.raises(ImpossibleCap, match="no meter 'logs'") as refused:
        await change(store, team("0", logs=6), revision=2)
    assert refused.value.attr == "scopes__0__limits__logs"
    euros = LimitScope("team:0", "team", ("0",), {"events": Cap(money_minor=1, currency="eur")})
    with pytest.raises(ImpossibleCap, match="is in usd, not eur"):
        await change(store, euros, revision=2)
    found = await limits_of(store)
    assert (found.scopes.settings.revision, states(found)) == (1, {("team:0", "events"): ("within", 0, 5)})


async def test_a_limit_on_each_of_too_many_teams_is_refused_and_nothing_is_kept(store, customer_snapshot, monkeypatch):
    monkeypatch.setattr("quill_quota_limiter.usecases.set_scopes.EACH_TEAM_TEAMS_MAX", 2)
    await arrive(store, customer_snapshot(events=10, tokens=("phc_0", "phc_1", "phc_2")))
    with pytest.raises(ImpossibleCap, match="has 3 teams"):
        await change(store, each_team={"events": 5})
    assert (await limits_of(store)).scopes is None
    assert (await change(store, team("0", events=5))).scopes.settings.revision == 1


async def test_each_change_is_an_event_with_who_why_before_and_after(database, customer_snapshot):
    store = PostgresLimits(database, Outbox())
    await arrive(store, customer_snapshot(events=10))
    await change(store, team("0", events=5))
    await change(store, team("0", events=5), revision=2)
    await change(store, revision=2, each_team={"events": 3})
    async with database.begin() as transaction:
        events = await PostgresEventStream(transaction).read("limit-scopes/acme")
    assert [(event.actor, event.data["before"]["revision"], event.data["after"]["revision"]) for event in events] == [
        ("ada@example.org", 0, 1),
        ("ada@example.org", 1, 2),
    ]
    assert events[1].data["before"]["scopes"][0]["limits"] == {"events": {"units": 5}}
    assert events[1].data["after"]["each_team"] == {"events": {"units": 3}}


async def test_the_billing_period_ends_on_time_when_nobody_publishes(store, customer_snapshot, team_usage_snapshot):
    await arrive(store, customer_snapshot(events=None), team_usage_snapshot("0", events=9))
    await change(store, team("0", events=5))
    assert states(await limits_of(store))["team:0", "events"][0] == "limited"
    assert await evaluate_due(store=store, board=await filled(MemoryBoard()), now=NOVEMBER) == 1
    assert states(await limits_of(store))["team:0", "events"] == ("within", 0, 5)


async def test_a_token_that_moves_to_another_team_is_bound_by_that_one(
    store, board, client, customer_snapshot, team_usage_snapshot
):
    def customer(revision, teams):
        snapshot = customer_snapshot(revision=revision, events=None, tokens=tuple(teams)).model_dump(mode="json")
        snapshot["projects"] = [{"team_id": team, "api_token": token} for token, team in teams.items()]
        return type(customer_snapshot()).model_validate(snapshot)

    await arrive(store, customer(1, {"phc_a": "a", "phc_b": "b"}), team_usage_snapshot("a", events=5))
    await change(store, team("a", events=5))
    await publish_answers(["acme"], store=store, board=board)
    assert await marks_on(board, client) == {"phc_a": END}
    await arrive(store, customer(2, {"phc_a": "b", "phc_b": "a"}))
    await publish_answers(["acme"], store=store, board=board)
    assert await marks_on(board, client) == {"phc_b": END}
    await arrive(store, customer(3, {"phc_a": "b"}))
    await publish_answers(["acme"], store=store, board=board)
    assert await marks_on(board, client) == {}


async def test_marks_are_the_limited_teams_and_a_release_takes_only_its_own(
    board, client, customer_snapshot, usage_snapshot, team_usage_snapshot
):
    store = MemoryLimits()
    await arrive(store, customer_snapshot(events=100, recordings=5, tokens=("phc_0", "phc_1", "phc_2")))
    await arrive(store, *(team_usage_snapshot(name, events=10, recordings=1) for name in "012"))
    await arrive(store, usage_snapshot(events=30, recordings=3))

    async def marks():
        await publish_answers(["acme"], store=store, board=board)
        return [await marks_on(board, client, meter) for meter in ("events", "recordings")]

    assert await marks() == [{}, {}]
    await change(store, team("0", events=10), project("pool", "12", recordings=2))
    assert await marks() == [{"phc_0": END}, {"phc_1": END, "phc_2": END}]
    await arrive(store, usage_snapshot(revision=2, events=100, recordings=3))
    assert await marks() == [dict.fromkeys(("phc_0", "phc_1", "phc_2"), END), {"phc_1": END, "phc_2": END}]
    await arrive(store, customer_snapshot(revision=2, events=500, recordings=5, tokens=("phc_0", "phc_1", "phc_2")))
    assert await marks() == [{"phc_0": END}, {"phc_1": END, "phc_2": END}], "the team's own limit stays"
    await change(store, revision=2, each_team={"events": 10})
    assert await marks() == [dict.fromkeys(("phc_0", "phc_1", "phc_2"), END), {}]
    await change(store, revision=3)
    assert await marks() == [{}, {}]


@pytest.fixture
def snapshots(customer_snapshot, usage_snapshot, team_usage_snapshot):
    return customer_snapshot, usage_snapshot, team_usage_snapshot


facts = st.lists(
    st.one_of(
        st.tuples(st.just("quota"), st.integers(0, 60)),
        st.tuples(st.just("usage"), st.integers(0, 60)),
        st.tuples(st.sampled_from(["0", "1"]), st.integers(0, 40)),
        st.tuples(st.just("scopes"), st.tuples(*[st.none() | st.integers(0, 30)] * 3)),
    ),
    min_size=1,
    max_size=8,
)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(given_facts=facts)
async def test_rebuilt_is_live_with_scopes(redis_board, client, snapshots, given_facts):
    customer_snapshot, usage_snapshot, team_usage_snapshot = snapshots
    await client.flushdb()
    board = await filled(redis_board)
    store = MemoryLimits()
    await arrive(store, customer_snapshot(events=50, tokens=("phc_0", "phc_1")))
    revision = 0
    for number, (kind, value) in enumerate(given_facts, start=2):
        if kind == "quota":
            await arrive(store, customer_snapshot(revision=number, events=value, tokens=("phc_0", "phc_1")))
        elif kind == "usage":
            await arrive(store, usage_snapshot(revision=number, events=value))
        elif kind == "scopes":
            first, pool, each = value
            named = ([] if first is None else [team("0", events=first)]) + (
                [] if pool is None else [project("all", "01", events=pool)]
            )
            after = await change(
                store, *named, revision=revision + 1, each_team={} if each is None else {"events": each}
            )
            revision = after.scopes.settings.revision if after.scopes else 0
        else:
            await arrive(store, team_usage_snapshot(kind, revision=number, events=value))
        await publish_answers(["acme"], store=store, board=board)
    live = (await marks_on(board, client), (await board.read(["acme"])).standings)
    assert live[1]["acme"] == standing_of(await limits_of(store))
    assert (await find_drift(store=store, board=board, settle_seconds=0)).is_clean
    await client.flushdb()
    assert (await rebuild_answers(store=store, board=board)).is_complete
    assert (await marks_on(board, client), (await board.read(["acme"])).standings) == live


async def test_drift_of_a_teams_mark_is_found_and_put_right(
    redis_board, client, customer_snapshot, team_usage_snapshot
):
    store, board = MemoryLimits(), await filled(redis_board)
    await arrive(store, customer_snapshot(events=None, tokens=("phc_0", "phc_1")))
    await arrive(store, team_usage_snapshot("0", events=5))
    await change(store, team("0", events=5))
    await publish_answers(["acme"], store=store, board=board)
    await client.zrem(LIMITED + "events", "phc_0")
    await client.zadd(LIMITED + "events", {"phc_1": END})
    found = await find_drift(store=store, board=board, repair=True, settle_seconds=0)
    assert {drift.subject for drift in found.drifts} == {"phc_0", "phc_1"}
    assert await marks_on(board, client) == {"phc_0": END}


ACTORS = ("team usage", "older team usage", "scopes", "customer")
STEPS = ("decide", "put up")


async def play(order, store, board, snapshots):
    """Four actors decide in transactions of their own and put up what they then read, in the order given."""
    customer, usage = snapshots
    await arrive(store, customer(revision=1, events=None, tokens=("phc_0",)), usage("0", revision=1, events=1))
    await change(store, team("0", events=9))
    acts = {
        "team usage": lambda: arrive(store, usage("0", revision=3, events=8)),
        "older team usage": lambda: arrive(store, usage("0", revision=2, events=99)),
        "scopes": lambda: change(store, team("0", events=8), revision=2),
        "customer": lambda: arrive(store, customer(revision=2, events=None, tokens=("phc_0", "phc_1"))),
    }
    read, decided = {}, set()
    for actor in order:
        if actor not in decided:
            decided.add(actor)
            await acts[actor]()
            read[actor] = await limits_of(store)
        else:
            await board.publish([read[actor]], tokens_of=TokensReader(store))
    limits = await limits_of(store)
    assert states(limits) == {("team:0", "events"): ("limited", 8, 8)}
    assert (await board.read(["acme"])).standings["acme"] == standing_of(limits)
    async with store.begin() as tx:
        log = await tx.log("acme", "events", scope="team:0")
    assert replay(log) == limits.scopes.limits["team:0"]["events"].state


async def test_every_interleaving_of_usage_settings_and_customers_ends_at_the_newest_facts(
    customer_snapshot, team_usage_snapshot, redis_board, client
):
    orders = sorted(set(permutations([actor for actor in ACTORS for _ in STEPS])))
    assert len(orders) == 2_520
    chosen = random.Random(11).sample(orders, 400)
    for order in chosen:
        board = await filled(MemoryBoard())
        await play(order, MemoryLimits(), board, (customer_snapshot, team_usage_snapshot))
        assert board.limited["events"] == {"phc_0": END}
    for order in chosen[:20]:
        await client.flushdb()
        await play(order, MemoryLimits(), await filled(redis_board), (customer_snapshot, team_usage_snapshot))
        assert await marks_on(redis_board, client) == {"phc_0": END}


async def test_many_at_once_on_postgres_end_at_the_newest_facts(database, customer_snapshot, team_usage_snapshot):
    store = PostgresLimits(database, Outbox())
    await arrive(store, customer_snapshot(events=None))
    arrivals = [arrive(store, team_usage_snapshot("0", revision=n, events=n)) for n in (7, 3, 10, 5, 9, 8)]
    others = [arrive(store, team_usage_snapshot(str(n), revision=1, events=n)) for n in (1, 2)]
    await asyncio.gather(*arrivals[:3], change(store, project("p", "012", events=13)), *arrivals[3:], *others)
    found = await limits_of(store)
    assert states(found) == {("project:p", "events"): ("limited", 13, 13)}
    async with store.begin() as tx:
        log = await tx.log("acme", "events", scope="project:p")
    assert replay(log) == found.scopes.limits["project:p"]["events"].state
    assert stream_of("acme", "events", "project:p") == "limit-of-scope/acme/events/project:p"


async def filled(board):
    assert await board.finish_rebuild(await board.begin_rebuild())
    return board
