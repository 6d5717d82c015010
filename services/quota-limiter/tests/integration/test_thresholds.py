"""Thresholds on the memory store and on Postgres: told once, whatever is evaluated how often, and set by a person."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from quill_quota_limiter import wire
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage
from quill_quota_limiter.usecases.set_thresholds import UnknownCustomer, forget_old_thresholds, set_thresholds

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
BY = {"actor": "ada@example.org", "reason": "asked for it"}


@pytest.fixture
def told(threshold_messages):
    """What was told so far: ``await told()`` gives (percent, usage, quota), oldest first."""

    async def read():
        messages = await threshold_messages()
        return [(message.percent, message.usage, message.quota) for message in messages]

    return read


async def arrive(store, *snapshots, now=NOW):
    for snapshot in snapshots:
        async with store.begin() as tx:
            if hasattr(snapshot, "items"):
                await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=now)
            else:
                await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=now)


async def change(store, percents, meter=None, name="acme"):
    async with store.begin() as tx:
        return await set_thresholds(name, percents, meter=meter, **BY, tx=tx, now=NOW)


async def test_each_share_is_told_once_in_a_billing_period(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=1_000))
    for revision, used in enumerate((499, 500, 501, 850, 400, 900), start=1):
        await arrive(store, usage_snapshot(revision=revision, events=used))
    assert await told() == [(50, 500, 1_000), (80, 850, 1_000)]
    november = usage_snapshot(revision=9, start=NOVEMBER, end=DECEMBER, events=2_000)
    await arrive(store, november, now=NOVEMBER)
    assert (await told())[2:] == [(50, 2_000, 1_000), (80, 2_000, 1_000), (100, 2_000, 1_000)]


async def test_another_quota_is_news_and_the_old_one_is_not(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=1_000), usage_snapshot(events=600))
    await arrive(store, customer_snapshot(revision=2, events=1_200))
    await arrive(store, customer_snapshot(revision=3, events=1_000))
    assert await told() == [(50, 600, 1_000), (50, 600, 1_200)]


async def test_a_person_sets_what_is_told_and_what_is_reached_is_told_at_once(
    store, told, customer_snapshot, usage_snapshot
):
    await arrive(store, customer_snapshot(events=1_000, recordings=10), usage_snapshot(events=950, recordings=9))
    await change(store, [])
    before = await told()
    assert [percent for percent, *_ in before] == [50, 80, 50, 80]
    await change(store, [95, 90], meter="events")
    await change(store, [95, 90], meter="events")
    assert (await told())[4:] == [(90, 950, 1_000), (95, 950, 1_000)]
    after = await change(store, None, meter="events")
    assert dict(after.thresholds) == {"*": ()}
    with pytest.raises(UnknownCustomer):
        await change(store, [90], name="nobody")


async def test_old_billing_periods_are_forgotten(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=10), usage_snapshot(events=10))
    assert await forget_old_thresholds(store=store, now=NOVEMBER + timedelta(days=60)) == 0
    assert await forget_old_thresholds(store=store, now=NOVEMBER + timedelta(days=60, seconds=1)) == 3


async def test_many_arrivals_and_settings_at_once_tell_each_share_once(store, told, customer_snapshot, usage_snapshot):
    await arrive(store, customer_snapshot(events=1_000))
    arrivals = [arrive(store, usage_snapshot(revision=n, events=n * 100)) for n in (7, 3, 10, 5, 9, 8)]
    await asyncio.gather(*arrivals[:3], change(store, [50, 60, 80, 100]), *arrivals[3:])
    assert sorted(percent for percent, *_ in await told()) == [50, 60, 80, 100]
