"""Spend thresholds on the memory store and on Postgres: each crossing once, whoever evaluates how often (L9, L15)."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.store.memory import MemoryBoard
from quill_quota_limiter.usecases.evaluate import CONFIRM_AFTER, evaluate_due, take_in_customers, take_in_usage
from quill_quota_limiter.usecases.set_spend_thresholds import set_spend_thresholds
from quill_quota_limiter.usecases.set_thresholds import UnknownCustomer, forget_old_thresholds, set_thresholds

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
BY = {"actor": "ada@example.org", "reason": "asked for it"}
TIERS = {
    "model": "graduated",
    "tiers": [
        {"up_to": 1_000_000, "unit_amount": "0"},
        {"up_to": 2_000_000, "unit_amount": "0.00005"},
        {"up_to": None, "unit_amount": "0.0000343"},
    ],
}


@pytest.fixture
def told(threshold_messages):
    """What was told of spend so far: ``await told()`` gives (amount, spend, usage), oldest first."""

    async def read():
        messages = await threshold_messages()
        return [(each.amount_minor, each.spend_minor, each.usage) for each in messages if each.kind == "spend"]

    return read


async def arrive(store, *snapshots, now=NOW):
    for snapshot in snapshots:
        async with store.begin() as tx:
            if hasattr(snapshot, "items"):
                await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=now)
            else:
                await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=now)


async def change(store, amounts, meter="events", name="acme"):
    async with store.begin() as tx:
        return await set_spend_thresholds(name, amounts, meter=meter, currency="usd", **BY, tx=tx, now=NOW)


async def test_each_amount_is_told_once_in_a_billing_period(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=None, price=TIERS))
    await change(store, [50_00, 100_00])
    for revision, used in enumerate((1_000_000, 1_999_899, 2_000_000, 2_100_000, 500, 9_000_000), start=1):
        await arrive(store, usage_snapshot(revision=revision, events=used))
    assert await told() == [(50_00, 50_00, 2_000_000), (100_00, 290_10, 9_000_000)]
    november = usage_snapshot(revision=9, start=NOVEMBER, end=DECEMBER, events=2_000_000)
    await arrive(store, november, now=NOVEMBER)
    assert (await told())[2:] == [(50_00, 50_00, 2_000_000)]


async def test_amounts_reached_already_are_told_at_once_and_taking_one_back_does_not_tell_it_again(
    store, told, customer_snapshot, usage_snapshot
):
    await arrive(store, customer_snapshot(events=None), usage_snapshot(events=6_000))
    after = await change(store, [70_00, 50_00])
    assert [each.amount_minor for each in after.spend_thresholds["events"]] == [50_00, 70_00]
    await change(store, [])
    after = await change(store, [50_00, 60_00])
    assert await told() == [(50_00, 60_00, 6_000), (60_00, 60_00, 6_000)]
    async with store.begin() as tx:
        kept = (await tx.limits(["acme"]))["acme"]
    assert (kept.spend_thresholds, kept.meters) == (after.spend_thresholds, after.meters)
    with pytest.raises(UnknownCustomer):
        await change(store, [1], name="nobody")


async def test_a_price_or_a_subscription_that_changes_counts_at_once(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=1_000), usage_snapshot(events=6_000))
    await change(store, [50_00])
    assert await told() == []
    await arrive(store, customer_snapshot(revision=2, events=None, price={"model": "flat", "amount": "99.00"}))
    assert await told() == []
    await arrive(store, customer_snapshot(revision=3, events=None))
    await arrive(store, customer_snapshot(revision=4, events=None, price={"model": "per_unit", "unit_amount": "1"}))
    assert await told() == [(50_00, 60_00, 6_000)]


async def test_what_was_told_is_forgotten_long_after_its_period(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=None), usage_snapshot(events=6_000))
    await change(store, [50_00])
    assert await forget_old_thresholds(store=store, now=NOVEMBER + timedelta(days=60)) == 0
    assert await forget_old_thresholds(store=store, now=NOVEMBER + timedelta(days=60, seconds=1)) == 1


async def test_many_arrivals_and_settings_at_once_tell_each_amount_once(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=None))
    arrivals = [arrive(store, usage_snapshot(revision=n, events=n * 100)) for n in (7, 3, 10, 5, 9, 8)]
    await asyncio.gather(*arrivals[:3], change(store, [5_00, 8_00, 10_00, 11_00]), *arrivals[3:])
    assert sorted(amount for amount, *_ in await told()) == [5_00, 8_00, 10_00]


async def test_a_crossing_is_planned_for_every_webhook_that_hears_thresholds_once(
    store, customer_snapshot, usage_snapshot
):
    async with store.begin() as tx:
        endpoint = WebhookEndpoint("whe_1", "https://example.org", "", ("limits.threshold",), None, "sealed", NOW)
        await tx.webhooks.save_endpoint(endpoint)
    await arrive(store, customer_snapshot(events=None), usage_snapshot(events=6_000))
    await change(store, [50_00])
    await arrive(store, usage_snapshot(revision=2, events=7_000))
    async with store.begin() as tx:
        (delivery,) = await tx.webhooks.deliveries(at_most=10)
    data = json.loads(delivery.body)["data"]
    assert (data["kind"], data["amount_minor"], data["spend_minor"], data["currency"]) == ("spend", 5_000, 6_000, "usd")


@pytest.mark.parametrize("kind", ["units", "spend"])
async def test_a_grace_that_ends_while_somebody_sets_thresholds_reaches_the_board(
    store, customer_snapshot, usage_snapshot, kind
):
    """The setting decides the organization; so the job must still bring the answer there (L9)."""
    board = MemoryBoard()
    await board.finish_rebuild(await board.begin_rebuild())
    customer = customer_snapshot(events=1_000, trust_scores={"events": 7})
    await arrive(store, customer, usage_snapshot(events=2_000))
    await evaluate_due(store=store, board=board, now=NOW)
    async with store.begin() as tx:
        end = (await tx.limits(["acme"]))["acme"].meters["events"].state.suspended_until
    async with store.begin() as tx:
        if kind == "units":
            await set_thresholds("acme", [90], meter=None, **BY, tx=tx, now=end)
        else:
            await set_spend_thresholds("acme", [50_00], meter="events", currency=None, **BY, tx=tx, now=end)
    assert await evaluate_due(store=store, board=board, now=end + CONFIRM_AFTER) == 1
    assert (await board.read(["acme"])).standings["acme"].meters["events"].state == "limited"
