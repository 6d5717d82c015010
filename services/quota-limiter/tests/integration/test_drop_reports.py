"""Drop reports in memory and in Postgres: an id counts once, also when many send it at once."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_quota_limiter.domain.drop_report import DropReport, DropTotals
from quill_quota_limiter.store.drop_reports import DropReports, MemoryDropReports

pytestmark = pytest.mark.integration

START = datetime(2026, 10, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
REPORT = DropReport("r1", "acme", "events", "us", START, START + timedelta(hours=1), allowed=7, dropped=3)


@pytest.fixture(params=["memory", "postgres"])
async def drops(request, database):
    return {"memory": MemoryDropReports(), "postgres": DropReports(database)}[request.param]


async def test_an_id_counts_once_and_windows_belong_to_the_period_they_start_in(drops):
    reports = [
        REPORT,
        REPORT,
        replace(REPORT, dropped=4),
        replace(REPORT, organization_id="beta"),
        replace(REPORT, report_id="r2", usage_key="recordings", allowed=2**50, dropped=2**50),
        replace(REPORT, report_id="r3", window_start=END - timedelta(hours=1), window_end=END),
        replace(REPORT, report_id="r4", window_start=END, window_end=END + timedelta(hours=1)),
        replace(REPORT, report_id="r5", window_start=START - timedelta(hours=1), window_end=START),
    ]
    verdicts = [await drops.keep(report, now=END) for report in reports]
    assert verdicts == ["new", "repeat", "conflict", "new", "new", "new", "new", "new"]
    assert await drops.totals("acme", start=START, end=END) == {
        "events": DropTotals(14, 6, 2),
        "recordings": DropTotals(2**50, 2**50, 1),
    }


async def test_of_many_that_send_one_id_at_once_one_counts(drops):
    verdicts = await asyncio.gather(*(drops.keep(REPORT, now=END) for _ in range(8)))
    assert sorted(verdicts) == ["new"] + ["repeat"] * 7
    assert await drops.totals("acme", start=START, end=END) == {"events": DropTotals(7, 3, 1)}
