"""Closing a period with a hole, on the memory store and on Postgres: it waits, and goes on by a name (L13, L20)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_invoicing.domain.completeness_gate import ExpectedSources, SourceStanding, Waiver
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.close_period import close_due_periods
from quill_invoicing.usecases.hold_closing import LOOK_AGAIN, keep_standing
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_usage
from quill_runtime.event_store import PostgresEventStream

pytestmark = pytest.mark.integration

GRACE = Grace(timedelta(hours=24))
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
AFTER_OCTOBER = datetime(2026, 11, 2, 1, tzinfo=UTC)
AFTER_NOVEMBER = datetime(2026, 12, 2, 1, tzinfo=UTC)
WAIVER = Waiver("us", "w1", NOVEMBER, "ada@b.example", "the importer lost the day", AFTER_OCTOBER)


@pytest.fixture(params=["memory", "postgres"])
def store(request):
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("postgres_store")


class Story:
    """Messages arrive and the clock closes, each in its own transaction."""

    def __init__(self, store, make):
        self.store = store
        self.make = make
        self.revision = 0

    async def customer(self, organization="org-1", **changed):
        async with self.store.begin() as tx:
            await keep_terms(self.make.terms(organization_id=organization, **changed), tx=tx, now=OCTOBER)

    async def usage(self, revision, quantity, *, sources=("us",), organization="org-1", now=OCTOBER, **changed):
        async with self.store.begin() as tx:
            observed = self.make.used(revision, quantity, **changed)
            await record_usage(organization, [observed], tx=tx, now=now, report_every=timedelta(hours=24))
            await tx.know_sources(organization, sources)

    async def source(self, through=None, *, name="us", expected=True, waivers=(), now=AFTER_OCTOBER):
        self.revision += 1
        standing = SourceStanding(name, self.revision, expected, "reporting", through, OCTOBER, tuple(waivers))
        async with self.store.begin() as tx:
            await keep_standing(standing, tx=tx, now=now)

    async def close(self, now=AFTER_OCTOBER):
        async with self.store.begin() as tx:
            expected = ExpectedSources(await tx.standings(expected_only=True), {"lic-1": "inst"}.get)
        return await close_due_periods(store=self.store, grace=GRACE, now=now, limit=2, expected=expected)

    async def held(self):
        async with self.store.begin() as tx:
            found = await tx.held_closings(limit=10)
            assert await tx.count_held() == len(found)
        return [(each.organization_id, each.period.end, each.missing, each.since) for each in found]

    async def closings(self):
        async with self.store.begin() as tx:
            return await tx.closed_periods_of("org-1", limit=10)

    async def lines(self):
        async with self.store.begin() as tx:
            newest = (await tx.invoices_of("org-1", limit=1))[0]
        return [(line.kind, line.quantity, line.amount_minor) for line in newest.lines if line.amount_minor]


@pytest.fixture
def story(store, make):
    return Story(store, make)


async def test_a_hole_holds_the_closing_until_a_named_waiver_and_late_usage_is_an_adjustment(story, store):
    await story.customer()
    await story.usage(1, 2_000_000)
    await story.source(NOVEMBER - timedelta(days=2))
    assert await story.close() == 0
    assert await story.held() == [("org-1", NOVEMBER, ("us",), AFTER_OCTOBER)]
    later = AFTER_OCTOBER + timedelta(hours=1)
    assert await story.close(later) == 0
    assert (await story.held())[0][3] == AFTER_OCTOBER, "it waits since then"

    await story.source(NOVEMBER - timedelta(days=2), waivers=[WAIVER], now=later)
    assert await story.close(later) == 1
    assert await story.held() == []
    (closed,) = await story.closings()
    assert closed.waivers == (WAIVER,)
    assert await story.lines() == [("usage", 1_000_000, 5_000)]

    await story.usage(2, 3_000_000, now=later)
    await story.usage(3, 0, period=replace(closed.period, start=NOVEMBER, end=datetime(2026, 12, 1, tzinfo=UTC)))
    await story.source(datetime(2026, 12, 1, tzinfo=UTC), waivers=[WAIVER], now=AFTER_NOVEMBER)
    assert await story.close(AFTER_NOVEMBER) == 1
    assert await story.lines() == [("adjustment", 1, 3_430)]
    newest, first = await story.closings()
    assert (newest.waivers, first.waivers) == ((), (WAIVER,)), "the second month needed none"
    if not isinstance(store, MemoryStore):
        async with store._database.begin() as transaction:
            stream = f"closing:org-1:{OCTOBER.isoformat()}"
            (event,) = await PostgresEventStream(transaction).read(stream)
        assert (event.type, event.actor) == ("invoicing.closed-by-waiver", "ada@b.example")
        assert event.data["after"]["reason"] == WAIVER.reason


async def test_a_hole_that_is_filled_closes_without_a_waiver(story):
    await story.customer()
    await story.usage(1, 1_000_000)
    await story.source(NOVEMBER - timedelta(days=1))
    assert await story.close() == 0
    await story.usage(2, 2_000_000, now=AFTER_OCTOBER)
    await story.source(NOVEMBER)
    assert await story.close() == 1
    (closed,) = await story.closings()
    assert (closed.waivers, closed.usage_revision) == ((), 2)
    assert await story.lines() == [("usage", 1_000_000, 5_000)]


async def test_without_any_expected_source_only_the_grace_counts(story):
    await story.customer()
    await story.usage(1, 2_000_000)
    await story.source(None, expected=False)
    assert await story.close() == 1


async def test_the_licenses_own_source_is_waited_for_though_it_never_reported(story):
    await story.customer()
    await story.source(None, name="inst")
    assert await story.close() == 0
    assert [each[2] for each in await story.held()] == [("inst",)]


async def test_those_that_wait_take_no_place_from_those_that_can_be_closed(story):
    """Three wait, two fit into a run: the fourth must get its turn, and the three again when their source speaks."""
    for number in range(3):
        await story.customer(f"a-{number}", license_id="other")
        await story.usage(1, 1, organization=f"a-{number}")
    await story.customer("z", license_id="other")
    await story.source(None)
    closed = [await story.close(AFTER_OCTOBER) for _ in range(3)]
    assert closed == [0, 1, 0]
    assert len(await story.held()) == 3
    await story.source(None, name="eu")
    assert await story.close(AFTER_OCTOBER) == 0, "another source's word is not theirs"
    await story.source(NOVEMBER)
    assert [await story.close(AFTER_OCTOBER) for _ in range(2)] == [2, 1]


async def test_what_changes_without_a_word_is_looked_at_again_after_a_while(story):
    await story.customer()
    await story.source(None, name="inst")
    assert await story.close() == 0
    async with story.store.begin() as tx:
        standings = ExpectedSources(await tx.standings())  # the license reports under another name now

    async def close(now):
        return await close_due_periods(store=story.store, grace=GRACE, now=now, limit=2, expected=standings)

    assert await close(AFTER_OCTOBER + LOOK_AGAIN - timedelta(seconds=1)) == 0
    assert await close(AFTER_OCTOBER + LOOK_AGAIN) == 1
    assert await story.held() == []


async def test_an_older_standing_or_list_of_sources_changes_nothing(story):
    await story.source(NOVEMBER)
    story.revision = 0
    await story.source(None)
    async with story.store.begin() as tx:
        assert (await tx.standings())["us"].complete_through == NOVEMBER
        await tx.know_sources("org-1", ["eu", "us"])
        await tx.know_sources("org-1", ["eu"])
        await tx.know_sources("org-1", [])
        assert await tx.sources_of("org-1") == {"eu", "us"}
        assert await tx.sources_of("org-2") == frozenset()


async def test_a_standing_and_a_closing_come_back_as_they_were_saved(story):
    own = replace(WAIVER, organization_id="org-1")
    await story.source(NOVEMBER, waivers=[WAIVER, own])
    async with story.store.begin() as tx:
        held = (await tx.standings())["us"]
    assert held == SourceStanding("us", 1, True, "reporting", NOVEMBER, OCTOBER, (WAIVER, own))
