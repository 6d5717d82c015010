"""Sources on the memory store and on Postgres: one suite, so that the fake cannot lie (L20)."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_runtime.database import Database
from quill_runtime.outbox import Outbox
from quill_usage_ingest.domain.usage_source import SourceState, UsageSource, Waiver
from quill_usage_ingest.domain.watermark import WatermarkClaim
from quill_usage_ingest.ports import SourceTransaction
from quill_usage_ingest.store.memory_sources import MemorySources
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.usecases import change_source as changing
from quill_usage_ingest.usecases.change_source import change_source, hear_sources, watch_sources
from quill_usage_ingest.usecases.promote_watermarks import promote_watermarks

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADA = {"actor": "ada@example.org", "reason": "asked the region"}
REPORTS = ("usage.reports.v1", 0)

Begin = Callable[[], AbstractAsyncContextManager[SourceTransaction]]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def begin(request: pytest.FixtureRequest) -> Begin:
    if request.param == "memory":
        return MemorySources().begin
    database: Database = request.getfixturevalue("database")

    @asynccontextmanager
    async def begin() -> AsyncIterator[SourceTransaction]:
        async with database.begin() as transaction:
            yield PostgresSources(transaction, Outbox())

    return begin


def claim(day: int, *, source: str = "us", start: int | None = None, as_of: datetime = NOON) -> WatermarkClaim:
    return WatermarkClaim(
        source,
        OCTOBER + (day - 1) * DAY,
        as_of=as_of,
        origin="usage.watermarks.v1",
        actor=f"source:{source}",
        start=None if start is None else OCTOBER + (start - 1) * DAY,
    )


async def expect(begin: Begin, *names: str, now: datetime = NOON) -> None:
    for name in names:
        async with begin() as tx:
            await change_source(
                name,
                lambda held: held.declare(is_expected=True, silent_after_hours=26, is_retired=False, **ADA, now=now),
                tx=tx,
            )


async def known(begin: Begin, name: str = "us") -> UsageSource:
    async with begin() as tx:
        return (await tx.sources([name]))[name]


async def claimed(begin: Begin, *claims: WatermarkClaim, ends: dict, settled: dict, now: datetime = NOON) -> int:
    """Claims arrive, learn where the logs end, and those count whose reports are in; how many were worked off."""
    async with begin() as tx:
        await tx.add_claims(claims, now=now)
    async with begin() as tx:
        waiting = await tx.unfenced()
        await tx.put_up_fences(waiting, ends)
    return await promoted(begin, settled, now=now)


async def promoted(begin: Begin, settled: dict, *, now: datetime = NOON) -> int:
    async with begin() as tx:
        return (await promote_watermarks(settled, tx=tx, now=now, is_recount_due=False)).claims


async def test_a_watermark_waits_until_everything_before_it_has_been_entered(begin):
    assert await claimed(begin, claim(4), ends={REPORTS: 10}, settled={REPORTS: 9}) == 0
    assert await promoted(begin, {}) == 0, "a position that is not known has entered nothing"
    async with begin() as tx:
        assert await tx.sources(["us"]) == {}
        assert await tx.waiting_claims("us") == [claim(4)]
    assert await promoted(begin, {REPORTS: 10}) == 1
    assert (await known(begin)).complete.through == OCTOBER + 3 * DAY
    assert await promoted(begin, {REPORTS: 10}) == 0
    async with begin() as tx:
        assert await tx.waiting_claims("us") == []


async def test_a_fence_is_put_up_once_and_only_for_what_was_there_when_the_logs_were_read(begin):
    async with begin() as tx:
        await tx.add_claims([claim(3)], now=NOON)
    async with begin() as tx:
        waiting = await tx.unfenced()
    async with begin() as tx:
        await tx.add_claims([claim(4)], now=NOON)
        await tx.put_up_fences(waiting, {REPORTS: 5})
    assert await promoted(begin, {REPORTS: 5}) == 1
    assert (await known(begin)).complete.through == OCTOBER + 2 * DAY
    async with begin() as tx:
        assert len((await tx.unfenced()).claim_ids) == 1


async def test_out_of_order_and_repeated_claims_of_several_sources(begin):
    said = [claim(4), claim(2), claim(5, start=4), claim(8, start=7), claim(3, source="eu"), claim(4)]
    assert await claimed(begin, *said, ends={}, settled={}) == 6
    us, eu = await known(begin), await known(begin, "eu")
    assert us.complete.through == OCTOBER + 4 * DAY
    assert [span.start for span in us.complete.ahead] == [OCTOBER + 6 * DAY]
    assert eu.complete.through == OCTOBER + 2 * DAY
    revision = us.revision
    assert await claimed(begin, *said, ends={}, settled={}) == 6
    assert (await known(begin)).revision == revision, "a repeat publishes nothing"


async def test_what_was_said_before_a_reset_counts_no_longer_even_if_it_was_still_waiting(begin):
    await claimed(begin, claim(5), ends={}, settled={})
    await claimed(begin, claim(6), ends={REPORTS: 1}, settled={})
    async with begin() as tx:
        await change_source("us", lambda held: held.set_back(OCTOBER + DAY, **ADA, now=NOON + HOUR), tx=tx)
    assert await promoted(begin, {REPORTS: 1}) == 1
    assert (await known(begin)).complete.through == OCTOBER + DAY
    await claimed(begin, claim(3, as_of=NOON + 2 * HOUR), ends={}, settled={})
    assert (await known(begin)).complete.through == OCTOBER + 2 * DAY


async def test_silence_is_found_with_the_clock_and_ends_with_the_next_report(begin):
    await expect(begin, "us", "eu")
    async with begin() as tx:
        changed, turned_away = await hear_sources({"us": NOON, "eu": NOON, "new": NOON}, tx=tx)
    assert ([each.source for each in changed], turned_away) == (["eu", "new", "us"], [])
    async with begin() as tx:
        await hear_sources({"eu": NOON + 20 * HOUR}, tx=tx)
    for hours, fallen in ((25, []), (26, ["us"]), (27, []), (46, ["eu"])):
        async with begin() as tx:
            watched = await watch_sources(NOON + hours * HOUR, tx=tx)
            assert [each.source for each in watched.fallen] == fallen
            assert [each.source for each in watched.expected] == ["eu", "us"]
    assert (await known(begin)).state is SourceState.SILENT
    revision = (await known(begin)).revision
    async with begin() as tx:
        changed, _ = await hear_sources({"us": NOON + 50 * HOUR}, tx=tx)
    assert [each.source for each in changed] == ["us"]
    back = await known(begin)
    assert (back.state, back.heard_at, back.revision) == (SourceState.REPORTING, NOON + 50 * HOUR, revision + 1)
    assert (await known(begin, "new")).state is SourceState.REPORTING


async def test_hearing_a_source_again_is_written_without_a_new_revision(begin):
    async with begin() as tx:
        await hear_sources({"us": NOON}, tx=tx)
    before = await known(begin)
    async with begin() as tx:
        assert await hear_sources({"us": NOON + HOUR}, tx=tx) == ([], [])
    after = await known(begin)
    assert (after.heard_at, after.revision, after.version) == (NOON + HOUR, before.revision, before.version)


async def test_who_invents_names_without_end_is_turned_away_and_said_so(begin, monkeypatch):
    monkeypatch.setattr(changing, "SOURCES_MAX", 2)
    async with begin() as tx:
        await hear_sources({"us": NOON}, tx=tx)
    async with begin() as tx:
        _, turned_away = await hear_sources(dict.fromkeys(("us", "a", "b", "c"), NOON + HOUR), tx=tx)
    assert turned_away == ["b", "c"]
    assert (await known(begin)).heard_at == NOON + HOUR


async def test_what_was_known_at_an_instant_is_the_fold_of_the_events_until_then(begin):
    await expect(begin, "us", now=NOON)
    await claimed(begin, claim(3), ends={}, settled={}, now=NOON + HOUR)
    await claimed(begin, claim(5), ends={}, settled={}, now=NOON + 2 * HOUR)
    waiver = Waiver("w1", OCTOBER + 31 * DAY, at=NOON + 3 * HOUR, **ADA)
    async with begin() as tx:
        await change_source("us", lambda held: held.waive(waiver), tx=tx)
    async with begin() as tx:
        views = [(await tx.sources_as_of(["us", "eu"], NOON + hours * HOUR)) for hours in (-1, 0, 1, 2, 3)]
    assert views[0] == {}
    assert [view["us"].complete.through for view in views[1:]] == [
        None,
        OCTOBER + 2 * DAY,
        OCTOBER + 4 * DAY,
        OCTOBER + 4 * DAY,
    ]
    assert [len(view["us"].waivers) for view in views[1:]] == [0, 0, 0, 1]


class World:
    """Reports and watermarks of two sources, sent, read and entered in some order, on the memory store."""

    def __init__(self) -> None:
        self.store = MemorySources()
        self.sent: list[tuple[str, int]] = []
        self.entered = 0
        self.unread: list[tuple[WatermarkClaim, int]] = []

    @property
    def ends(self) -> dict:
        return {REPORTS: len(self.sent)} if self.sent else {}

    async def do(self, what: str, source: str, day: int) -> None:
        match what:
            case "report":
                self.sent.append((source, day))
            case "say":
                self.unread.append((claim(day, source=source), len(self.sent)))
            case "read":
                while self.unread:
                    said, _ = self.unread.pop(0)
                    await self.store.add_claims([said], now=NOON)
            case "fence":
                await self.store.put_up_fences(await self.store.unfenced(), self.ends)
            case "enter":
                self.entered = min(len(self.sent), self.entered + day)
            case _:
                await promote_watermarks({REPORTS: self.entered}, tx=self.store, now=NOON, is_recount_due=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["report", "say", "read", "fence", "enter", "promote"]),
            st.sampled_from(["us", "eu"]),
            st.integers(1, 9),
        ),
        max_size=60,
    )
)
async def test_a_watermark_never_exceeds_what_was_entered_and_all_count_in_the_end(steps):
    world = World()
    said: list[tuple[WatermarkClaim, int]] = []
    for what, source, day in steps:
        await world.do(what, source, day)
        if what == "say":
            said.append(world.unread[-1])
        for name, held in world.store.held.items():
            allowed = [c.through for c, sent in said if c.source == name and sent <= world.entered]
            assert held.complete.through is None or held.complete.through <= max(allowed)
    for what, day in (("read", 1), ("fence", 1), ("enter", 999), ("promote", 1)):
        await world.do(what, "us", day)
    for name in ("us", "eu"):
        largest = max((c.through for c, _ in said if c.source == name), default=None)
        held = world.store.held.get(name)
        assert (held.complete.through if held else None) == largest
