"""Entering reports: verdicts, refusals, sums, maxima and corrections (L1, L2, L3, L6)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingSchedule, Interval
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.period_usage import CounterUsage, sum_windows
from quill_usage_ingest.domain.usage_book import Refusal, UsageBook, Verdict
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX, UsageReport, UsageWindow

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
MONTHLY = BillingSchedule(OCTOBER, Interval(1, "month"))


def empty_book() -> UsageBook:
    return UsageBook(schedules={"acme": MONTHLY}, revisions={"acme": 0})


def entered(*reports: UsageReport) -> tuple[UsageBook, list[Verdict | Refusal]]:
    book = empty_book()
    return book, [book.enter(report, now=NOW) for report in reports]


def used(book: UsageBook, counter: str = "events", month: int = 10) -> CounterUsage:
    return next(usage.counters[counter] for key, usage in book.periods.items() if key.period.start.month == month)


def test_period_to_date_is_the_sum_over_windows_and_sources_that_start_in_the_period(claim):
    book, _ = entered(
        claim(day=1, events=10),
        claim(day=31, events=5),
        claim(day=31, source="eu", events=2),
        claim(day=32, events=100),
    )
    assert used(book) == CounterUsage(complete=17, partial=0, maximum=17)
    assert used(book, month=11) == CounterUsage(complete=100, partial=0, maximum=100)


def test_a_day_still_counted_is_kept_apart_until_its_complete_report_comes(claim):
    book, _ = entered(claim(day=1, events=10), claim(day=2, complete=False, events=4))
    assert used(book) == CounterUsage(complete=10, partial=4, maximum=14)
    book.enter(claim(day=2, at=1, events=6), now=NOW)
    assert used(book) == CounterUsage(complete=16, partial=0, maximum=16)


def test_the_maximum_does_not_fall_when_the_total_does(claim):
    book, _ = entered(claim(complete=False, events=100), claim(at=-3, events=90))
    assert used(book) == CounterUsage(complete=90, partial=0, maximum=100)


def test_a_correction_lowers_the_maximum_and_leaves_its_revision(claim):
    book, verdicts = entered(
        claim(events=100, recordings=8), claim(day=2, events=1), claim(at=1, correction=True, events=40)
    )
    assert verdicts[-1] is Verdict.APPLIED
    assert used(book) == CounterUsage(complete=41, partial=0, maximum=41)
    assert used(book, "recordings").maximum == 8


def test_a_correction_of_lower_rank_changes_nothing(claim):
    book, verdicts = entered(claim(at=2, events=100), claim(at=1, correction=True, events=40))
    assert verdicts[-1] is Verdict.SUPERSEDED
    assert used(book).maximum == 100


def test_a_repeated_correction_does_not_lower_what_was_counted_since(claim):
    book, _ = entered(
        claim(events=100), claim(at=1, correction=True, events=40), claim(day=2, complete=False, events=60)
    )
    book.enter(claim(day=2, at=1, events=10), now=NOW)
    assert used(book) == CounterUsage(complete=50, partial=0, maximum=100)
    assert book.enter(claim(at=1, correction=True, events=40), now=NOW) is Verdict.NO_CHANGE
    assert used(book).maximum == 100


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        ({"at": 0, "events": 5}, Verdict.NO_CHANGE),
        ({"at": 1, "events": 5}, Verdict.APPLIED),
        ({"at": -1, "events": 9}, Verdict.SUPERSEDED),
        ({"at": 3, "complete": False, "events": 9}, Verdict.SUPERSEDED),
        ({"at": 0, "recordings": 0}, Verdict.APPLIED),
        ({"at": 0, "events": 6, "report_id": "first"}, Verdict.CONFLICT),
        ({"at": 0}, Verdict.NO_CHANGE),
    ],
)
def test_each_verdict_has_its_case(claim, second, verdict):
    _, verdicts = entered(claim(events=5, report_id="first"), claim(**second))
    assert verdicts == [Verdict.APPLIED, verdict]


def test_a_conflict_is_merged_by_rank_all_the_same(claim):
    book, _ = entered(claim(events=5, report_id="r"), claim(at=1, events=9, report_id="r"))
    assert used(book).complete == 9


@pytest.mark.parametrize(
    ("given", "code", "attribute"),
    [
        ({"organization_id": "nobody", "events": 1}, "unknown_organization", "organization_id"),
        ({"hours": (0, 12), "events": 1}, "overlapping_window", "window_end"),
        ({"hours": (6, 12), "events": 1}, "overlapping_window", "window_end"),
        ({"day": 2, "at": 24 * 40, "events": 1}, "as_of_in_the_future", "as_of"),
        ({"day": 2, "events": QUANTITY_MAX}, "period_overflow", "counters__events"),
        ({"day": 90, "at": -24 * 80, "events": 1}, "window_in_the_future", "window_start"),
        ({"day": 365 * 7000, "events": 1}, "window_out_of_range", "window_start"),
    ],
)
def test_each_refusal_names_its_field_and_changes_nothing(claim, given, code, attribute):
    book, _ = entered(claim(events=1))
    before = (dict(book.windows), dict(book.periods))
    refusal = book.enter(claim(**given), now=NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.attribute) == (code, attribute)
    assert (book.windows, book.periods) == before


def test_hours_of_one_day_add_up_when_they_do_not_overlap(claim):
    book, verdicts = entered(claim(hours=(0, 12), events=1), claim(hours=(12, 24), events=2))
    assert verdicts == [Verdict.APPLIED] * 2
    assert used(book).complete == 3


def test_a_report_without_counters_tells_only_how_fresh_the_source_is(claim):
    book, verdicts = entered(claim(events=5), claim(day=3))
    (usage,) = book.periods.values()
    assert verdicts[-1] is Verdict.NO_CHANGE
    assert usage.as_of == OCTOBER + timedelta(days=3)


def build_claim(*, day, source, complete, at, events, recordings) -> UsageReport:
    start = OCTOBER + timedelta(days=day)
    counters = {"events": events} | ({} if recordings is None else {"recordings": recordings})
    return UsageReport(
        report_id=f"{day}{source}{complete}{at}{counters}",
        organization_id="acme",
        source=source,
        window=UsageWindow(start, start + timedelta(days=1)),
        completeness=Completeness.COMPLETE if complete else Completeness.PARTIAL,
        as_of=start + timedelta(hours=at),
        counters=counters,
        content_hash=b"",
    )


CLAIMS = st.builds(
    build_claim,
    day=st.sampled_from([0, 1, 33]),
    source=st.sampled_from(["us", "eu"]),
    complete=st.booleans(),
    at=st.integers(0, 2),
    events=st.integers(0, 5),
    recordings=st.none() | st.integers(0, 5),
)


def totals(book: UsageBook):
    return {
        key: (usage.as_of, {counter: (held.complete, held.partial) for counter, held in usage.counters.items()})
        for key, usage in book.periods.items()
    }


@given(st.lists(CLAIMS, max_size=12), st.randoms(use_true_random=False))
def test_any_permutation_and_repetition_of_reports_gives_the_same_cells_and_totals(reports, random):
    resent = reports + random.sample(reports, k=len(reports) // 2)
    random.shuffle(resent)
    straight, _ = entered(*reports)
    shuffled, _ = entered(*resent)
    assert straight.windows == shuffled.windows
    assert totals(straight) == totals(shuffled)


@given(st.lists(CLAIMS, max_size=12), st.integers(0, 12))
def test_the_cut_into_batches_changes_neither_totals_nor_maxima(reports, cut):
    whole, _ = entered(*reports)
    first, _ = entered(*reports[:cut])
    second = UsageBook(
        schedules=first.schedules, revisions={"acme": 1}, windows=dict(first.windows), periods=dict(first.periods)
    )
    for report in reports[cut:]:
        second.enter(report, now=NOW)
    assert totals(whole) == totals(second)
    assert [usage.counters for usage in whole.periods.values()] == [usage.counters for usage in second.periods.values()]


@given(st.lists(CLAIMS, min_size=1, max_size=12))
def test_maintained_totals_equal_the_sum_of_the_cells_and_no_maximum_is_below_its_total(reports):
    book, _ = entered(*reports)
    for key, usage in book.periods.items():
        windows = [held for held in book.windows.values() if MONTHLY.period_containing(held.window.start) == key.period]
        summed = sum_windows(key.period, windows)
        assert summed is not None
        for counter, held in usage.counters.items():
            assert (held.complete, held.partial) == (summed.sums[counter].complete, summed.sums[counter].partial)
            assert held.maximum >= held.to_date
