"""What a limits store must show, once for memory and once for Postgres; and what only Postgres can show."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from quill_contracts.limits import LimitStates, LimitTransition
from quill_quota_limiter import wire
from quill_quota_limiter.domain.limit_state import replay
from quill_quota_limiter.domain.project_marks import ProjectTokens
from quill_quota_limiter.store import statements, tables
from quill_quota_limiter.store.memory import MemoryBoard
from quill_quota_limiter.store.postgres import PostgresLimits
from quill_quota_limiter.store.tables import metadata
from quill_quota_limiter.usecases import evaluate_due, take_in_customers, take_in_usage
from quill_runtime.outbox import Outbox
from quill_runtime.tables import outbox as outbox_table
from quill_runtime.tables import runtime_metadata
from sqlalchemy import MetaData, select

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)


@pytest.fixture
def postgres(database):
    return PostgresLimits(database, Outbox())


async def arrive(store, *snapshots, now=NOW):
    customers = [wire.from_wire_customer(s) for s in snapshots if hasattr(s, "items")]
    usages = [wire.from_wire_usage(s) for s in snapshots if hasattr(s, "periods")]
    async with store.begin() as tx:
        if customers:
            await take_in_customers(customers, tx=tx, now=now)
        if usages:
            await take_in_usage(usages, tx=tx, now=now)


async def limits_of(store, organization_id="acme"):
    async with store.begin() as tx:
        return (await tx.limits([organization_id]))[organization_id]


async def log_of(store, meter="events", as_of=None):
    async with store.begin() as tx:
        return await tx.log("acme", meter, as_of=as_of)


async def tokens_of(store, *names):
    async with store.begin() as tx:
        return await tx.tokens(names)


async def test_usage_waits_for_its_customer_and_decides_when_it_comes(store, customer_snapshot, usage_snapshot):
    await arrive(store, usage_snapshot(events=1_000))
    waiting = await limits_of(store)
    assert (waiting.is_known, waiting.meters, waiting.next_evaluation_at) == (False, {}, None)
    await arrive(store, customer_snapshot(events=1_000))
    assert (await limits_of(store)).meters["events"].state.name == "limited"


async def test_an_older_revision_changes_nothing(store, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(revision=5, events=1_000), usage_snapshot(revision=5, events=10))
    before = await limits_of(store)
    await arrive(store, customer_snapshot(revision=4, events=1, tokens=()), usage_snapshot(revision=4, events=5_000))
    assert await limits_of(store) == before
    assert await tokens_of(store, "acme") == {"acme": ProjectTokens(active=("phc_1",), teams={"phc_1": "0"})}


async def test_a_batch_with_several_revisions_keeps_the_newest(store, customer_snapshot, usage_snapshot):
    customers = [customer_snapshot(revision=number, events=number * 100) for number in (2, 3, 1)]
    await arrive(store, *customers, usage_snapshot(revision=2, events=299), usage_snapshot(revision=1, events=9_999))
    found = (await limits_of(store)).meters["events"]
    assert (found.quota, found.usage, found.state.name) == (300, 299, "near")


async def test_arriving_again_leaves_revision_and_log_as_they_are(store, customer_snapshot, usage_snapshot):
    facts = (customer_snapshot(events=1_000), usage_snapshot(events=1_000))
    await arrive(store, *facts)
    before, log = await limits_of(store), await log_of(store)
    await arrive(store, *facts)
    assert (await limits_of(store), await log_of(store)) == (before, log)


async def test_the_log_replays_to_the_stored_state_and_answers_as_of(store, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=1_000), usage_snapshot(events=1_000))
    later = NOW + timedelta(hours=1)
    await arrive(store, customer_snapshot(revision=2, events=9_000), now=later)
    log = await log_of(store)
    assert [(t.sequence, t.from_state, t.to_state) for t in log] == [
        (1, None, "within"),
        (2, "within", "limited"),
        (3, "limited", "within"),
    ]
    assert replay(log) == (await limits_of(store)).meters["events"].state
    assert replay(await log_of(store, as_of=later - timedelta(microseconds=1))).name == "limited"


async def test_a_moved_project_keeps_its_new_owner(store, customer_snapshot):
    await arrive(store, customer_snapshot("acme", tokens=("phc_1", "phc_2")))
    await arrive(store, customer_snapshot("beta", tokens=("phc_2",)))
    assert await tokens_of(store, "acme", "beta") == {
        "acme": ProjectTokens(active=("phc_1",), teams={"phc_1": "0"}),
        "beta": ProjectTokens(active=("phc_2",), teams={"phc_2": "0"}),
    }
    await arrive(store, customer_snapshot("acme", revision=2, tokens=("phc_1", "phc_2", "phc_3")))
    await arrive(store, customer_snapshot("acme", revision=3, tokens=("phc_3",)))
    assert await tokens_of(store, "acme", "beta") == {
        "acme": ProjectTokens(active=("phc_3",), retired=("phc_1",), teams={"phc_3": "0"}),
        "beta": ProjectTokens(active=("phc_2",), teams={"phc_2": "0"}),
    }


async def test_new_tokens_raise_the_revision_although_no_state_changed(store, customer_snapshot):
    await arrive(store, customer_snapshot(events=1_000))
    before = await limits_of(store)
    await arrive(store, customer_snapshot(revision=2, events=1_000, tokens=("phc_1", "phc_9")))
    after = await limits_of(store)
    assert (after.revision, after.tokens_revision) == (before.revision + 1, before.tokens_revision + 1)


async def test_time_alone_ends_a_grace_and_a_period(store, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=1_000, trust_scores={"events": 7}), usage_snapshot(events=1_000))
    board = MemoryBoard()
    assert await evaluate_due(store=store, board=board, now=NOW) == 0
    midnight = datetime(2026, 10, 12, tzinfo=UTC)
    assert await evaluate_due(store=store, board=board, now=midnight - timedelta(microseconds=1)) == 0
    assert await evaluate_due(store=store, board=board, now=midnight) == 1
    assert (await limits_of(store)).meters["events"].state.name == "limited"
    assert board.limited["events"] == {"phc_1": int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())}
    assert await evaluate_due(store=store, board=board, now=datetime(2026, 11, 1, tzinfo=UTC)) == 1
    released = await limits_of(store)
    assert (released.meters["events"].state.name, released.meters["events"].usage) == ("within", 0)
    assert released.next_evaluation_at == released.period_end == datetime(2026, 12, 1, tzinfo=UTC)
    assert board.limited["events"] == {}


async def test_a_decision_whose_answer_did_not_get_up_is_put_up_by_a_later_run(
    store, customer_snapshot, usage_snapshot
):
    await arrive(store, customer_snapshot(events=1_000, trust_scores={"events": 7}), usage_snapshot(events=1_000))
    board = MemoryBoard()
    board.is_away = True
    due = datetime(2026, 10, 12, tzinfo=UTC)
    with pytest.raises(ConnectionError):
        await evaluate_due(store=store, board=board, now=due)
    board.is_away = False
    assert await evaluate_due(store=store, board=board, now=due + timedelta(seconds=10)) == 1
    assert board.limited["events"]
    assert (await limits_of(store)).next_evaluation_at == datetime(2026, 11, 1, tzinfo=UTC)


async def test_a_transaction_that_fails_leaves_nothing(store, customer_snapshot):
    async def fail():
        async with store.begin() as tx:
            await take_in_customers([wire.from_wire_customer(customer_snapshot())], tx=tx, now=NOW)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        await fail()
    async with store.begin() as tx:
        assert await tx.limits(["acme"]) == {}
        assert await tx.log("acme", "events") == []


async def test_known_organizations_are_paged_in_order(store, customer_snapshot, usage_snapshot):
    names = ["b", "d", "a", "c"]
    await arrive(store, *(customer_snapshot(name, tokens=()) for name in names), usage_snapshot("unknown", events=1))
    async with store.begin() as tx:
        first = await tx.known_limits_after("", at_most=3)
        second = await tx.known_limits_after(first[-1].organization_id, at_most=3)
    assert [found.organization_id for found in first + second] == ["a", "b", "c", "d"]


async def test_each_change_is_announced_with_its_evidence(postgres, database, customer_snapshot, usage_snapshot):
    await arrive(postgres, customer_snapshot(events=1_000))
    await arrive(postgres, usage_snapshot(events=1_200))
    async with database.begin() as transaction:
        rows = (await transaction.connection.execute(select(outbox_table).order_by(outbox_table.c.id))).all()
    assert [(row.topic, row.key) for row in rows] == [
        ("limits.transitions.v1", "acme"),
        ("limits.states.v1", "acme"),
    ] * 2 + [("limits.thresholds.v1", "acme")] * 3
    changed = LimitTransition.from_bytes(rows[2].value)
    assert (changed.from_state, changed.to_state, changed.evidence.usage) == ("within", "limited", 1_200)
    states = LimitStates.from_bytes(rows[3].value)
    assert (states.revision, states.states["events"].state) == (2, "limited")


async def test_both_consumers_at_once_end_at_the_newest_facts(postgres, customer_snapshot, usage_snapshot):
    """Every interleaving of customers and usage, each as its own transaction, all released together (L9)."""
    names = [f"org-{number}" for number in range(5)]
    arrivals = [
        arrive(postgres, *(customer_snapshot(name, revision=n, events=n * 10, tokens=()) for name in names))
        for n in range(1, 9)
    ] + [
        arrive(postgres, *(usage_snapshot(name, revision=n, events=n * 9) for name in reversed(names)))
        for n in range(1, 9)
    ]
    await asyncio.gather(*(arrivals[number] for number in (3, 12, 7, 8, 0, 15, 4, 11, 1, 9, 6, 14, 2, 10, 5, 13)))
    for name in names:
        found = (await limits_of(postgres, name)).meters["events"]
        assert (found.quota, found.usage, found.state.name) == (80, 72, "near")
        async with postgres.begin() as tx:
            assert replay(await tx.log(name, "events")) == found.state


async def test_two_replicas_do_not_evaluate_one_due_organization_twice(postgres, customer_snapshot):
    await arrive(postgres, *(customer_snapshot(f"org-{number}", tokens=()) for number in range(20)))
    due = datetime(2026, 11, 1, tzinfo=UTC)
    counts = await asyncio.gather(*(evaluate_due(store=postgres, board=MemoryBoard(), now=due) for _ in range(3)))
    assert sum(counts) == 20


async def test_migrations_make_exactly_the_tables_of_the_code(database):
    everything = MetaData()
    for part in (runtime_metadata, metadata):
        for table in part.tables.values():
            table.to_metadata(everything)

    def differences(connection):
        ours = {"include_name": lambda name, kind, _: not (kind == "table" and name.startswith("alembic_version"))}
        return compare_metadata(MigrationContext.configure(connection, opts=ours), everything)

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def test_every_column_of_a_decision_is_saved():
    """One that the statement does not name would keep its old content for ever."""
    assert tuple(column.name for column in tables.limit_states.c) == statements.LIMITS_COLUMNS
