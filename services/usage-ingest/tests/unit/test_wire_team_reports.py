"""Teams of a report: kept, or refused by the name of the counter at fault."""

import orjson
import pytest
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX
from quill_usage_ingest.wire.team_reports import InvalidTeams, team_counters, teams_of_native_report

REPORT = {
    "report_id": "r",
    "source": "us",
    "organization_id": "acme",
    "window_start": "2026-10-01T00:00:00Z",
    "window_end": "2026-10-02T00:00:00Z",
    "completeness": "complete",
    "as_of": "2026-10-02T01:00:00Z",
    "counters": {"event_count_in_period": 10},
}


def test_a_native_report_gives_every_counter_of_its_teams():
    teams = {"1": {"event_count_in_period": 4, "dashboard_count": 2}, "2": {}}
    claim = teams_of_native_report(orjson.dumps({**REPORT, "teams": teams}))
    assert claim.teams == teams
    assert claim.report.report_id == "r"
    assert teams_of_native_report(orjson.dumps(REPORT)).teams == {}


@pytest.mark.parametrize("wrong", [-1, 1.5, "7", None, True, 2**70, QUANTITY_MAX + 1, [1]])
def test_a_malformed_team_counter_is_named(wrong: object):
    body = msg = orjson.dumps({**REPORT, "teams": {}})
    text = repr(wrong) if isinstance(wrong, int) and not isinstance(wrong, bool) else orjson.dumps(wrong).decode()
    body = msg.replace(b'"teams":{}', b'"teams":{"17":{"event_count_in_period":%s}}' % text.encode())
    with pytest.raises(InvalidTeams) as refused:
        teams_of_native_report(body)
    assert refused.value.attribute == "teams__17__event_count_in_period"


@pytest.mark.parametrize(
    ("teams", "attribute"),
    [
        ([], "teams"),
        ({"17": 3}, "teams__17"),
        ({"": {}}, "teams__"),
        ({"a\x00b": {}}, "teams__a\\0b"),
        ({"1": {"x" * 201: 1}}, "teams__1__" + "x" * 200),
        ({"1": {f"c{i}": 1 for i in range(1_001)}}, "teams__1"),
    ],
)
def test_teams_of_another_shape_are_refused_by_name(teams: object, attribute: str):
    with pytest.raises(InvalidTeams) as refused:
        team_counters(teams, takes=None)
    assert refused.value.attribute == attribute


def test_posthogs_report_gives_counted_things_and_what_the_catalog_names():
    given = {"event_count_in_period": 4, "dashboard_count": 2, "api_queries_bytes_read": 3, "storage_mib": 1.5}
    assert team_counters({"1": given}, takes={"api_queries_bytes_read", "storage_mib"}) == {
        "1": {"event_count_in_period": 4, "api_queries_bytes_read": 3}
    }
