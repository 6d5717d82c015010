"""Which sources a closing waits for, and by whose word it goes on without one (L13, L20)."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_invoicing.domain.completeness_gate import NOBODY_EXPECTED, ExpectedSources, SourceStanding, Waiver
from quill_pricing.period import BillingPeriod

END = datetime(2026, 11, 1, tzinfo=UTC)
OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), END)
BEFORE, AFTER = datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)


def source(name: str, through: datetime | None = None, *, expected: bool = True, waivers=()) -> SourceStanding:
    return SourceStanding(name, 1, expected, "reporting", complete_through=through, waivers=tuple(waivers))


def waiver(
    name: str, through: datetime = END, *, waiver_id: str = "w", at: datetime = AFTER, organization=None
) -> Waiver:
    return Waiver(name, waiver_id, through, "ada@b.example", "nothing more will come", at, organization)


def judged(*sources: SourceStanding, names=("us",), license_source=None):
    expected = ExpectedSources({each.source: each for each in sources}, lambda _license_id: license_source)
    judgement = expected.judge("org-1", OCTOBER, names=names, license_id="lic-1")
    return judgement.missing, [used.waiver_id for used in judgement.waived]


@pytest.mark.parametrize(
    ("sources", "missing", "waived"),
    [
        ([], (), []),
        ([source("us", expected=False)], (), []),
        ([source("us", END)], (), []),
        ([source("us", AFTER)], (), []),
        ([source("us", BEFORE)], ("us",), []),
        ([source("us")], ("us",), []),
        ([source("us", BEFORE), source("eu", BEFORE)], ("us",), []),
        ([source("us", BEFORE, waivers=[waiver("us")])], (), ["w"]),
        ([source("us", BEFORE, waivers=[waiver("us", BEFORE)])], ("us",), []),
        ([source("us", BEFORE, waivers=[waiver("us", organization="org-1")])], (), ["w"]),
        ([source("us", BEFORE, waivers=[waiver("us", organization="org-2")])], ("us",), []),
        ([source("us", END, waivers=[waiver("us")])], (), []),
        ([source("us", waivers=[waiver("us", waiver_id="2"), waiver("us", at=END, waiver_id="1")])], (), ["1"]),
    ],
)
def test_the_gate_at_the_end_of_october(sources, missing, waived):
    assert judged(*sources) == (missing, waived)


def test_the_source_of_the_license_is_waited_for_even_if_it_has_never_reported():
    assert judged(source("inst"), names=(), license_source="inst") == (("inst",), [])
    assert judged(source("inst"), names=(), license_source=None) == ((), [])


def test_without_any_word_of_an_operator_nothing_waits():
    assert NOBODY_EXPECTED.judge("org-1", OCTOBER, names=["us"], license_id=None).missing == ()
    assert not NOBODY_EXPECTED.is_any_expected


INSTANTS = st.none() | st.sampled_from([BEFORE, END, AFTER])


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), INSTANTS, st.booleans())),
    st.sets(st.sampled_from("abcd")),
)
def test_each_source_is_complete_waived_or_missing_and_never_two_of_them(known, names):
    sources = {
        name: source(name, through, expected=expected, waivers=[waiver(name)] if has_waiver else [])
        for name, expected, through, has_waiver in known
    }
    judgement = ExpectedSources(sources).judge("org-1", OCTOBER, names=names, license_id=None)
    waited = {name for name in names if name in sources and sources[name].is_expected}
    complete = {name for name in waited if sources[name].is_complete(OCTOBER)}
    waived = {used.source for used in judgement.waived}
    assert complete | waived | set(judgement.missing) == waited
    assert len(complete) + len(waived) + len(judgement.missing) == len(waited)
