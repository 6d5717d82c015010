"""Rule versions on the memory store and on Postgres: added once, never edited, run in the shadow, activated (L7, L20)."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from quill_quota_limiter import ports, wire
from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.limit_state import replay
from quill_quota_limiter.domain.rulebook import RulesConflict, RulesStanding
from quill_quota_limiter.store import memory_rules, rules
from quill_quota_limiter.store.memory import MemoryBoard
from quill_quota_limiter.store.postgres import PostgresLimits
from quill_quota_limiter.usecases import evaluate
from quill_quota_limiter.usecases.change_rules import activate, add_rules, discard_shadow, start_shadow
from quill_quota_limiter.usecases.evaluate import (
    evaluate_due,
    take_in_credits,
    take_in_customers,
    take_in_usage,
    walk_everybody,
)
from quill_quota_limiter.wire.rules import FIRST_RULES
from quill_runtime.outbox import Outbox
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
BY = {"actor": "ada@example.org", "reason": "support case 12"}
GENEROUS = {**FIRST_RULES, "grace_days_by_trust": {"0": 2, "3": 2, "7": 3, "10": 4, "15": 6}}
BUFFERED = {**FIRST_RULES, "resources": {**FIRST_RULES["resources"], "events": {"buffer": 500}}}
STRICT = {**FIRST_RULES, "grace_days_by_trust": {"0": 0, "3": 0, "7": 0, "10": 0, "15": 0}}


@pytest.fixture
def postgres(database):
    return PostgresLimits(database, Outbox())


@pytest.fixture
async def board():
    """A board that was filled once, from a store that knew nobody."""
    board = MemoryBoard()
    assert await board.finish_rebuild(await board.begin_rebuild())
    return board


async def arrive(store, *snapshots, now=NOW):
    async with store.begin() as tx:
        for snapshot in snapshots:
            if hasattr(snapshot, "items"):
                await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=now)
            elif hasattr(snapshot, "periods"):
                await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=now)
            else:
                await take_in_credits([snapshot], tx=tx, now=now)


async def add(store, document, now=NOW):
    async with store.begin() as tx:
        return await add_rules(document, **BY, tx=tx, now=now)


async def command(store, change, version, now=NOW):
    async with store.begin() as tx:
        return await change(version, **BY, tx=tx, now=now)


async def limit_of(store, name="acme", meter="events"):
    async with store.begin() as tx:
        return (await tx.limits([name]))[name].meters[meter]


async def differences(store):
    async with store.begin() as tx:
        run = (await tx.rulebook.standing()).shadow_run
        return await tx.rulebook.shadow_page(run, after=None, at_most=500)


async def test_version_1_is_posthogs_numbers_and_is_in_force(store):
    async with store.begin() as tx:
        versions, standing = await tx.rulebook.versions(), await tx.rulebook.standing()
    assert [(each.version, each.document) for each in versions] == [(1, FIRST_RULES)]
    assert standing == RulesStanding(in_force=1)


async def test_versions_are_numbered_and_the_same_numbers_are_a_repeat(store):
    first, second = await add(store, GENEROUS), await add(store, STRICT)
    again = await add(store, dict(reversed(GENEROUS.items())))
    assert (first.version.version, second.version.version, again.version.version) == (2, 3, 2)
    assert (first.is_repeat, again.is_repeat) == (False, True)
    async with store.begin() as tx:
        assert [(e.type, e.actor, e.data["version"]) for e in await tx.rulebook.events()] == [
            ("version_added", "ada@example.org", 2),
            ("version_added", "ada@example.org", 3),
        ]


async def test_the_database_refuses_to_change_or_remove_a_version(postgres, database):
    for statement in ("update limit_rules set document = '{}' where version = 1", "delete from limit_rules"):
        with pytest.raises(DBAPIError, match="never changed or removed"):
            async with database.begin() as transaction:
                await transaction.connection.execute(text(statement))


async def test_many_operators_at_once_get_a_version_each(postgres):
    documents = [{**FIRST_RULES, "near_percent": percent} for percent in range(50, 60)]
    added = await asyncio.gather(*(add(postgres, document) for document in documents))
    assert sorted(each.version.version for each in added) == list(range(2, 12))


@pytest.mark.parametrize(
    ("change", "version", "why"),
    [
        (start_shadow, 1, "is in force"),
        (start_shadow, 9, "there is no rule version 9; known: 1, 2"),
        (discard_shadow, 2, "none does"),
        (activate, 1, "in force already"),
        (activate, 2, "has not run in the shadow"),
        (activate, 9, "there is no rule version 9"),
    ],
)
async def test_a_command_that_does_not_fit_says_why_and_changes_nothing(store, change, version, why):
    await add(store, GENEROUS)
    with pytest.raises(RulesConflict, match=why):
        await command(store, change, version)
    async with store.begin() as tx:
        assert await tx.rulebook.standing() == RulesStanding(in_force=1)
        assert len(await tx.rulebook.events()) == 1


async def test_a_shadow_changes_nobodys_limits_and_records_each_difference_once(
    store, board, customer_snapshot, usage_snapshot
):
    await arrive(store, customer_snapshot(events=1_000), customer_snapshot("beta", tokens=(), events=9_000))
    await add(store, GENEROUS)
    await command(store, start_shadow, 2)
    assert await walk_everybody(store=store, board=board, now=NOW) == 2
    assert await differences(store) == []
    for revision, used in enumerate((999, 1_000, 1_001, 1_002), start=1):
        await arrive(store, usage_snapshot(revision=revision, events=used))
    found = await limit_of(store)
    assert (found.state.name, found.rule_version) == ("limited", 1)
    (only,) = await differences(store)
    assert (only.place[:2], only.at, only.ended_at) == (("acme", "events"), NOW, None)
    assert (only.live["state"], only.live["rule"], only.live["rule_version"]) == ("limited", "no_grace", 1)
    assert (only.shadow["state"], only.shadow["rule"], only.shadow["rule_version"]) == ("suspended", "grace_started", 2)
    assert only.evidence["usage"] == 1_000
    async with store.begin() as tx:
        tally = await tx.rulebook.shadow_tally(1)
    assert (tally.organizations, tally.groups) == (2, (("events", "limited", "suspended", 1, 1),))


async def test_a_difference_ends_when_the_tables_agree_again_and_time_ends_a_shadows_grace(
    store, board, customer_snapshot, usage_snapshot
):
    await arrive(store, customer_snapshot(events=1_000))
    await add(store, GENEROUS)
    await command(store, start_shadow, 2)
    await walk_everybody(store=store, board=board, now=NOW)
    await arrive(store, usage_snapshot(events=1_000))
    grace_end = datetime(2026, 10, 13, tzinfo=UTC)
    assert await evaluate_due(store=store, board=board, now=grace_end - timedelta(microseconds=1)) == 0
    assert await evaluate_due(store=store, board=board, now=grace_end) == 1
    (ended,) = await differences(store)
    assert ended.ended_at == grace_end


async def test_a_shadow_begins_where_the_limits_stand(store, board, customer_snapshot, usage_snapshot):
    """More grace in the new table does not release whom this period has limited already, as activation would not."""
    await arrive(store, customer_snapshot(events=1_000), usage_snapshot(events=1_000))
    await add(store, GENEROUS)
    await command(store, start_shadow, 2)
    await walk_everybody(store=store, board=board, now=NOW)
    assert await differences(store) == []


async def test_activation_decides_everybody_anew_in_pages_and_transitions_name_the_version(
    store, board, customer_snapshot, usage_snapshot, monkeypatch
):
    monkeypatch.setattr(evaluate, "WALK_PAGE", 3)
    names = [f"org-{number}" for number in range(7)]
    for name in names:
        await arrive(
            store, customer_snapshot(name, tokens=(f"phc_{name}",), events=100), usage_snapshot(name, events=120)
        )
    await add(store, BUFFERED)
    await command(store, start_shadow, 2)
    await walk_everybody(store=store, board=board, now=NOW)
    assert len(await differences(store)) == 7
    assert {(await limit_of(store, name)).state.name for name in names} == {"limited"}
    later = NOW + timedelta(minutes=1)
    standing = await command(store, activate, 2, now=later)
    assert (standing.in_force, standing.shadow, standing.walked_to, standing.retired) == (2, None, "", (1,))
    assert await walk_everybody(store=store, board=board, now=later) == 7
    for name in names:
        found = await limit_of(store, name)
        assert (found.state.name, found.rule, found.rule_version) == ("near", "under_quota", 2)
        async with store.begin() as tx:
            log = await tx.log(name, "events")
        assert ([t.rule_version for t in log], replay(log)) == ([1, 1, 2][-len(log) :], found.state)
    assert board.limited["events"] == {}
    assert await walk_everybody(store=store, board=board, now=later) == 0
    async with store.begin() as tx:
        assert [e.type for e in await tx.rulebook.events()] == ["version_added", "shadow_started", "activated"]
        assert (await tx.rulebook.events())[-1].data["before"] == {"in_force": 1, "shadow": 2}


async def test_a_walk_goes_on_where_a_crash_stopped_it(store, board, customer_snapshot, monkeypatch):
    monkeypatch.setattr(evaluate, "WALK_PAGE", 2)
    for number in range(5):
        await arrive(store, customer_snapshot(f"org-{number}", tokens=(), events=100))
    await add(store, BUFFERED)
    await command(store, start_shadow, 2)
    monkeypatch.setattr(evaluate, "WALK_PAGES_MAX", 1)
    board.is_away = True
    with pytest.raises(ports.BoardUnavailable):
        await walk_everybody(store=store, board=board, now=NOW)
    board.is_away = False
    counts = [await walk_everybody(store=store, board=board, now=NOW) for _ in range(3)]
    assert counts == [2, 1, 0]
    # The page whose answers did not get up is due again shortly.
    assert await evaluate_due(store=store, board=board, now=NOW + timedelta(seconds=10)) == 2


async def test_a_version_that_was_in_force_comes_back_without_a_shadow_run(store):
    await add(store, STRICT)
    await command(store, start_shadow, 2)
    await command(store, activate, 2)
    back = await command(store, activate, 1)
    assert (back.in_force, back.retired) == (1, (2,))


async def test_discarding_keeps_what_was_found_until_two_runs_later(store, board, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=1_000), usage_snapshot(events=1_200))
    for document in (BUFFERED, GENEROUS, STRICT):
        await add(store, document)
    await command(store, start_shadow, 2)
    await walk_everybody(store=store, board=board, now=NOW)
    standing = await command(store, discard_shadow, 2)
    assert (standing.shadow, standing.last_shadow) == (None, 2)
    assert len(await differences(store)) == 1
    await arrive(store, usage_snapshot(revision=2, events=1_700))
    (untouched,) = await differences(store)
    assert untouched.ended_at is None
    for version in (3, 4):
        await command(store, start_shadow, version)
        await command(store, discard_shadow, version)
    async with store.begin() as tx:
        assert await tx.rulebook.shadow_page(1, after=None, at_most=10) == []


async def test_what_a_run_keeps_is_bounded(store, board, customer_snapshot, usage_snapshot, monkeypatch):
    monkeypatch.setattr(rules, "SHADOW_DIFFERENCES_MAX", 2)
    monkeypatch.setattr(memory_rules, "SHADOW_DIFFERENCES_MAX", 2)
    for name in ("a", "b", "c"):
        await arrive(store, customer_snapshot(name, tokens=(), events=10), usage_snapshot(name, events=12))
    await add(store, BUFFERED)
    await command(store, start_shadow, 2)
    await walk_everybody(store=store, board=board, now=NOW)
    assert len(await differences(store)) == 2
    async with store.begin() as tx:
        assert (await tx.rulebook.shadow_tally(1)).is_full


async def test_credits_that_run_out_or_come_back_act_at_once(store, board, customer_snapshot, usage_snapshot):
    paid = {**FIRST_RULES, "resources": {"ai_credits": {"is_exempt": True, "is_paid_by_credits": True}}}
    await add(store, paid)
    await command(store, start_shadow, 2)
    await command(store, activate, 2)
    await arrive(store, customer_snapshot(ai_credits=None, events=None), usage_snapshot(ai_credits=5, events=5))
    assert (await limit_of(store, meter="ai_credits")).state.name == "within"
    steps = [(1, 500, "within"), (2, 0, "limited"), (1, 500, "limited"), (3, 100, "within")]
    for revision, balance, state in steps:
        await arrive(store, CreditBalance("acme", revision, "usd", balance))
        assert (await limit_of(store, meter="ai_credits")).state.name == state, (revision, balance)
        assert (await limit_of(store)).state.name == "within"


async def test_a_limit_set_during_a_walk_survives_it(postgres, board, customer_snapshot, usage_snapshot, monkeypatch):
    """Two replicas walk everybody while limits change and usage arrives: each ends at its newest facts (L9)."""
    monkeypatch.setattr(evaluate, "WALK_PAGE", 4)
    names = [f"org-{number:02}" for number in range(20)]
    for name in names:
        await arrive(postgres, customer_snapshot(name, tokens=(), events=1_000), usage_snapshot(name, events=900))
    await add(postgres, BUFFERED)
    await command(postgres, start_shadow, 2)
    await command(postgres, activate, 2)
    changes = [
        arrive(postgres, customer_snapshot(name, revision=2, tokens=(), events=100)) for name in reversed(names[:10])
    ] + [arrive(postgres, usage_snapshot(name, revision=2, events=1_600)) for name in reversed(names[10:])]
    walks = [walk_everybody(store=postgres, board=board, now=NOW) for _ in range(2)]
    await asyncio.gather(*walks, *changes)
    while await walk_everybody(store=postgres, board=board, now=NOW):
        pass
    for name in names:
        found = await limit_of(postgres, name)
        quota, used = (100, 900) if name in names[:10] else (1_000, 1_600)
        assert (found.quota, found.usage, found.state.name, found.rule_version) == (quota, used, "limited", 2), name
        async with postgres.begin() as tx:
            assert replay(await tx.log(name, "events")) == found.state


async def test_a_decision_taken_while_rules_are_activated_never_keeps_the_old_ones(
    postgres, board, customer_snapshot, usage_snapshot
):
    names = [f"org-{number:02}" for number in range(12)]
    for name in names:
        await arrive(postgres, customer_snapshot(name, tokens=(), events=1_000), usage_snapshot(name, events=10))
    await add(postgres, BUFFERED)
    await command(postgres, start_shadow, 2)
    arrivals = [arrive(postgres, usage_snapshot(name, revision=2, events=1_200)) for name in names]
    await asyncio.gather(*arrivals[:6], command(postgres, activate, 2), *arrivals[6:])
    while await walk_everybody(store=postgres, board=board, now=NOW):
        pass
    for name in names:
        found = await limit_of(postgres, name)
        assert (found.state.name, found.rule_version) == ("near", 2), name
