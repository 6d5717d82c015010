"""Two replicas evaluate while a limit changes: whatever happens in which order, the newest facts hold (L9)."""

import random
from datetime import UTC, datetime
from itertools import permutations

import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.domain.limit_state import replay
from quill_quota_limiter.domain.quota_answer import standing_of
from quill_quota_limiter.store.memory import MemoryBoard, MemoryLimits
from quill_quota_limiter.usecases.answers import TokensReader
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
ACTORS = ("usage 2", "usage 3", "limit")
STEPS = ("decide", "read", "put up")
ON_REDIS = 60


def interleavings():
    """Every order in which the three actors can take their three steps each: 1,680."""
    turns = [actor for actor in ACTORS for _ in STEPS]
    return sorted(set(permutations(turns)))


async def fill(board):
    """A board is not complete before it was filled once, here from a store that knew nobody."""
    assert await board.finish_rebuild(await board.begin_rebuild())


async def play(order, store, board, *, name, customer_snapshot, usage_snapshot):
    """Each actor decides in its transaction, reads what is decided, and puts that up: three steps others can fall between."""

    async def decide(actor):
        async with store.begin() as tx:
            if actor == "limit":
                snapshot = customer_snapshot(name, revision=2, tokens=(f"phc_{name}",), events=2_000)
                await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=NOW)
            else:
                revision, used = {"usage 2": (2, 1_500), "usage 3": (3, 2_100)}[actor]
                snapshot = usage_snapshot(name, revision=revision, events=used)
                await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=NOW)

    first = customer_snapshot(name, tokens=(f"phc_{name}",), events=1_000)
    async with store.begin() as tx:
        await take_in_customers([wire.from_wire_customer(first)], tx=tx, now=NOW)
        await take_in_usage([wire.from_wire_usage(usage_snapshot(name, events=10))], tx=tx, now=NOW)
    taken, read = dict.fromkeys(ACTORS, 0), {}
    for actor in order:
        step = STEPS[taken[actor]]
        taken[actor] += 1
        if step == "decide":
            await decide(actor)
        elif step == "read":
            async with store.begin() as tx:
                read[actor] = (await tx.limits([name]))[name]
        else:
            await board.publish([read[actor]], tokens_of=TokensReader(store))
    async with store.begin() as tx:
        limits, log = (await tx.limits([name]))[name], await tx.log(name, "events")
    return limits, log, (await board.read([name])).standings[name]


def check(limits, log, standing):
    found = limits.meters["events"]
    assert (found.quota, found.usage, found.state.name) == (2_000, 2_100, "limited")
    assert replay(log) == found.state
    assert standing == standing_of(limits)


async def test_every_interleaving_of_two_evaluations_and_a_limit_change_ends_at_the_newest_facts(
    customer_snapshot, usage_snapshot
):
    orders = interleavings()
    assert len(orders) == 1_680
    for order in orders:
        board = MemoryBoard()
        await fill(board)
        given = {"customer_snapshot": customer_snapshot, "usage_snapshot": usage_snapshot}
        check(*await play(order, MemoryLimits(), board, name="acme", **given))
        assert board.limited["events"] == {"phc_acme": int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())}


async def test_so_it_is_on_redis(redis_board, customer_snapshot, usage_snapshot):
    await fill(redis_board)
    for number, order in enumerate(random.Random(7).sample(interleavings(), ON_REDIS)):
        given = {"customer_snapshot": customer_snapshot, "usage_snapshot": usage_snapshot}
        check(*await play(order, MemoryLimits(), redis_board, name=f"org-{number}", **given))
