"""Explanations depend on what was reported, not on the order; and they add up to the stored numbers (L1, L5)."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingSchedule, Interval
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.evidence import Evidence, OutOfCount
from quill_usage_ingest.domain.explanation import Standing, StepKind, explain, known_at, usage_at
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage
from quill_usage_ingest.domain.usage_book import UsageBook, Verdict
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
SCHEDULES = {"acme": BillingSchedule(OCTOBER, Interval(1, "month"))}


def report(day=1, at=0, source="us", completeness=Completeness.COMPLETE, name="", **counters):
    start = OCTOBER + timedelta(days=day - 1)
    content = repr((day, at, source, completeness, name, sorted(counters.items())))
    return UsageReport(
        report_id=name or content,
        organization_id="acme",
        source=source,
        window=UsageWindow(start, start + timedelta(days=1)),
        completeness=completeness,
        as_of=start + timedelta(days=1, hours=at),
        counters=counters,
        content_hash=hashlib.sha256(content.encode()).digest(),
    )


reports = st.builds(
    report,
    day=st.integers(1, 3),
    at=st.integers(0, 2),
    source=st.sampled_from(["us", "eu"]),
    completeness=st.sampled_from([Completeness.PARTIAL, Completeness.COMPLETE]),
    name=st.sampled_from(["", "b"]),
    events=st.integers(0, 3),
)


def kept(arriving, *, start=NOW, **given):
    """Evidence of reports in the order they arrive, each distinct content once, as a store keeps it."""
    seen = {}
    for number, each in enumerate(arriving, start=1):
        key = (each.name, each.content_hash)
        if key not in seen:
            seen[key] = Evidence(number, each, start + timedelta(seconds=number), "kafka", Verdict.APPLIED, **given)
    return list(seen.values())


def without_arrival(explanation):
    return [
        (cell.window, cell.source, cell.cell, [(claim.evidence.report, claim.standing) for claim in cell.claims])
        for cell in explanation.cells
    ]


def entered(arriving):
    book = UsageBook(schedules=SCHEDULES, revisions={"acme": 0})
    for each in arriving:
        assert isinstance(book.enter(each, now=NOW), Verdict)
    (usage,) = book.periods.values()
    return usage.counters["events"]


@given(arriving=st.lists(reports, min_size=1, max_size=8), data=st.data())
def test_any_permutation_and_repetition_is_explained_alike(arriving, data):
    again = data.draw(st.permutations(arriving + data.draw(st.lists(st.sampled_from(arriving), max_size=4))))
    assert without_arrival(explain("events", kept(arriving))) == without_arrival(explain("events", kept(again)))


@given(arriving=st.lists(reports, min_size=1, max_size=8), data=st.data())
def test_the_order_in_which_kept_reports_are_read_changes_nothing(arriving, data):
    evidence = kept(arriving)
    assert explain("events", data.draw(st.permutations(evidence))) == explain("events", evidence)


@given(arriving=st.lists(reports, min_size=1, max_size=10))
def test_the_explained_total_and_maximum_equal_the_entered_ones(arriving):
    assert explain("events", kept(arriving)).usage == entered(arriving)


@given(arriving=st.lists(reports, min_size=1, max_size=8), data=st.data())
def test_what_was_known_at_an_instant_is_what_had_been_entered_by_then(arriving, data):
    evidence = kept(arriving)
    cut = data.draw(st.integers(0, len(evidence)))
    at = evidence[cut - 1].received_at if cut else NOW
    expected = entered([held.report for held in evidence[:cut]]) if cut else NOTHING_USED
    assert usage_at(explain("events", evidence), at) == expected
    total = known_at(at, evidence).get("events", NOTHING_USED)
    assert (total.complete, total.partial) == (expected.complete, expected.partial)


@given(arriving=st.lists(reports, min_size=1, max_size=8), data=st.data())
def test_voided_reports_count_until_then_and_not_after(arriving, data):
    evidence = kept(arriving)
    voided_at = evidence[-1].received_at + timedelta(hours=1)
    span = OutOfCount("c1", "ada", "counted twice", voided_at)
    chosen = set(data.draw(st.lists(st.sampled_from([held.kept_id for held in evidence]), unique=True)))
    after = [
        replace(held, verdict=Verdict.VOIDED, out_of_count=(span,)) if held.kept_id in chosen else held
        for held in evidence
    ]
    left = [held for held in evidence if held.kept_id not in chosen]
    explained = explain("events", after)
    assert known_at(voided_at, after) == known_at(voided_at, left)
    assert known_at(voided_at - timedelta(seconds=1), after) == known_at(voided_at, evidence)
    assert explained.usage[:2] == explain("events", left).usage[:2]
    assert explained.usage[:2] == usage_at(explained, voided_at)[:2]


@given(arriving=st.lists(reports, min_size=1, max_size=8), data=st.data())
def test_the_timeline_has_no_gaps(arriving, data):
    evidence = kept(arriving)
    voided_at = evidence[-1].received_at + timedelta(hours=1)
    span = OutOfCount("c1", "ada", "counted twice", voided_at, voided_at + timedelta(hours=1))
    chosen = data.draw(st.sampled_from(evidence)).kept_id
    after = [replace(held, out_of_count=(span,)) if held.kept_id == chosen else held for held in evidence]
    steps = explain("events", after).timeline
    assert all(one.after == other.before for one, other in pairwise(steps))
    assert steps[0].before == NOTHING_USED
    assert [step.kind for step in steps[-2:]] == [StepKind.VOIDED, StepKind.REVERTED]
    assert steps[-1].after[:2] == steps[-3].after[:2]


def standings(*arriving, **changes):
    (cell,) = explain("events", [replace(held, **changes) for held in kept(arriving)]).cells
    return [claim.standing for claim in cell.claims]


def test_each_report_that_does_not_hold_its_cell_has_its_reason():
    complete, partial, corrected = Completeness.COMPLETE, Completeness.PARTIAL, Completeness.CORRECTED
    assert standings(report(at=2, events=1), report(at=1, events=9)) == [Standing.HOLDS, Standing.OLDER]
    assert standings(report(at=2, completeness=partial, events=9), report(at=1, completeness=complete, events=1)) == [
        Standing.HOLDS,
        Standing.PARTIAL,
    ]
    assert standings(report(events=1), report(events=2)) == [Standing.HOLDS, Standing.SMALLER]
    assert standings(report(events=2), report(events=2, name="again")) == [Standing.HOLDS, Standing.EQUAL]
    assert standings(report(completeness=corrected, events=1), report(at=9, events=2)) == [
        Standing.HOLDS,
        Standing.BEHIND_CORRECTION,
    ]


def test_a_cell_whose_reports_are_all_out_of_count_has_no_holder_and_says_who_did_it():
    span = OutOfCount("c1", "ada", "counted twice", NOW + timedelta(days=1))
    (cell,) = explain("events", kept([report(events=7)], out_of_count=(span,))).cells
    assert cell.holder is not None, "the verdict decides what counts now"
    evidence = [replace(held, verdict=Verdict.VOIDED) for held in kept([report(events=7)], out_of_count=(span,))]
    explained = explain("events", evidence)
    (cell,) = explained.cells
    assert cell.holder is None
    assert cell.cell.quantity == 0
    assert cell.claims[0].voided_by == span
    assert explained.usage == CounterUsage(0, 0, 0), "a correction brings the maximum down (L3)"


def test_a_shadowed_report_never_moved_the_number():
    evidence = [replace(held, verdict=Verdict.SHADOWED) for held in kept([report(events=7)])]
    explained = explain("events", evidence)
    assert [claim.standing for claim in explained.cells[0].claims] == [Standing.SHADOWED]
    assert explained.timeline == ()
    assert known_at(NOW + timedelta(days=9), evidence) == {}


def test_counters_a_report_does_not_claim_are_not_explained_by_it():
    assert explain("recordings", kept([report(events=7)])).cells == ()
