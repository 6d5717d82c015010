"""Records in: what is refused by name, and what a crash between commit and board leaves to the redelivery."""

import asyncio
from datetime import UTC, datetime

import orjson
import pytest
from quill_quota_limiter import consumers
from quill_quota_limiter.domain.scope import Cap, LimitScope, ScopeSettings
from quill_quota_limiter.store.memory import MemoryBoard
from quill_quota_limiter.store.postgres import PostgresLimits
from quill_quota_limiter.usecases.set_scopes import set_scopes
from quill_runtime.consumption import Received, Record, Rejected, rejection_of
from quill_runtime.outbox import Outbox

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)


@pytest.fixture
def store(database):
    return PostgresLimits(database, Outbox())


@pytest.fixture
async def board():
    """A board that was filled once, from a store that knew nobody."""
    board = MemoryBoard()
    assert await board.finish_rebuild(await board.begin_rebuild())
    return board


def record(value: bytes | None) -> Record:
    return Record("topic", 0, 0, b"acme", value, {})


async def deliver(consumption, message, database):
    """Decode and apply one record in its own transaction, as the runner does; the follow-up is the caller's."""
    received = Received(consumption.decode(record(message.to_bytes())), record(message.to_bytes()))
    async with database.begin() as transaction:
        return await consumption.apply(transaction, [received], NOW)


async def test_a_crash_before_the_board_is_healed_by_the_redelivery(
    store, board, database, customer_snapshot, usage_snapshot
):
    customers, usage = consumers.customers(store, board), consumers.period_usage(store, board)
    await deliver(customers, customer_snapshot(events=10), database)
    await deliver(usage, usage_snapshot(events=10), database)
    assert (await board.read(["acme"])).standings == {}
    follow_up = await deliver(usage, usage_snapshot(events=10), database)
    await follow_up()
    assert (await board.read(["acme"])).standings["acme"].meters["events"].state == "limited"


async def test_follow_ups_that_overtake_each_other_end_at_the_newest(
    store, board, database, customer_snapshot, usage_snapshot
):
    customers, usage = consumers.customers(store, board), consumers.period_usage(store, board)
    follow_ups = [await deliver(customers, customer_snapshot(events=10), database)]
    follow_ups += [await deliver(usage, usage_snapshot(revision=n, events=n), database) for n in (9, 10, 3)]
    await asyncio.gather(*(follow_up() for follow_up in reversed(follow_ups)))
    assert (await board.read(["acme"])).standings["acme"].meters["events"].usage == 10


async def test_usage_of_an_organization_without_a_customer_puts_nothing_up(store, board, database, usage_snapshot):
    follow_up = await deliver(consumers.period_usage(store, board), usage_snapshot(events=10), database)
    await follow_up()
    assert (await board.read(["acme"])).standings == {}


async def test_usage_of_teams_waits_for_the_first_scope_and_then_decides(
    store, board, database, customer_snapshot, team_usage_snapshot
):
    customers, teams = consumers.customers(store, board), consumers.team_usage(store, board)
    await deliver(teams, team_usage_snapshot("0", revision=2, events=5), database)
    await deliver(customers, customer_snapshot(events=None), database)
    follow_up = await deliver(teams, team_usage_snapshot("0", revision=1, events=1), database)
    await follow_up()
    assert (await board.read(["acme"])).standings == {}, "nothing was decided"
    scope = LimitScope("team:0", "team", ("0",), {"events": Cap(units=5)})
    async with store.begin() as tx:
        await set_scopes("acme", ScopeSettings(1, (scope,)), actor="ada", reason="asked", tx=tx, now=NOW)
    follow_up = await deliver(teams, team_usage_snapshot("0", revision=3, events=6), database)
    await follow_up()
    standing = (await board.read(["acme"])).standings["acme"]
    assert standing.scopes.meters["team:0"]["events"].state == "limited"
    assert standing.scopes.meters["team:0"]["events"].usage == 6
    with pytest.raises(ValueError, match="team_id"):
        teams.decode(record(team_usage_snapshot("0").to_bytes().replace(b'"team_id":"0"', b'"team_id":""')))


@pytest.mark.parametrize(
    ("change", "code", "attribute"),
    [
        (None, "empty_value", None),
        (b"\xff{", "not_json", None),
        ({"revision": 0}, "invalid_message", "revision"),
        ({"schedule": {"anchor": "2026-10-01T00:00:00Z", "interval": "99999 months"}}, "invalid_schedule", "schedule"),
    ],
    ids=["tombstone", "not json", "no revision", "an interval of 8,333 years"],
)
def test_a_customer_that_cannot_be_read_is_refused_by_field(store, customer_snapshot, change, code, attribute):
    value = change
    if isinstance(change, dict):
        value = orjson.dumps(orjson.loads(customer_snapshot().to_bytes()) | change)
    with pytest.raises((Rejected, ValueError)) as refused:
        consumers.customers(store, MemoryBoard()).decode(record(value))
    rejected = rejection_of(refused.value)
    assert (rejected.code, rejected.attribute) == (code, attribute)
