"""PostHog's usage query: what is read, what is refused by name, and the answer's shape (wire contract 1.3)."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.usage_series import SeriesPoint
from quill_usage_ingest.domain.usage_types import COUNTER_BY_USAGE_TYPE
from quill_usage_ingest.wire.usage_query import (
    InvalidUsageQuery,
    UsageResult,
    customer_number,
    from_wire_usage_query,
    to_wire_usage_answer,
)

GOOD = {"start_date": "2026-10-01", "end_date": "2026-10-02"}
DAY = datetime(2026, 10, 1, tzinfo=UTC)
POINTS = [SeriesPoint(DAY, datetime(2026, 10, 2, tzinfo=UTC), 5, False)]


def test_lists_come_as_json_texts_or_as_themselves():
    as_texts = {"usage_types": '["event_count_in_period"]', "team_ids": "[1, 2]", "breakdowns": '["type","team"]'}
    as_lists = {
        "usage_types": ["event_count_in_period"],
        "team_ids": [1, "2"],
        "breakdowns": ["type", "team"],
    }
    one, other = (from_wire_usage_query({**GOOD, **lists}) for lists in (as_texts, as_lists))
    assert one == other
    assert one.team_ids == frozenset({"1", "2"})
    assert (one.span.end - one.span.start).days == 2


def test_what_is_not_given_means_everything_and_what_is_not_known_is_let_be():
    older = {"teams_map": '{"1": "Web"}', "organization_id": "acme", "top_projects": "5"}
    query = from_wire_usage_query({**GOOD, **older, "usage_types": "[]", "team_ids": "[]", "breakdowns": "[]"})
    assert query.usage_types == tuple(COUNTER_BY_USAGE_TYPE)
    assert (query.team_ids, query.breakdowns, query.organization_id) == (None, (), "acme")
    assert query.span.interval == "day"


@pytest.mark.parametrize(
    ("wrong", "code", "attribute"),
    [
        ({"start_date": None}, "required", "start_date"),
        ({"end_date": ""}, "required", "end_date"),
        ({"start_date": "yesterday"}, "invalid_input", "start_date"),
        ({"start_date": 5}, "invalid_input", "start_date"),
        ({"end_date": "2026-09-30"}, "invalid_input", "end_date"),
        ({"end_date": "2027-10-02"}, "usage_date_range_too_long", "end_date"),
        ({"interval": "hour"}, "invalid_choice", "interval"),
        ({"interval": ["day"]}, "invalid_choice", "interval"),
        ({"usage_types": '["teleports"]'}, "invalid_choice", "usage_types"),
        ({"usage_types": "events"}, "invalid_input", "usage_types"),
        ({"usage_types": [1]}, "invalid_input", "usage_types"),
        ({"breakdowns": '["team"]'}, "invalid_choice", "breakdowns"),
        ({"breakdowns": '["team", "type"]'}, "invalid_choice", "breakdowns"),
        ({"breakdowns": "{}"}, "invalid_input", "breakdowns"),
        ({"team_ids": "[true]"}, "invalid_input", "team_ids"),
        ({"team_ids": "[" * 5_000}, "invalid_input", "team_ids"),
        ({"page_size": "0"}, "invalid_input", "page_size"),
        ({"page_size": True}, "invalid_input", "page_size"),
        ({"page_size": "9" * 40}, "invalid_input", "page_size"),
        ({"after": "nonsense"}, "invalid_input", "after"),
        ({"after": "WzEsMl0="}, "invalid_input", "after"),
        ({"organization_id": 5}, "invalid_input", "organization_id"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(wrong, code, attribute):
    with pytest.raises(InvalidUsageQuery) as refused:
        from_wire_usage_query({**GOOD, **wrong})
    assert (refused.value.code, refused.value.attribute) == (code, attribute)


def test_a_year_may_be_asked_for_also_a_leap_year():
    assert from_wire_usage_query({"start_date": "2024-01-01", "end_date": "2024-12-31"}).span.start.year == 2024


@given(st.integers(1, 7), st.integers(0, 20))
def test_pages_put_together_are_the_whole_answer(page_size, teams):
    asked = {**GOOD, "usage_types": ["event_count_in_period", "rows_synced_in_period"], "breakdowns": ["type", "team"]}
    results = [
        UsageResult((position, str(team)), name, str(team), POINTS)
        for position, name in enumerate(asked["usage_types"])
        for team in range(teams)
    ]
    whole = to_wire_usage_answer(from_wire_usage_query(asked), customer_id="c", results=results, team_ids=["10", "9"])
    collected, after = [], None
    while True:
        query = from_wire_usage_query({**asked, "page_size": str(page_size), "after": after})
        page = to_wire_usage_answer(query, customer_id="c", results=results[::-1], team_ids=["10", "9"])
        assert page["total_count"] == whole["total_count"] == 2 * teams
        collected += page["results"]
        after = page["next"]
        if after is None:
            break
        assert len(page["results"]) == page_size
    assert collected == whole["results"]
    assert whole["team_id_options"] == [9, 10]


def test_a_cursor_belongs_to_its_query():
    asked = {**GOOD, "breakdowns": ["type"], "page_size": 1}
    query = from_wire_usage_query(asked)
    results = [UsageResult((n, ""), name, None, POINTS) for n, name in enumerate(query.usage_types)]
    after = to_wire_usage_answer(query, customer_id="c", results=results, team_ids=[])["next"]
    with pytest.raises(InvalidUsageQuery) as refused:
        from_wire_usage_query({**asked, "interval": "week", "after": after})
    assert refused.value.attribute == "after"


@pytest.mark.parametrize(
    ("breakdowns", "usage_type", "team_id", "shown"),
    [
        ([], None, None, ("Total", None, None)),
        (["type"], "rows_synced_in_period", None, ("rows_synced_in_period", "type", "rows_synced_in_period")),
        (
            ["type", "team"],
            "rows_synced_in_period",
            "17",
            ("17::rows_synced_in_period", "multiple", ["rows_synced_in_period", "17"]),
        ),
    ],
)
def test_the_answer_has_posthogs_shape(breakdowns, usage_type, team_id, shown):
    query = from_wire_usage_query({**GOOD, "breakdowns": breakdowns})
    result = UsageResult((0, team_id or ""), usage_type, team_id, POINTS)
    answer = to_wire_usage_answer(query, customer_id="17", results=[result], team_ids=["17", "web"])
    (line,) = answer.pop("results")
    assert answer == {
        "status": "ok",
        "type": "timeseries",
        "customer_id": 17,
        "team_id_options": [17, "web"],
        "next": None,
        "total_count": 1,
    }
    assert (line["label"], line["breakdown_type"], line["breakdown_value"]) == shown
    assert (line["id"], line["data"], line["dates"]) == (0, [5], ["2026-10-01"])


@given(st.text(max_size=40))
def test_a_customer_has_always_the_same_number_that_javascript_can_hold(customer_id):
    assert 0 <= customer_number(customer_id) < 2**53
    assert customer_number(customer_id) == customer_number(customer_id)
