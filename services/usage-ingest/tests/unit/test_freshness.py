"""For any total: from how many of the expected sources, complete through when; and whether silence was zero (L5)."""

from datetime import UTC, datetime

import pytest
from quill_pricing.period import BillingPeriod
from quill_usage_ingest.domain.complete_through import NOTHING_TOLD, CompleteThrough
from quill_usage_ingest.domain.freshness import ParkedGroup, freshness_of
from quill_usage_ingest.domain.usage_source import UsageSource
from quill_usage_ingest.wire.freshness import to_wire_freshness

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def on(day: int, month: int = 10) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


def source(name: str, through: datetime | None = None, *, expected: bool = True, **known) -> UsageSource:
    complete = NOTHING_TOLD if through is None else CompleteThrough(through)
    return UsageSource(source=name, is_expected=expected, complete=complete, **known)


def fresh(*sources: UsageSource, names: tuple[str, ...] = (), parked: tuple[ParkedGroup, ...] = ()):
    known = {each.source: each for each in sources}
    return freshness_of(OCTOBER, {*known, *names}, known=known, parked=parked)


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ([], "No source is expected, so how complete this is cannot be said."),
        ([source("us", on(3), expected=False)], "No source is expected, so how complete this is cannot be said."),
        ([source("us", on(3))], "From 1 of 1 expected source, complete through 2026-10-03T00:00Z."),
        (
            [source("us", on(3)), source("eu", on(5)), source("inst", expected=True)],
            "From 2 of 3 expected sources, complete through 2026-10-03T00:00Z; nothing said of this period: inst.",
        ),
        (
            [source("us", on(3)), source("eu", on(1))],
            "From 1 of 2 expected sources, complete through 2026-10-03T00:00Z; nothing said of this period: eu.",
        ),
        (
            [source("us", on(30, 9))],
            "From 0 of 1 expected source: none has said that it is complete in this period.",
        ),
        (
            [source("us", on(9, 11)), source("eu", on(2, 11))],
            "From 2 of 2 expected sources, complete through 2026-11-01T00:00Z.",
        ),
        (
            [source("us", on(3), silent_since=on(4))],
            "From 1 of 1 expected source, complete through 2026-10-03T00:00Z; us is silent since 2026-10-04T00:00Z.",
        ),
    ],
)
def test_a_total_says_what_it_is_made_of(sources, sentence):
    assert fresh(*sources).sentence == sentence


def test_parked_reports_are_a_known_hole_of_their_source_and_period():
    freshness = fresh(
        source("us", on(3)),
        source("eu", on(3)),
        parked=(
            ParkedGroup("us", on(2), 2),
            ParkedGroup("us", on(2, 11), 4),
            ParkedGroup("eu", None, 1),
            ParkedGroup(None, on(5), 1),
        ),
    )
    assert {each.source.source: each.parked for each in freshness.sources} == {"eu": 1, "us": 2}
    assert freshness.parked == 4
    assert freshness.sentence == "From 2 of 2 expected sources, complete through 2026-10-03T00:00Z; 4 reports parked."


@pytest.mark.parametrize(
    ("sources", "parked", "known_through"),
    [
        ([source("us", on(4))], (), 4),
        ([source("us", on(4)), source("eu", on(3))], (), 3),
        ([source("us")], (), None),
        ([source("us", on(4), expected=False)], (), None),
        ([source("us", on(4)), source("eu", on(1))], (), None),
        ([source("us", on(4))], (ParkedGroup("us", on(2), 1), ParkedGroup("us", on(3), 1)), 2),
        ([source("us", on(4))], (ParkedGroup("us", on(9), 1),), 4),
        ([source("us", on(4))], (ParkedGroup("us", on(2, 11), 1),), 4),
        ([source("us", on(4))], (ParkedGroup(None, on(1), 1),), None),
        ([source("us", on(4))], (ParkedGroup("us", None, 1),), None),
    ],
)
def test_a_silent_day_was_zero_only_where_all_told_and_nothing_is_parked(sources, parked, known_through):
    """Whether a silent day means zero or lost can be decided (wire contract 7, item 10)."""
    assert fresh(*sources, parked=parked).known_through == (None if known_through is None else on(known_through))


def test_the_answer_names_each_source_and_whether_it_is_expected():
    answer = to_wire_freshness(fresh(source("us", on(3), heard_at=on(4)), names=("new",)))
    assert (answer["expected"], answer["complete"], answer["complete_through"]) == (1, 1, on(3).isoformat())
    assert answer["sources"] == [
        {
            "source": "new",
            "is_expected": False,
            "complete_through": None,
            "heard_at": None,
            "state": "reporting",
            "parked": 0,
        },
        {
            "source": "us",
            "is_expected": True,
            "complete_through": on(3).isoformat(),
            "heard_at": on(4).isoformat(),
            "state": "reporting",
            "parked": 0,
        },
    ]
