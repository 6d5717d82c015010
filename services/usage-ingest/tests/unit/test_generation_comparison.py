"""Do v1 and v2 say the same? What counts as a difference, and when v1 can be retired."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.generation import Generation, InvalidShadows, ShadowedGenerations
from quill_usage_ingest.domain.generation_comparison import (
    Comparison,
    ComparisonState,
    DayTally,
    GenerationClaim,
    compare,
    judge,
    newest_settled_day,
)
from quill_usage_ingest.domain.usage_report import DayKey
from quill_usage_ingest.wire.generations import share, to_wire_summary, to_wire_verdict

DAY = datetime(2026, 10, 5, tzinfo=UTC)
KEY = DayKey("acme", DAY, "us")
V1, V2 = 11, 22


def compared(v1: dict[str, int] | None, v2: dict[str, int] | None) -> Comparison | None:
    sides = [
        None if counters is None else GenerationClaim(kept_id, counters) for kept_id, counters in ((V1, v1), (V2, v2))
    ]
    return compare(KEY, *sides)


@pytest.mark.parametrize(
    ("v1", "v2", "state", "differences"),
    [
        ({"events": 12}, {"events": 12}, "equal", []),
        ({"events": 0}, {"events": 0}, "equal", []),
        # A counter that is not named counts as zero: counters come and go between releases.
        ({"events": 12}, {"events": 12, "surveys": 0}, "equal", []),
        ({"events": 12, "surveys": 0}, {"events": 12}, "equal", []),
        ({"events": 12}, {"events": 13}, "different", [("events", 12, 13)]),
        ({"events": 12}, {"events": 12, "surveys": 1}, "different", [("surveys", None, 1)]),
        ({"events": 12, "a": 1}, {"a": 2}, "different", [("a", 1, 2), ("events", 12, None)]),
        # v2 tells of everybody, v1 only of those with usage.
        (None, {"events": 0, "surveys": 0}, "equal_zero", []),
        (None, {}, "equal_zero", []),
        (None, {"events": 1}, "only_v2", [("events", None, 1)]),
        ({"events": 1}, None, "only_v1", [("events", 1, None)]),
        ({"events": 0}, None, "only_v1", []),
    ],
)
def test_what_two_generations_say_is_compared_counter_by_counter(v1, v2, state, differences):
    found = compared(v1, v2)
    assert found is not None
    assert (found.state, list(found.differences)) == (state, differences)
    assert (found.v1_report, found.v2_report) == (V1 if v1 is not None else None, V2 if v2 is not None else None)


def test_of_neither_there_is_nothing_to_compare():
    assert compared(None, None) is None


claims = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 3))


@given(claims, claims)
def test_they_are_equal_exactly_when_every_counter_is(v1, v2):
    found = compared(v1, v2)
    assert found is not None
    is_same = all(v1.get(counter, 0) == v2.get(counter, 0) for counter in "abcd")
    assert (found.state is ComparisonState.EQUAL) == is_same == (not found.differences)
    turned = compared(v2, v1)
    assert [(counter, two, one) for counter, one, two in found.differences] == list(turned.differences)


@given(claims, claims, claims)
def test_the_same_difference_has_the_same_fingerprint_and_another_one_another(v1, v2, other):
    one, again, changed = compared(v1, v2), compared(v1, v2), compared(other, v2)
    assert one.fingerprint == again.fingerprint
    assert (one.fingerprint == changed.fingerprint) == (one.differences == changed.differences)


NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
"""18 October is the newest day of which both have had their say."""


def tally(day: int, *, accepted: int = 0, source: str = "us", **states: int) -> DayTally:
    found = {ComparisonState(name): count for name, count in (states or {"equal": 5}).items()}
    return DayTally(source, date(2026, 10, day), found, accepted)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        (datetime(2026, 10, 20, 12, tzinfo=UTC), 18),
        (datetime(2026, 10, 20, 0, tzinfo=UTC), 18),
        (datetime(2026, 10, 19, 23, 59, tzinfo=UTC), 17),
    ],
)
def test_a_day_is_settled_a_day_after_its_end(now, day):
    assert newest_settled_day(now) == date(2026, 10, day)


@pytest.mark.parametrize(
    ("name", "tallies", "equal_days", "since", "broken_on"),
    [
        ("three in a row", [tally(16), tally(17), tally(18)], 3, 16, None),
        ("the newest does not count yet", [tally(17), tally(18), tally(19, different=5)], 2, 17, None),
        ("a difference ends it", [tally(15), tally(16, equal=4, different=1), tally(17), tally(18)], 2, 17, 16),
        ("an accepted one does not", [tally(16, equal=4, different=1, accepted=1), tally(17), tally(18)], 3, 16, None),
        ("silence of v1 agrees with zero", [tally(17, equal=1, equal_zero=9), tally(18)], 2, 17, None),
        ("one only v2 knows ends it", [tally(17, equal=1, only_v2=1), tally(18)], 1, 18, 17),
        ("a day nobody compared ends it", [tally(15), tally(16), tally(18)], 1, 18, 17),
        ("old evidence is none", [tally(10), tally(11), tally(12)], 0, None, 18),
        ("nothing", [], 0, None, 18),
        ("somebody else's days", [tally(17, source="eu"), tally(18, source="eu")], 0, None, 18),
    ],
)
def test_v1_can_be_retired_after_enough_equal_days_in_a_row(name, tallies, equal_days, since, broken_on):
    for needed_days in (1, equal_days, equal_days + 1):
        verdict = judge("us", tallies, now=NOW, needed_days=max(1, needed_days))
        assert verdict.can_be_retired == (equal_days >= max(1, needed_days)), name
        assert verdict.equal_days == equal_days
        assert verdict.since == (since and date(2026, 10, since))
        assert verdict.broken_on == (broken_on and date(2026, 10, broken_on))


@given(
    st.lists(st.sampled_from(["equal", "equal_zero", "different", "only_v1", "only_v2", None]), min_size=1, max_size=12)
)
def test_the_verdict_counts_back_from_the_newest_settled_day(states):
    """Independent of the implementation: cut the list at the last day that was not equal."""
    tallies = [tally(18 - back, **{state: 1}) for back, state in enumerate(states) if state is not None]
    agreeing = [state in ("equal", "equal_zero") for state in states]
    expected = agreeing.index(False) if False in agreeing else len(agreeing)
    assert judge("us", tallies, now=NOW, needed_days=3).equal_days == expected


def test_a_person_reads_the_verdict_in_a_sentence():
    good = judge("us", [tally(17), tally(18)], now=NOW, needed_days=2)
    bad = judge("us", [tally(16), tally(17, different=1), tally(18)], now=NOW, needed_days=2)
    assert to_wire_verdict(good)["sentence"] == "v1 can be retired for us: equal every day since 2026-10-17"
    assert to_wire_verdict(bad)["sentence"] == (
        "v1 cannot be retired for us yet: 1 of 2 days in a row are equal; 2026-10-17 is different or was not compared"
    )


def test_the_summary_counts_days_and_organization_days():
    tallies = [tally(17, equal=7, equal_zero=2, different=1, accepted=1), tally(18, equal=9, only_v1=1)]
    (found,) = to_wire_summary(tallies, {"us": judge("us", tallies, now=NOW, needed_days=14)})
    assert (found["days"], found["days_equal"]) == (2, 1)
    assert (found["organization_days"], found["organization_days_agreeing"], found["share_agreeing"]) == (
        20,
        18,
        "0.900000",
    )
    assert found["states"] == {"equal": 16, "equal_zero": 2, "different": 1, "only_v1": 1, "only_v2": 0}


@pytest.mark.parametrize(("part", "whole", "shown"), [(0, 0, "0.000000"), (5, 5, "1.000000"), (2, 3, "0.666666")])
def test_a_share_is_exact_and_rounded_down(part, whole, shown):
    assert share(part, whole) == shown
    assert share(10**7 - 1, 10**7) == "0.999999"


@pytest.mark.parametrize(
    ("text", "shadowed", "counting"),
    [
        ("", [], [("us", "v1"), ("us", "v2")]),
        ("v2", [("us", "v2"), ("eu", "v2")], [("us", "v1")]),
        ("us=v2, eu=v1", [("us", "v2"), ("eu", "v1")], [("us", "v1"), ("eu", "v2"), ("ap", "v1"), ("ap", "v2")]),
    ],
)
def test_shadows_are_named_for_all_sources_or_for_some(text, shadowed, counting):
    shadows = ShadowedGenerations.parse(text)
    assert all(shadows.holds(source, Generation(generation)) for source, generation in shadowed)
    assert not any(shadows.holds(source, Generation(generation)) for source, generation in counting)


@pytest.mark.parametrize("text", ["v3", "us", "us=", "=v1", "us=v1=v2", "u s=v1", "v1,v2", "us=v1,us=v2", "v1,us=v2"])
def test_shadows_that_make_no_sense_or_leave_nothing_that_counts_are_refused(text):
    with pytest.raises(InvalidShadows):
        ShadowedGenerations.parse(text)
