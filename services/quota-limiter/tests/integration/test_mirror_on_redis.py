"""The mirror on a real Redis: equal to it after anything, and what is answered when Redis freezes, dies or is emptied."""

import asyncio
import contextlib
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_quota_limiter import wire
from quill_quota_limiter.ports import BoardUnavailable
from quill_quota_limiter.store.board_reader import MultiplexedBoardReader
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.mirror_follower import MirrorFollower
from quill_quota_limiter.store.multiplexed_redis import MultiplexedRedis
from quill_quota_limiter.store.standing_lookup import StandingLookup
from quill_quota_limiter.usecases import publish_answers, rebuild_answers, take_in_customers, take_in_usage

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
NAMES = ("acme", "beta", "gamma")


class Replica:
    """One process's mirror, reader and lookup."""

    def __init__(self, url, store, *, organizations_max=100, stale_seconds=1.0, timeout_seconds=0.3):
        self.mirror = Mirror(organizations_max=organizations_max)
        self.redis = MultiplexedRedis(url, timeout_seconds=timeout_seconds)
        self.follower = MirrorFollower(self.mirror, url=url, redis=self.redis, store=store)
        self.reader = MultiplexedBoardReader(self.redis, Mirror(organizations_max=organizations_max))
        self.lookup = StandingLookup(self.mirror, self.reader, store, stale_seconds)

    async def __aenter__(self):
        await self.redis.start()
        await self.follower.start()
        return self

    async def __aexit__(self, *error):
        await self.follower.stop()
        await self.redis.stop()

    async def caught_up(self):
        """Return when everything published before this call is in the mirror."""
        asked = asyncio.get_running_loop().time()
        await until(lambda: self.mirror.synced_at > asked)


async def until(look, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not look():
            await asyncio.sleep(0.01)


class Wire:
    """A TCP proxy to Redis that can be frozen (open, silent) and cut."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._path = parts.path
        self._open = asyncio.Event()
        self._open.set()
        self._server = None
        self._tasks = set()

    async def __aenter__(self):
        await self.restore()
        return self

    async def __aexit__(self, *error):
        self._open.set()
        await self.cut()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self._port}{self._path}"

    _port = 0

    async def restore(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self):
        self._open.clear()

    def thaw(self):
        self._open.set()

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(self._pump(reader, upstream), self._pump(upstream_reader, writer))
            finally:
                upstream.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _pump(self, reader, writer):
        while data := await reader.read(65_536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.fixture
async def client(redis_url):
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
def deciding(customer_snapshot, usage_snapshot):
    """``await decide(store, board, name, quota, usage, tokens)``: facts in, decision out, answer put up."""
    revisions: dict[str, int] = {}

    async def decide(store, board, name="acme", *, quota=10, usage=1, tokens=("phc_1",)):
        revisions[name] = revision = revisions.get(name, 0) + 1
        customer = customer_snapshot(name, revision=revision, events=quota, tokens=tokens)
        async with store.begin() as tx:
            await take_in_customers([wire.from_wire_customer(customer)], tx=tx, now=NOW)
            used = usage_snapshot(name, revision=revision, events=usage)
            await take_in_usage([wire.from_wire_usage(used)], tx=tx, now=NOW)
        await publish_answers([name], store=store, board=board)

    return decide


async def test_changes_reach_every_replica_without_another_load(redis_url, redis_board, deciding):
    store = MemoryLimits()
    await rebuild_answers(store=store, board=redis_board)
    async with Replica(redis_url, store) as one, Replica(redis_url, store) as two:
        await deciding(store, redis_board, usage=10, tokens=("phc_1", "phc_2"))
        for replica in (one, two):
            await until(lambda replica=replica: replica.mirror.limited.get("events"))
            await until(lambda replica=replica: replica.mirror.owners == {"phc_1": "acme", "phc_2": "acme"})
            reading = await replica.lookup.read(["acme"])
            assert (reading.source, reading.standings["acme"].meters["events"].state) == ("mirror", "limited")
            assert reading.age_ms < 1_000
        await deciding(store, redis_board, quota=11, usage=10, tokens=("phc_2",))
        for replica in (one, two):
            await until(lambda replica=replica: not replica.mirror.limited["events"])
            await until(lambda replica=replica: replica.mirror.owners == {"phc_2": "acme"})


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("decide"),
            st.sampled_from(NAMES),
            st.integers(1, 3),
            st.integers(0, 4),
            st.sets(st.sampled_from(["phc_1", "phc_2", "phc_3"]), max_size=2),
        ),
        st.tuples(st.sampled_from(["rebuild", "flush", "miss"])),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=steps)
async def test_mirror_redis_and_store_are_equal_after_any_sequence(redis_url, redis_board, client, deciding, *, taken):
    """Decisions, rebuilds, a Redis that is emptied, changes that a mirror did not hear: the end is the same for all."""
    await client.flushdb()
    store = MemoryLimits()
    await rebuild_answers(store=store, board=redis_board)
    async with Replica(redis_url, store, stale_seconds=60) as replica:
        for step in taken:
            if step[0] == "decide":
                _, name, quota, usage, tokens = step
                await deciding(store, redis_board, name, quota=quota, usage=usage, tokens=tuple(sorted(tokens)))
            elif step[0] == "rebuild":
                await rebuild_answers(store=store, board=redis_board)
            elif step[0] == "flush":
                await client.flushdb()
            else:
                replica.follower._sequence -= 1
        if not await redis_board.is_complete():
            await rebuild_answers(store=store, board=redis_board)
        await replica.caught_up()
        from_redis = await replica.reader.read(NAMES)
        from_store = await replica.lookup._read_store(NAMES, ["phc_1", "phc_2", "phc_3"])
        assert from_redis.is_complete
        assert replica.mirror.standings == from_redis.standings == from_store.standings
        assert await replica.reader.token_owners(["phc_1", "phc_2", "phc_3"]) == from_store.owners
        assert replica.mirror.owners == from_store.owners


@pytest.mark.parametrize("fault", ["frozen", "killed"])
async def test_under_load_a_frozen_or_killed_redis_costs_bounded_time_and_no_wrong_answer(
    redis_url, redis_board, deciding, fault
):
    store = MemoryLimits()
    await rebuild_answers(store=store, board=redis_board)
    await deciding(store, redis_board, usage=10)
    slowest, sources, stopped = 0.0, set(), False
    async with Wire(redis_url) as wire_to_redis, Replica(wire_to_redis.url, store) as replica:
        await replica.caught_up()

        async def load():
            nonlocal slowest
            loop = asyncio.get_running_loop()
            while not stopped:
                began = loop.time()
                reading = await replica.lookup.read(["acme"])
                slowest = max(slowest, loop.time() - began)
                sources.add(reading.source)
                assert reading.standings["acme"].meters["events"].state == "limited"
                await asyncio.sleep(0.002)

        loads = [asyncio.create_task(load()) for _ in range(20)]
        await asyncio.sleep(0.2)
        if fault == "frozen":
            wire_to_redis.freeze()
        else:
            await wire_to_redis.cut()
        await until(lambda: "store" in sources)
        if fault == "frozen":
            wire_to_redis.thaw()
        else:
            await wire_to_redis.restore()
        await replica.caught_up()
        stopped = True
        await asyncio.gather(*loads)
    assert sources >= {"mirror", "store"}
    # One time limit of Redis, one of the store, and a machine that others use as well.
    assert slowest < 5.0


async def test_with_redis_and_postgres_away_the_last_known_state_answers_and_says_its_age(
    redis_url, redis_board, deciding
):
    store = MemoryLimits()
    await rebuild_answers(store=store, board=redis_board)
    await deciding(store, redis_board, usage=10)
    async with Wire(redis_url) as wire_to_redis, Replica(wire_to_redis.url, store) as replica:
        await replica.caught_up()

        @contextlib.asynccontextmanager
        async def away():
            raise ConnectionError("Postgres is away")
            yield

        store.begin = away
        await wire_to_redis.cut()
        await asyncio.sleep(1.3)
        reading = await replica.lookup.read(["acme", "nobody"])
        assert (reading.source, set(reading.standings)) == ("mirror", {"acme"})
        assert reading.age_ms > 1_000


async def test_a_redis_that_was_emptied_changes_no_answer(redis_url, redis_board, client, deciding):
    store = MemoryLimits()
    await rebuild_answers(store=store, board=redis_board)
    await deciding(store, redis_board, usage=10)
    async with Replica(redis_url, store, stale_seconds=0.5) as replica:
        await replica.caught_up()
        before = dict((await replica.lookup.read(["acme"])).standings)
        await client.flushdb()
        deadline = asyncio.get_running_loop().time() + 2
        while asyncio.get_running_loop().time() < deadline:
            assert (await replica.lookup.read(["acme"])).standings["acme"] == before["acme"]
            await asyncio.sleep(0.02)
        await rebuild_answers(store=store, board=redis_board)
        await replica.caught_up()
        assert (await replica.lookup.read(["acme"])).source == "mirror"


async def test_a_mirror_that_cannot_hold_everybody_asks_redis_for_the_others(redis_url, redis_board, deciding):
    store = MemoryLimits()
    for name in NAMES:
        await deciding(store, redis_board, name, tokens=(f"phc_{name}",))
    await rebuild_answers(store=store, board=redis_board)
    async with Replica(redis_url, store, organizations_max=1) as replica:
        await replica.caught_up()
        assert len(replica.mirror.standings) == 1
        for name in NAMES:
            reading = await replica.lookup.read([name], [f"phc_{name}"])
            assert reading.owners[f"phc_{name}"] == name
            assert reading.standings[name].revision
        assert (await replica.lookup.read(["nobody"])).source == "redis"


async def test_commands_under_way_fail_at_once_when_the_connection_breaks(redis_url):
    async with Wire(redis_url) as wire_to_redis:
        reader = MultiplexedRedis(wire_to_redis.url, timeout_seconds=5)
        await reader.start()
        assert await reader.ask("ECHO", "a") == b"a"
        wire_to_redis.freeze()
        waiting = [asyncio.ensure_future(reader.ask("ECHO", str(number))) for number in range(100)]
        await asyncio.sleep(0.05)
        await wire_to_redis.cut()
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert {type(outcome) for outcome in outcomes} == {BoardUnavailable}
        with pytest.raises(BoardUnavailable):
            await reader.ask("ECHO", "b")
        wire_to_redis.thaw()
        await wire_to_redis.restore()
        await until(lambda: reader.is_open)
        assert await reader.ask("ECHO", "c") == b"c"
        await reader.stop()


async def test_replies_meet_their_commands_however_many_callers_give_up(redis_url):
    reader = MultiplexedRedis(redis_url, timeout_seconds=5)
    await reader.start()

    async def ask(number):
        return await reader.ask("ECHO", str(number))

    for _ in range(20):
        tasks = [asyncio.create_task(ask(number)) for number in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            isinstance(outcome, asyncio.CancelledError) if number % 3 == 0 else outcome == str(number).encode()
            for number, outcome in enumerate(outcomes)
        )
    await reader.stop()


async def test_an_error_of_redis_is_one_callers_and_the_connection_stays(redis_url):
    reader = MultiplexedRedis(redis_url, timeout_seconds=5)
    await reader.start()
    with pytest.raises(BoardUnavailable, match="ERR"):
        await reader.ask("NO-SUCH-COMMAND")
    assert await reader.ask("PING") == b"PONG"
    await reader.stop()
