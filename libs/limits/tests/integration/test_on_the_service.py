"""The client on the real stream: kept equal, resumed over a restart and a killed connection, and one tenant alone (L18)."""

import asyncio
import contextlib
import hashlib
import socket
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
import redis.asyncio as redis
import uvicorn
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot
from quill_limits import LimitsFollower, LimitsRefused, LimitsThread
from quill_quota_limiter import wire
from quill_quota_limiter.api import stream
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.domain.scope import Cap, LimitScope, ScopeSettings
from quill_quota_limiter.store import limits_feed
from quill_quota_limiter.store.board_reader import MultiplexedBoardReader
from quill_quota_limiter.store.limits_feed import LimitsFeed, LimitsReader
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.mirror_follower import MirrorFollower
from quill_quota_limiter.store.multiplexed_redis import MultiplexedRedis
from quill_quota_limiter.store.redis import RedisBoard
from quill_quota_limiter.store.standing_lookup import StandingLookup
from quill_quota_limiter.usecases import publish_answers, rebuild_answers, take_in_customers, take_in_usage
from quill_quota_limiter.usecases.set_scopes import set_scopes
from quill_runtime.auth import ApiTokens, Key, Keyring
from quill_runtime.clock import SystemClock
from quill_runtime.http import create_app

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
START = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
END = (START + timedelta(days=32)).replace(day=1)
SECRET = b"s" * 32


class World:
    """Decisions in memory, answers on a real Redis, and replicas that serve the stream."""

    def __init__(self, url):
        self.url, self.store, self.board = url, MemoryLimits(), RedisBoard(url)
        self.revisions: dict[str, int] = {}

    async def decide(self, name="acme", *, quota=10, usage=1, tokens=("phc_1",), license_id="license-1"):
        self.revisions[name] = revision = self.revisions.get(name, 0) + 1
        item = {
            "product_key": "events",
            "usage_key": "events",
            "counter": "event_count",
            "price_id": "standard",
            "price": {"model": "per_unit", "unit_amount": "0.01"},
            "subscribed": False,
            "allowance": quota,
            "quota": quota,
        }
        customer = CustomerSnapshot.model_validate(
            {
                "organization_id": name,
                "customer_id": name,
                "revision": revision,
                "effective_at": START,
                "license_id": license_id,
                "license_type": "cloud",
                "schedule": {"anchor": START, "interval": "month"},
                "period": {"start": START, "end": END},
                "has_active_subscription": False,
                "items": [item],
                "projects": [{"team_id": str(n), "api_token": token} for n, token in enumerate(tokens)],
            }
        )
        meters = {"events": {"complete": usage, "partial": 0, "maximum": usage}}
        period = {"period_start": START, "period_end": END, "as_of": NOW, "meters": meters}
        used = PeriodUsageSnapshot.model_validate({"organization_id": name, "revision": revision, "periods": [period]})
        async with self.store.begin() as tx:
            await take_in_customers([wire.from_wire_customer(customer)], tx=tx, now=NOW)
            await take_in_usage([wire.from_wire_usage(used)], tx=tx, now=NOW)
        await publish_answers([name], store=self.store, board=self.board)

    @contextlib.asynccontextmanager
    async def replica(self, port=0):
        mirror = Mirror(organizations_max=1_000)
        reader = MultiplexedRedis(self.url, timeout_seconds=1)
        follower = MirrorFollower(mirror, url=self.url, redis=reader, store=self.store)
        feed = LimitsFeed(mirror, reader, place=lambda: follower.place, unknown="allow")
        lookup = StandingLookup(mirror, MultiplexedBoardReader(reader, mirror), self.store, 5.0)
        keyring = Keyring()
        for license_id in ("license-1", "license-2"):
            keyring.put(Key(license_id, SECRET, revoked=False), revision=1)
        tokens = ApiTokens.parse(f"edge:service:{hashlib.sha256(b'service-token').hexdigest()}")
        app = create_app(title="test", routers=[stream.router(feed, lookup, Gate(tokens, keyring, SystemClock()))])
        await reader.start()
        await follower.start()
        bound = socket.create_server(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=2))
        server.capture_signals = contextlib.nullcontext
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield bound.getsockname()[1], feed
        finally:
            await feed.stop()
            server.should_exit = True
            await serving
            bound.close()
            await follower.stop()
            await reader.stop()


@pytest.fixture
async def world(redis_url):
    world = World(redis_url)
    await rebuild_answers(store=world.store, board=world.board)
    yield world
    await world.board.stop()


def following(port, **given):
    return LimitsFollower(f"http://127.0.0.1:{port}", **{"token": "service-token"} | given)


def license_token(organization_id, license_id="license-1"):
    claims = {
        "id": license_id,
        "organization_id": organization_id,
        "aud": "posthog:license-key",
        "exp": datetime.now(UTC) + timedelta(minutes=10),
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


async def until(look, seconds=15.0):
    async with asyncio.timeout(seconds):
        while not look():
            await asyncio.sleep(0.01)


async def test_a_limit_and_its_release_reach_the_client_by_organization_and_by_token(world):
    await world.decide(usage=10)
    await world.decide("beta", tokens=("phc_b",))
    async with world.replica() as (port, _), following(port) as limits:
        await limits.wait_until_loaded()
        assert limits.is_limited("events", organization="acme")
        assert limits.is_limited("events", token="phc_1")
        assert not limits.is_limited("events", token="phc_b")
        await world.decide("acme", quota=11, usage=10, tokens=("phc_2",))
        await world.decide("beta", usage=10, tokens=("phc_b", "phc_1"))
        await until(lambda: limits.is_limited("events", token="phc_b"))
        await until(lambda: limits.check("events", token="phc_1").organization_id == "beta")
        assert not limits.is_limited("events", organization="acme")
        await until(lambda: limits.check("events", token="phc_2").organization_id == "acme")
        assert limits.age_seconds() < 10
        assert limits.connections == 1


async def test_a_limit_of_a_team_reaches_the_client_by_token_and_goes_again(world):
    await world.decide(quota=100, usage=9, tokens=("phc_0", "phc_1"))

    async def limit(revision, *teams):
        scopes = tuple(LimitScope(f"team:{team}", "team", (team,), {"events": Cap(units=0)}) for team in teams)
        by = {"actor": "ada@example.org", "reason": "asked for it"}
        async with world.store.begin() as tx:
            await set_scopes("acme", ScopeSettings(revision, scopes), **by, tx=tx, now=NOW)
        await publish_answers(["acme"], store=world.store, board=world.board)

    async with world.replica() as (port, _), following(port) as limits:
        await limits.wait_until_loaded()
        assert not limits.is_limited("events", token="phc_1")
        await limit(1, "1")
        await until(lambda: limits.is_limited("events", token="phc_1"))
        assert limits.check("events", token="phc_1").scope == "team:1"
        assert limits.is_limited("events", organization="acme", team="1")
        assert not limits.is_limited("events", token="phc_0")
        assert not limits.is_limited("events", organization="acme")
        async with following(port) as later:
            await later.wait_until_loaded()
            assert later.is_limited("events", token="phc_1"), "it is in the snapshot too"
        await limit(2, "0")
        await until(lambda: limits.is_limited("events", token="phc_0"))
        assert not limits.is_limited("events", token="phc_1")
        await limit(3)
        await until(lambda: not limits.is_limited("events", token="phc_0"))


async def test_over_a_restart_the_client_answers_and_resumes_with_what_it_missed_alone(world):
    for number in range(20):
        await world.decide(f"org-{number}", tokens=())
    await world.decide(usage=1)
    async with contextlib.AsyncExitStack() as stack:
        async with world.replica() as (port, _):
            limits = await stack.enter_async_context(following(port))
            await limits.wait_until_loaded()
        assert not limits.is_limited("events", organization="acme")
        await world.decide(usage=10, tokens=("phc_2",))
        taken = []
        take = limits.book.take
        limits.book.take = lambda kind, content: taken.append((kind, content)) or take(kind, content)
        async with world.replica(port):
            await until(lambda: limits.is_limited("events", token="phc_2"))
            assert not limits.check("events", token="phc_1").known
            assert taken[0] == ("snapshot", {"kind": "changes", "unknown": "allow"})
            assert {content["organization_id"] for kind, content in taken if kind == "limits"} == {"acme"}


async def test_after_redis_was_emptied_everything_is_sent_anew(world):
    await world.decide(usage=10)
    async with contextlib.AsyncExitStack() as stack:
        async with world.replica() as (port, _):
            limits = await stack.enter_async_context(following(port))
            await limits.wait_until_loaded()
        async with redis.Redis.from_url(world.url) as client:
            await client.flushdb()
        await rebuild_answers(store=world.store, board=world.board)
        taken = []
        take = limits.book.take
        limits.book.take = lambda kind, content: taken.append((kind, content)) or take(kind, content)
        async with world.replica(port):
            await until(lambda: "complete" in dict(taken))
            assert taken[0][1]["kind"] == "whole"
            assert limits.is_limited("events", token="phc_1")


async def test_a_license_hears_of_its_own_organization_alone(world):
    await world.decide(usage=10)
    await world.decide("beta", tokens=("phc_b",))
    await world.decide("solo", tokens=("phc_s",), license_id="license-2")
    async with world.replica() as (port, _):
        async with following(port, token=license_token("beta")) as limits:
            await limits.wait_until_loaded()
            await world.decide(usage=1)
            await world.decide("beta", usage=10, tokens=("phc_b",))
            await until(lambda: limits.is_limited("events", token="phc_b"))
            assert len(limits.book) == 1
            assert not limits.check("events", token="phc_1").known
        for refused in (license_token("solo"), license_token("nobody"), "nonsense"):
            async with following(port, token=refused) as limits:
                with pytest.raises(LimitsRefused):
                    await limits.wait_until_loaded()


async def test_a_change_is_encoded_once_however_many_read_it(world, monkeypatch):
    await world.decide()
    encoded = []
    encode = limits_feed._encode
    monkeypatch.setattr(limits_feed, "_encode", lambda content: encoded.append(type(content)) or encode(content))
    async with world.replica() as (port, feed), contextlib.AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(following(port)) for _ in range(25)]
        for limits in followers:
            await limits.wait_until_loaded()
        encoded.clear()
        await world.decide(usage=10)
        for limits in followers:
            await until(lambda limits=limits: limits.is_limited("events", token="phc_1"))
        assert encoded.count(limits_feed.LimitsEvent) == 1
        assert len(feed._readers) == 25
    assert feed._readers == set()


def test_a_reader_that_does_not_keep_up_is_let_go_within_its_bound():
    reader = LimitsReader()
    event = b"x" * 10_000
    for _ in range(limits_feed.WAITING_BYTES_MAX // len(event)):
        reader.give(event)
    assert not reader.is_over
    reader.give(event)
    assert reader.is_over
    assert reader.take() == b""


async def test_one_reader_too_many_is_asked_to_come_later(world, monkeypatch):
    monkeypatch.setattr(limits_feed, "READERS_MAX", 0)
    async with world.replica() as (port, _), httpx.AsyncClient() as client:
        answer = await client.get(
            f"http://127.0.0.1:{port}/v1/limits/stream", headers={"Authorization": "Bearer service-token"}
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_a_program_without_a_loop_follows_in_a_thread(world):
    await world.decide(usage=10)

    def ask(port):
        with LimitsThread(f"http://127.0.0.1:{port}", token="service-token") as limits:
            limits.wait_until_loaded(seconds=10)
            return limits.is_limited("events", token="phc_1"), limits.check("events", organization="x").known

    async with world.replica() as (port, _):
        assert await asyncio.to_thread(ask, port) == (True, False)
