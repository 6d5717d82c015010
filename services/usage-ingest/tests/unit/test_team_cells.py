"""Team cells obey L1, add up to their organization, and fall back to what the counting reports say."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.team_cells import TeamBook, TeamsReport, claimed_team_rows, join_claims
from quill_usage_ingest.domain.usage_cells import claimed_cells, join
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow
from quill_usage_ingest.store.memory_teams import MemoryTeams
from quill_usage_ingest.usecases.record_teams import rebuild_team_windows, record_teams

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)


def claim_of(
    teams: dict[str, dict[str, int]], *, day: int, at: int, complete: bool, source: str = "us", name: str = "r"
) -> TeamsReport:
    start = OCTOBER + timedelta(days=day)
    totals: dict[str, int] = {}
    for counters in teams.values():
        for counter, quantity in counters.items():
            totals[counter] = totals.get(counter, 0) + quantity
    report = UsageReport(
        report_id=f"{name}-{day}-{at}-{complete}",
        organization_id="acme",
        source=source,
        window=UsageWindow(start, start + timedelta(days=1)),
        completeness=Completeness.COMPLETE if complete else Completeness.PARTIAL,
        as_of=start + timedelta(hours=at),
        counters=totals,
        content_hash=repr(sorted(teams.items())).encode(),
    )
    return TeamsReport(report, teams)


TEAMS = st.dictionaries(
    st.sampled_from(["1", "2", "3"]), st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)), max_size=3
)
CLAIMS = st.lists(
    st.builds(
        claim_of,
        TEAMS,
        day=st.integers(0, 1),
        at=st.integers(0, 2),
        complete=st.booleans(),
        source=st.sampled_from(["us", "eu"]),
    ),
    max_size=8,
)


@given(CLAIMS, st.randoms(use_true_random=False), st.integers(1, 4))
async def test_any_order_repetition_and_cut_gives_the_same_team_cells(claims, chance: random.Random, cut: int):
    store = MemoryTeams()
    shuffled = claims * 2
    chance.shuffle(shuffled)
    for first in range(0, len(shuffled), cut):
        await record_teams(shuffled[first : first + cut], tx=store, now=NOW)
    assert store.rows == join_claims(claims)


@given(st.dictionaries(st.sampled_from(["1", "2"]), st.fixed_dictionaries({"a": st.integers(0, 9)}), min_size=1))
def test_teams_add_up_to_their_organization_where_the_report_says_so(teams):
    claim = claim_of(teams, day=0, at=1, complete=True)
    cells = claimed_cells(claim.report)
    rows = claimed_team_rows(claim).values()
    assert sum(row.cells["a"].quantity for row in rows) == cells["a"].quantity


async def test_a_repeated_team_in_one_batch_is_merged_before_it_is_written():
    store = MemoryTeams()
    partial = claim_of({"1": {"a": 9}}, day=0, at=1, complete=False)
    complete = claim_of({"1": {"a": 4}, "2": {}}, day=0, at=0, complete=True)
    assert await record_teams([partial, complete, partial], tx=store, now=NOW) == 2
    assert [row.cells["a"].quantity for key, row in sorted(store.rows.items()) if key.team_id == "1"] == [4]
    assert await record_teams([partial, complete], tx=store, now=NOW) == 0


@pytest.mark.parametrize(
    ("day", "at"),
    [(-25_000, 0), (60, 0), (0, 24 * 60)],
    ids=["before any period", "in the future", "counted in the future"],
)
async def test_a_report_the_organization_refuses_enters_no_teams(day: int, at: int):
    store = MemoryTeams()
    assert await record_teams([claim_of({"1": {"a": 1}}, day=day, at=at, complete=True)], tx=store, now=NOW) == 0
    assert store.rows == {}


def test_an_overlapping_window_enters_no_teams(claim: Callable[..., UsageReport]):
    book = TeamBook()
    assert book.enter(TeamsReport(claim(hours=(0, 24)), {"1": {"a": 1}}), now=NOW)
    assert not book.enter(TeamsReport(claim(hours=(6, 12)), {"1": {"a": 1}}), now=NOW)
    assert book.enter(TeamsReport(claim(hours=(6, 12), source="eu"), {"1": {"a": 1}}), now=NOW)
    again = TeamBook(book.rows)
    assert not again.enter(TeamsReport(claim(hours=(6, 12)), {"1": {"a": 1}}), now=NOW)


async def test_a_voided_report_enters_no_teams():
    store = MemoryTeams()
    wrong = claim_of({"1": {"a": 100}}, day=0, at=5, complete=True, name="wrong")
    store.voided.add((wrong.report.name, wrong.report.content_hash))
    right = claim_of({"1": {"a": 7}}, day=0, at=1, complete=True)
    await record_teams([wrong, right], tx=store, now=NOW)
    assert store.rows == claimed_team_rows(right)


@given(CLAIMS, st.data())
async def test_a_void_takes_its_team_cells_out_and_its_revert_brings_them_back(claims, data):
    store = MemoryTeams()
    await record_teams(claims, tx=store, now=NOW)
    everything = dict(store.rows)
    windows = {claim.report.window_key for claim in claims}
    voided = data.draw(st.sampled_from(claims)) if claims else None
    left = [claim for claim in claims if claim is not voided]
    await rebuild_team_windows(windows, left, tx=store)
    assert store.rows == join_claims(left)
    await rebuild_team_windows(windows, claims, tx=store)
    assert store.rows == everything


async def test_a_rebuild_leaves_other_windows_alone():
    store = MemoryTeams()
    first, second = (claim_of({"1": {"a": 1}}, day=day, at=1, complete=True) for day in (0, 1))
    await record_teams([first, second], tx=store, now=NOW)
    await rebuild_team_windows([first.report.window_key], [second], tx=store)
    assert store.rows == claimed_team_rows(second)
    cells = [row.cells for row in join_claims([first, second]).values()]
    assert join(cells[0], cells[1]) == cells[1]
