"""Faults that people reported of billing systems, at the example catalog's real prices: what is right, to the cent.

Events: 1 M free, the second million 50.00, the next ten 343.00, so 12 M cost 393.00. Recordings: 5,000 free, then half a
cent each. Subscriptions, usage-ingest and invoicing together; the page shows what will be invoiced.
"""

from datetime import UTC, datetime, timedelta

import pytest

M = 1_000_000
AFTER_OCTOBER = datetime(2026, 11, 2, 1, tzinfo=UTC)


def october(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 10, day, hour, tzinfo=UTC)


def late(month: int, day: int, hour: int = 1, year: int = 2026) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


@pytest.fixture
async def subscribed(world):
    """acme, subscribed to events and recordings since 1 October."""
    await world.begin()
    await world.subscribe()
    await world.hear()
    return world


async def closed(world, at: datetime = AFTER_OCTOBER) -> int:
    """Everybody hears everything, October closes; what was billed, in cents."""
    world.now = at
    await world.time_passes()
    await world.hear()
    await world.close()
    world.now += timedelta(hours=1)
    await world.close()
    return await world.billed_minor()


async def test_a_correction_of_recordings_leaves_events_alone(subscribed):
    """K1: 12 M events and 9,000 recordings, then the events limit is $0, then recordings are 6,000: 398.00."""
    world = subscribed
    world.now = october(10, 12)
    await world.report("events", october(9), 12 * M)
    await world.report("recordings", october(9), 9_000)
    world.now = october(12, 12)
    await world.limit("events", 0)
    await world.hear()
    world.now = october(14)
    await world.replace("recordings", october(9), 6_000)
    assert await world.page_total_minor() == 39_800
    assert await closed(world) == 39_800


async def test_a_correction_taken_back_after_the_closing_restores_the_bill(subscribed):
    """K1's kind: after a cancellation and the closing, and the invoice that gave the difference back."""
    world = subscribed
    world.now = october(10, 12)
    await world.report("events", october(9), 12 * M)
    await world.report("recordings", october(9), 9_000)
    world.now = october(12, 12)
    await world.limit("recordings", 10)
    world.now = october(20)
    await world.cancel()
    await world.hear()
    assert await closed(world) == 39_300 + 2_000
    world.now = late(11, 10)
    correction = await world.replace("events", october(9), 2 * M)
    assert await closed(world, late(12, 2)) == 5_000 + 2_000
    await world.revert(correction)
    assert await closed(world, late(1, 2, year=2027)) == 39_300 + 2_000


@pytest.mark.parametrize("what", ["cancel", "limit"])
async def test_usage_of_the_14th_counts_though_it_is_told_on_the_16th(subscribed, what):
    """K2: 12 M events on the 14th; cancelled, or limited, on the 15th at noon; the report comes on the 16th: 393.00."""
    world = subscribed
    world.now = october(15, 12)
    await (world.cancel() if what == "cancel" else world.limit("events", 0))
    await world.hear()
    world.now = october(16, 4)
    await world.report("events", october(14), 12 * M)
    assert await world.page_total_minor() == 39_300
    assert await closed(world) == 39_300


async def test_a_day_that_the_change_splits_is_split_by_its_own_reports(subscribed):
    """K2's kind: 2 M by noon by the source's own word, cancelled then, 12 M by midnight: 50.00."""
    world = subscribed
    world.now = october(15, 11)
    early = world.counted("events", october(15), 2 * M)
    world.now = october(15, 12)
    await world.cancel()
    world.now = october(16, 4)
    await world.arrive(early, world.counted("events", october(15), 12 * M))
    assert await closed(world) == 5_000


async def test_the_page_shows_what_was_used_before_the_limit(subscribed):
    """K6: 12 M events, then limit $0: 393.00 on the page and on the invoice."""
    world = subscribed
    world.now = october(10)
    await world.report("events", october(9), 12 * M)
    world.now = october(11)
    await world.limit("events", 0)
    await world.hear()
    assert await world.page_total_minor() == 39_300
    assert await closed(world) == 39_300


async def test_a_late_report_for_the_fifth_last_period_is_an_adjustment(subscribed):
    """K7: a snapshot holds three periods; usage of October comes in March and is billed at October's price."""
    world = subscribed
    world.now = october(10)
    await world.report("events", october(9), 2 * M)
    assert await closed(world) == 5_000
    for month, year in ((12, 2026), (1, 2027), (2, 2027), (3, 2027)):
        world.now = datetime(year, month, 1, tzinfo=UTC) - timedelta(days=9)
        await world.report("events", world.now.replace(day=5, hour=0), 1_000)
        assert await closed(world, late(month, 2, year=year)) == 5_000
    world.now = late(3, 10, year=2027)
    assert await world.report("events", october(12), 10 * M) == []
    assert await closed(world, late(4, 2, year=2027)) == 39_300
    adjustments = [line for line in await world.lines() if line.kind == "adjustment"]
    assert [(line.amount_minor, line.service_period.start) for line in adjustments] == [(34_300, october(1))]


async def test_usage_older_than_400_days_is_refused_by_name(subscribed):
    """K7's kind: nobody can be billed for it, so it is not taken in silence."""
    world = subscribed
    world.now = october(1) + timedelta(days=400)
    assert await world.report("events", october(1), 2 * M) == []
    world.now += timedelta(microseconds=1)
    (refusal,) = await world.report("events", october(1), 3 * M)
    assert (refusal.code, refusal.attribute) == ("usage_too_old", "window_start")
    assert "400 days" in refusal.detail


async def test_what_a_trial_used_is_never_charged(world):
    """K11: 5 M events in a free trial, subscribed on the 21st, 0.1 M more: 0.00."""
    await world.begin()
    await world.trial(october(21))
    world.now = october(20, 12)
    await world.report("events", october(19), 5 * M)
    world.now = october(21)
    await world.time_passes()
    await world.subscribe()
    await world.hear()
    world.now = october(26)
    await world.report("events", october(25), M // 10)
    assert await world.page_total_minor() == 0
    assert await closed(world) == 0


async def test_a_trial_that_outlasts_the_subscription_start_charges_from_its_end(world):
    """K11's kind: subscribed on the 11th inside a trial to the 21st; 5 M in it, 2 M after it: 50.00."""
    await world.begin()
    await world.trial(october(21))
    world.now = october(11)
    await world.subscribe()
    await world.hear()
    world.now = october(20)
    await world.report("events", october(19), 5 * M)
    world.now = october(26)
    await world.report("events", october(25), 2 * M)
    assert await closed(world) == 5_000


@pytest.mark.parametrize("used", [0, 1_000_000, 1_000_001, 2_000_000])
async def test_page_and_invoice_agree_at_every_edge(subscribed, used):
    """Item 10: nothing used, exactly the allowance, one more, exactly a tier; and nothing reported at all."""
    world = subscribed
    world.now = october(10)
    if used:
        await world.report("events", october(9), used)
    on_the_page = await world.page_total_minor()
    assert on_the_page == await closed(world)
    assert on_the_page == {0: 0, 1_000_000: 0, 1_000_001: 0, 2_000_000: 5_000}[used]


async def test_a_correction_taken_back_restores_what_lay_before_a_cut(subscribed):
    """K1's kind: 12 M events, cancelled, replaced by 2 M, taken back before the closing: 393.00 again."""
    world = subscribed
    world.now = october(10)
    await world.report("events", october(9), 12 * M)
    world.now = october(12)
    await world.cancel()
    await world.hear()
    world.now = october(13)
    correction = await world.replace("events", october(9), 2 * M)
    assert await world.page_total_minor() == 5_000
    world.now = october(14)
    await world.revert(correction)
    assert await world.page_total_minor() == 39_300
    assert await closed(world) == 39_300
