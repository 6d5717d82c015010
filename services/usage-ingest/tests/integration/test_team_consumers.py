"""The teams' consumer groups: malformed teams are theirs to park, everything else is left to the reports' group."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from quill_contracts.intakes import DailyReport
from quill_runtime.consumption import Received, Record, Rejected
from quill_runtime.database import Database
from quill_usage_ingest.consumers import decode_usage_report
from quill_usage_ingest.consumers.teams import daily_report_teams, decode_report_teams, report_teams
from quill_usage_ingest.domain.usage_report import DayKey
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.team_publication import TeamUsagePublication
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.wire.daily_reports import from_wire_daily_report, to_usage_report

DAY = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 10, 3, tzinfo=UTC)


def record(**changed: object) -> Record:
    report = {
        "report_id": "r",
        "source": "us",
        "organization_id": "acme",
        "window_start": DAY,
        "window_end": DAY + timedelta(days=1),
        "completeness": "complete",
        "as_of": DAY + timedelta(days=1),
        "counters": {"event_count_in_period": 10},
        **changed,
    }
    return Record("usage.reports.v1", 0, 1, b"acme", orjson.dumps(report), {})


def test_malformed_teams_are_parked_by_name_while_the_organizations_counters_are_entered():
    wrong = record(teams={"17": {"event_count_in_period": -1}})
    with pytest.raises(Rejected) as parked:
        decode_report_teams(wrong)
    assert (parked.value.code, parked.value.attribute) == ("invalid_teams", "teams__17__event_count_in_period")
    assert decode_usage_report(wrong).counters == {"event_count_in_period": 10}


@pytest.mark.parametrize("wrong", [record(source=""), Record("usage.reports.v1", 0, 1, None, None, {})])
def test_a_report_that_is_wrong_itself_is_left_to_the_reports_group(wrong: Record):
    assert decode_report_teams(wrong) is None


def publication_of(database: Database, publisher: object = None) -> TeamUsagePublication:
    return TeamUsagePublication(database=database, publisher=publisher, slots=CounterSlots())


async def rows_of(database: Database, source: str):
    async with database.begin() as transaction:
        found = await PostgresTeams(transaction, CounterSlots()).team_rows_of_days({DayKey("acme", DAY, source)})
    return {key.team_id: {name: cell.quantity for name, cell in row.cells.items()} for key, row in found.items()}


@pytest.mark.integration
async def test_native_teams_are_entered_once_however_often_they_are_delivered(database: Database):
    consumption = report_teams("usage-ingest.teams", slots=CounterSlots(), publication=publication_of(database))
    delivered = record(teams={"17": {"event_count_in_period": 4}, "9": {"event_count_in_period": 6}})
    for _ in range(2):
        async with database.begin() as transaction:
            received = Received(consumption.decode(delivered), delivered)
            await consumption.apply(transaction, [received, received, Received(None, delivered)], NOW)
    assert await rows_of(database, "us") == {"17": {"event_count_in_period": 4}, "9": {"event_count_in_period": 6}}


@pytest.mark.integration
async def test_too_many_team_counters_reject_the_record(database: Database):
    consumption = report_teams("usage-ingest.teams", slots=CounterSlots(), publication=publication_of(database))
    delivered = record(teams={"17": {f"c{n}": 1 for n in range(600)}})
    with pytest.raises(Rejected) as parked:
        async with database.begin() as transaction:
            await consumption.apply(transaction, [Received(consumption.decode(delivered), delivered)], NOW)
    assert (parked.value.code, parked.value.attribute[:8]) == ("too_many_counters", "teams__c")


@pytest.mark.integration
async def test_teams_of_a_daily_report_reach_the_same_rows(database: Database):
    def read(daily, metered, now):
        found = from_wire_daily_report(daily.body.encode())
        report, _ = to_usage_report(found, source=daily.source, metered_counters=metered, now=now)
        return report, found.fields

    def carried(**fields: object) -> Record:
        body = orjson.dumps({"organization_id": "acme", "date": "2026-10-01", **fields}).decode()
        message = DailyReport(generation="v1", source="eu", as_of=DAY + timedelta(days=1), body=body)
        return Record("usage.daily-reports.v1", 0, 1, b"acme", message.to_bytes(), {})

    consumption = daily_report_teams(
        "usage-ingest.daily-teams", slots=CounterSlots(), read=read, publication=publication_of(database)
    )
    good = carried(teams={"17": {"event_count_in_period": 4, "dashboard_count": 3}})
    wrong = carried(date="someday")
    broken = Record("usage.daily-reports.v1", 0, 2, b"acme", b"{", {})
    received = [Received(consumption.decode(each), each) for each in (good, wrong, broken)]
    async with database.begin() as transaction:
        await consumption.apply(transaction, received, NOW)
    assert await rows_of(database, "eu") == {"17": {"event_count_in_period": 4}}
