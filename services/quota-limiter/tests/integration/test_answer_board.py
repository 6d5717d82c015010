"""What an answer board must show, once in memory and once on Redis; and that Redis can be lost (L8, L9)."""

import asyncio
from datetime import UTC, datetime

import pytest
import redis.asyncio as redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_quota_limiter import wire
from quill_quota_limiter.domain.quota_answer import standing_of
from quill_quota_limiter.ports import BoardReading, BoardUnavailable
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.redis import RedisBoard
from quill_quota_limiter.store.standing_lookup import StandingLookup
from quill_quota_limiter.usecases import (
    TokensReader,
    answers,
    publish_answers,
    rebuild_answers,
    rebuild_if_lost,
    take_in_customers,
    take_in_usage,
)
from quill_quota_limiter.usecases.drift import find_drift

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
END = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
LIMITED = "@posthog/quota-limits/"
SUSPENDED = "@posthog/quota-limiting-suspended/"


@pytest.fixture
def memory_board():
    return MemoryBoard()


@pytest.fixture(params=["memory", "redis"])
async def board(request, memory_board, redis_board):
    """A board that was filled once, from a store that knew nobody."""
    board = {"memory": memory_board, "redis": redis_board}[request.param]
    assert await board.finish_rebuild(await board.begin_rebuild())
    return board


@pytest.fixture
async def client(redis_url):
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    await client.aclose()


async def marks_on(board, client):
    """Every mark: {set: {token: until}}, empty sets left out."""
    if isinstance(board, MemoryBoard):
        sets = {LIMITED + meter: dict(scores) for meter, scores in board.limited.items()}
        sets |= {SUSPENDED + meter: dict(scores) for meter, scores in board.suspended.items()}
        return {name: scores for name, scores in sets.items() if scores}
    keys = await client.keys("@posthog/*")
    return {key: {t: int(s) for t, s in await client.zrange(key, 0, -1, withscores=True)} for key in keys}


async def script_runs(client) -> int:
    return (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]


@pytest.fixture
def world(customer_snapshot, usage_snapshot):
    """A store, and ``await arrive(...)`` returning the limits as they are after each arrival."""
    store = MemoryLimits()

    async def arrive(*snapshots, name="acme"):
        async with store.begin() as tx:
            for snapshot in snapshots:
                if hasattr(snapshot, "periods"):
                    await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=NOW)
                else:
                    await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=NOW)
        async with store.begin() as tx:
            return (await tx.limits([name]))[name]

    return store, arrive


async def tokens_in(store, names):
    async with store.begin() as tx:
        return await tx.tokens(names)


async def test_a_limit_marks_every_project_and_a_release_unmarks_them(
    board, client, world, customer_snapshot, usage_snapshot
):
    store, arrive = world
    trust = {"recordings": 7}
    both = ("phc_1", "phc_2")
    await arrive(customer_snapshot(events=10, recordings=5, tokens=both, trust_scores=trust))
    await arrive(usage_snapshot(events=10, recordings=2_000))
    await publish_answers(["acme"], store=store, board=board)
    assert await marks_on(board, client) == {
        LIMITED + "events": dict.fromkeys(both, END),
        SUSPENDED + "recordings": dict.fromkeys(both, int(datetime(2026, 10, 12, tzinfo=UTC).timestamp())),
    }
    await arrive(customer_snapshot(revision=2, events=11, recordings=9_000, tokens=both))
    await publish_answers(["acme"], store=store, board=board)
    assert await marks_on(board, client) == {}


async def test_a_project_that_comes_is_marked_and_one_that_goes_is_not(
    board, client, world, customer_snapshot, usage_snapshot
):
    store, arrive = world
    await arrive(customer_snapshot(events=10, tokens=("phc_1",)), usage_snapshot(events=10))
    await publish_answers(["acme"], store=store, board=board)
    await arrive(customer_snapshot(revision=2, events=10, tokens=("phc_2",)))
    await publish_answers(["acme"], store=store, board=board)
    assert await marks_on(board, client) == {LIMITED + "events": {"phc_2": END}}


async def test_one_organization_leaves_the_marks_of_another_alone(
    board, client, world, customer_snapshot, usage_snapshot
):
    store, arrive = world
    for name in ("acme", "beta"):
        await arrive(
            customer_snapshot(name, events=10, tokens=(f"phc_{name}",)), usage_snapshot(name, events=10), name=name
        )
    await publish_answers(["acme", "beta"], store=store, board=board)
    await arrive(customer_snapshot("acme", revision=2, events=99, tokens=("phc_acme",)))
    await publish_answers(["acme"], store=store, board=board)
    assert await marks_on(board, client) == {LIMITED + "events": {"phc_beta": END}}


async def test_a_stale_evaluation_overwrites_neither_answer_nor_marks(
    board, client, world, customer_snapshot, usage_snapshot
):
    store, arrive = world
    released = await arrive(customer_snapshot(events=10), usage_snapshot(events=1))
    limited = await arrive(usage_snapshot(revision=2, events=10))

    async def read_tokens(names):
        return await tokens_in(store, names)

    await board.publish([limited], tokens_of=read_tokens)
    for rewrite in (False, True):
        await board.publish([released], tokens_of=read_tokens, rewrite=rewrite)
        assert (await board.read(["acme"])).standings["acme"] == standing_of(limited)
        assert await marks_on(board, client) == {LIMITED + "events": {"phc_1": END}}


async def test_many_at_once_are_put_up_each_by_its_own_revision(
    board, client, world, customer_snapshot, usage_snapshot
):
    """More than one run of the script takes, one of them with more tokens than a run should have."""
    store, arrive = world
    names = [f"org-{number:02}" for number in range(45)]
    tokens = {name: (f"phc_{name}",) for name in names} | {"org-25": tuple(f"phc_{n}" for n in range(1_500))}
    released, limited = [], []
    for name in names:
        customer = customer_snapshot(name, events=10, tokens=tokens[name])
        released.append(await arrive(customer, usage_snapshot(name, events=1), name=name))
        limited.append(await arrive(usage_snapshot(name, revision=2, events=10), name=name))

    async def read_tokens(names):
        return await tokens_in(store, names)

    await board.publish(limited[::3], tokens_of=read_tokens)
    for rewrite in (False, True):
        await board.publish(released, tokens_of=read_tokens, rewrite=rewrite)
        standings = (await board.read(names)).standings
        newest = [limited[at] if at % 3 == 0 else released[at] for at in range(len(names))]
        assert standings == {found.organization_id: standing_of(found) for found in newest}
        marked = {token for name in names[::3] for token in tokens[name]}
        assert await marks_on(board, client) == {LIMITED + "events": dict.fromkeys(marked, END)}
    await board.publish(limited, tokens_of=read_tokens)
    marked = {token for name in names for token in tokens[name]}
    assert len(marked) == 44 + 1_500
    assert await marks_on(board, client) == {LIMITED + "events": dict.fromkeys(marked, END)}
    if isinstance(board, RedisBoard):
        before = await script_runs(client)
        await board.publish(limited, tokens_of=read_tokens, rewrite=True)
        # 20 organizations, the 5 up to the one of many tokens, that one, and the 19 behind it.
        assert await script_runs(client) - before == 4


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(8)), again=st.lists(st.integers(0, 7), max_size=4))
async def test_writers_in_any_order_end_at_the_newest_revision(
    board, client, customer_snapshot, usage_snapshot, *, order, again
):
    store = MemoryLimits()
    versions = []
    for number in range(8):
        async with store.begin() as tx:
            if number == 0:
                await take_in_customers([wire.from_wire_customer(customer_snapshot(events=4))], tx=tx, now=NOW)
            usage = wire.from_wire_usage(usage_snapshot(revision=number + 1, events=(number * 3) % 7))
            await take_in_usage([usage], tx=tx, now=NOW)
        async with store.begin() as tx:
            versions.append((await tx.limits(["acme"]))["acme"])
    await board.remove_organizations(["acme"])

    async def read_tokens(names):
        return await tokens_in(store, names)

    for number in [*order, *again]:
        await board.publish([versions[number]], tokens_of=read_tokens)
    newest = versions[-1]
    assert (await board.read(["acme"])).standings["acme"] == standing_of(newest)
    is_limited = newest.meters["events"].state.name == "limited"
    assert await marks_on(board, client) == ({LIMITED + "events": {"phc_1": END}} if is_limited else {})


async def fill(store, arrive, customer_snapshot, usage_snapshot):
    names = [f"org-{number}" for number in range(12)]
    for number, name in enumerate(names):
        tokens = tuple(f"phc_{number}_{project}" for project in range(number % 4))
        trust = {"events": (None, 3, 7, 10)[number % 4]} if number % 4 else {}
        await arrive(
            customer_snapshot(name, events=number * 10, recordings=5, tokens=tokens, trust_scores=trust),
            usage_snapshot(name, events=60, recordings=number * 150),
            name=name,
        )
    return names


async def test_a_lost_board_is_rebuilt_with_identical_answers(board, client, world, customer_snapshot, usage_snapshot):
    store, arrive = world
    names = await fill(store, arrive, customer_snapshot, usage_snapshot)
    await rebuild_if_lost(store=store, board=board)
    await publish_answers(names, store=store, board=board)
    before = await board.read(names), await marks_on(board, client)
    assert len(before[0].standings) == len(names)
    assert before[1]
    if isinstance(board, MemoryBoard):
        board.empty()
    else:
        await client.flushdb()
    assert not await board.is_complete()
    lookup = StandingLookup(Mirror(organizations_max=100), board, store, stale_seconds=5.0)
    reading = await lookup.read(names)
    assert (reading.source, reading.standings) == ("store", before[0].standings)
    report = await rebuild_if_lost(store=store, board=board)
    assert report.is_complete
    assert report.organizations == len(names)
    assert (await board.read(names), await marks_on(board, client)) == before
    assert await rebuild_if_lost(store=store, board=board) is None


async def test_a_rebuild_repairs_marks_and_removes_what_the_store_does_not_know(
    redis_board, client, world, customer_snapshot, usage_snapshot
):
    store, arrive = world
    names = await fill(store, arrive, customer_snapshot, usage_snapshot)
    await rebuild_answers(store=store, board=redis_board)
    before = await redis_board.read([*names, "ghost"]), await marks_on(redis_board, client)
    await client.zadd(LIMITED + "events", {"phc_ghost": END, "phc_7_1": 1})
    await client.zrem(LIMITED + "events", "phc_3_0")
    await client.zadd(SUSPENDED + "never_heard_of", {"phc_ghost": END, "phc_7_1": END})
    await client.delete("quill:limits-board:meters")
    generation = await client.get("quill:limits-board:generation")
    await client.set(f"quill:limits:{generation}:ghost", await client.get(f"quill:limits:{generation}:org-3"))
    await client.set("quill:limits-marks:ghost", "1 ab 1")
    report = await rebuild_answers(store=store, board=redis_board)
    assert (report.removed_organizations, report.removed_tokens) == (1, 1)
    assert (await redis_board.read([*names, "ghost"]), await marks_on(redis_board, client)) == before


async def test_a_board_emptied_during_a_rebuild_is_not_called_complete(board, client, world):
    store, _ = world
    mark = await board.begin_rebuild()
    if isinstance(board, MemoryBoard):
        board.empty()
    else:
        await client.flushdb()
    assert not await board.finish_rebuild(mark)
    assert not await board.is_complete()
    assert (await rebuild_answers(store=store, board=board)).is_complete


async def test_a_rebuild_of_many_pages_misses_none(
    board, client, world, customer_snapshot, usage_snapshot, *, monkeypatch
):
    store, arrive = world
    names = await fill(store, arrive, customer_snapshot, usage_snapshot)
    await rebuild_answers(store=store, board=board)
    before = await board.read(names), await marks_on(board, client)
    for page in (1, 5, len(names)):  # less than a page at the end, and none
        monkeypatch.setattr(answers, "REBUILD_PAGE", page)
        await board.remove_organizations(names)
        report = await rebuild_answers(store=store, board=board)
        assert (report.organizations, report.is_complete) == (len(names), True)
        assert (await board.read(names), await marks_on(board, client)) == before


async def test_a_rebuild_that_fails_half_way_leaves_what_is_read_and_nobody_at_work(
    board, world, customer_snapshot, usage_snapshot, monkeypatch
):
    store, arrive = world
    names = await fill(store, arrive, customer_snapshot, usage_snapshot)
    await rebuild_answers(store=store, board=board)
    before = await board.read(names)
    monkeypatch.setattr(answers, "REBUILD_PAGE", 1)
    publish, pages = board.publish, []

    async def publish_four(limits, **how):
        pages.append(limits)
        if len(pages) == 5:
            raise BoardUnavailable("gone")
        await asyncio.sleep(0.01)  # the other writers are at work when it fails
        await publish(limits, **how)

    monkeypatch.setattr(board, "publish", publish_four)
    others = asyncio.all_tasks()
    with pytest.raises(BoardUnavailable, match="gone"):
        await rebuild_answers(store=store, board=board)
    assert asyncio.all_tasks() <= others
    assert len(pages) < len(names)
    assert await board.read(names) == before
    monkeypatch.setattr(board, "publish", publish)
    assert (await rebuild_answers(store=store, board=board)).organizations == len(names)


async def test_nothing_on_the_board_expires(redis_board, client, world, customer_snapshot, usage_snapshot):
    store, arrive = world
    await arrive(customer_snapshot(events=10), usage_snapshot(events=10))
    await rebuild_answers(store=store, board=redis_board)
    generation = await client.get("quill:limits-board:generation")
    assert {key: await client.ttl(key) for key in await client.keys("*")} == {
        f"quill:limits:{generation}:acme": -1,
        f"quill:limits-revisions:{generation}": -1,
        f"quill:limits-tokens:{generation}": -1,
        "quill:limits-marks:acme": -1,
        "quill:limits-board:generation": -1,
        "quill:limits-board:meters": -1,
        LIMITED + "events": -1,
    }


async def test_a_reader_never_sees_a_half_built_generation(board, client, world, customer_snapshot, usage_snapshot):
    """Invariant 13: while a rebuild fills the new generation, every read gives the old one, whole."""
    store, arrive = world
    names = await fill(store, arrive, customer_snapshot, usage_snapshot)
    await rebuild_answers(store=store, board=board)
    before = (await board.read(names)).standings
    mark = await board.begin_rebuild()
    for name in names[:-1]:
        async with store.begin() as tx:
            limits = await tx.limits([name])
        await board.publish(list(limits.values()), tokens_of=TokensReader(store), rewrite=True)
        assert await board.read(names) == BoardReading(is_complete=True, standings=before)
    assert await board.finish_rebuild(mark)
    assert (await board.read(names)).standings.keys() == set(names[:-1])


async def test_a_limit_set_during_a_full_rebuild_survives_it(board, client, world, customer_snapshot, usage_snapshot):
    """Wire contract 7.1: the rebuild read the organization before it was limited, and writes after."""
    store, arrive = world
    await arrive(customer_snapshot(events=10, tokens=("phc_1", "phc_2")), usage_snapshot(events=1))
    await rebuild_answers(store=store, board=board)
    mark = await board.begin_rebuild()
    async with store.begin() as tx:
        read_before = await tx.limits(["acme"])
    limited = await arrive(usage_snapshot(revision=2, events=10))
    await publish_answers(["acme"], store=store, board=board)
    await board.publish(list(read_before.values()), tokens_of=TokensReader(store), rewrite=True)
    assert await board.finish_rebuild(mark)
    assert (await board.read(["acme"])).standings["acme"] == standing_of(limited)
    assert await marks_on(board, client) == {LIMITED + "events": dict.fromkeys(("phc_1", "phc_2"), END)}


async def test_usage_that_changes_no_mark_during_a_rebuild_keeps_the_tokens(
    redis_board, client, world, customer_snapshot, usage_snapshot
):
    store, arrive = world
    await arrive(customer_snapshot(events=10, tokens=("phc_1",)), usage_snapshot(events=1))
    await rebuild_answers(store=store, board=redis_board)
    mark = await redis_board.begin_rebuild()
    await arrive(usage_snapshot(revision=2, events=2))
    await publish_answers(["acme"], store=store, board=redis_board)
    assert await redis_board.finish_rebuild(mark)
    assert await client.hgetall(f"quill:limits-tokens:{mark}") == {"phc_1": "acme"}


async def test_nothing_of_an_old_or_abandoned_generation_stays(redis_board, client, world, customer_snapshot):
    store, arrive = world
    await arrive(customer_snapshot(events=10))
    await rebuild_answers(store=store, board=redis_board)
    await redis_board.begin_rebuild()
    await publish_answers(["acme"], store=store, board=redis_board)
    await rebuild_answers(store=store, board=redis_board)
    current = await client.get("quill:limits-board:generation")
    generations = {key.split(":")[2] for key in await client.keys("quill:limits*") if "board" not in key}
    assert generations == {current, "acme"}


async def test_thousands_of_projects_are_marked_in_one_step(
    redis_board, client, world, customer_snapshot, usage_snapshot
):
    store, arrive = world
    tokens = tuple(f"phc_{number}" for number in range(12_345))
    await arrive(customer_snapshot(events=10, tokens=tokens), usage_snapshot(events=10))
    await publish_answers(["acme"], store=store, board=redis_board)
    assert await client.zcard(LIMITED + "events") == len(tokens)
    await arrive(customer_snapshot(revision=2, events=10, tokens=()))
    await publish_answers(["acme"], store=store, board=redis_board)
    assert await client.zcard(LIMITED + "events") == 0


async def test_a_redis_that_is_away_is_said_to_be_unavailable():
    board = RedisBoard("redis://127.0.0.1:1/0")
    with pytest.raises(BoardUnavailable):
        await board.read(["acme"])
    await board.stop()


async def test_every_kind_of_drift_is_found_and_repaired(redis_board, client, world, customer_snapshot, usage_snapshot):
    store, arrive = world
    names = await fill(store, arrive, customer_snapshot, usage_snapshot)
    await rebuild_answers(store=store, board=redis_board)
    before = await redis_board.read(names), await marks_on(redis_board, client)
    clean = await find_drift(store=store, board=redis_board, settle_seconds=0)
    assert (clean.organizations, clean.counts) == (len(names), {})
    generation = await client.get("quill:limits-board:generation")
    answers = f"quill:limits:{generation}:"
    await client.delete(answers + "org-1")
    await client.set(answers + "org-2", '{"revision":0,"license_id":"license-1","meters":{}}')
    await client.set(answers + "org-3", (await client.get(answers + "org-3")).replace('"license-1"', '"license-9"'))
    await client.zadd(LIMITED + "events", {"phc_ghost": END, "phc_7_1": 1})
    await client.zrem(LIMITED + "events", "phc_5_0")
    await client.set("quill:limits-marks:ghost", "1 ab 1")
    found = await find_drift(store=store, board=redis_board, settle_seconds=0)
    assert found.counts == {
        "missing_answer": 1,
        "stale_answer": 1,
        "wrong_answer": 1,
        "wrong_mark": 2,
        "unknown_organization": 1,
        "foreign_mark": 1,
    }
    assert {drift.subject for drift in found.drifts} == {
        "org-1", "org-2", "org-3", "phc_7_1", "phc_5_0", "ghost", "phc_ghost",
    }  # fmt: skip
    repaired = await find_drift(store=store, board=redis_board, repair=True, settle_seconds=0)
    assert repaired.counts == found.counts
    assert (await find_drift(store=store, board=redis_board, settle_seconds=0)).counts == {}
    assert (await redis_board.read(names), await marks_on(redis_board, client)) == before


async def test_what_is_decided_while_comparing_is_no_drift(board, world, customer_snapshot, usage_snapshot):
    """Committed, and put up a moment later: the second look finds nothing."""
    store, arrive = world
    await arrive(customer_snapshot(events=10), usage_snapshot(events=1))
    await rebuild_answers(store=store, board=board)
    await arrive(usage_snapshot(revision=2, events=10))
    comparing = asyncio.create_task(find_drift(store=store, board=board, settle_seconds=1.0))
    await asyncio.sleep(0.3)
    await publish_answers(["acme"], store=store, board=board)
    assert (await comparing).counts == {}
