"""Metrics noted in bulk are what Prometheus would have said one by one."""

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Histogram
from quill_runtime import health, tallies
from quill_runtime.health import Health
from quill_runtime.tallies import OBSERVATIONS_AT_ONCE, CountTally, ObservationTally


@pytest.fixture
def registry(monkeypatch) -> CollectorRegistry:
    monkeypatch.setattr(tallies, "_tallies", [])
    return CollectorRegistry()


def test_observations_come_in_bulk_and_none_is_lost(registry):
    histogram = Histogram("seconds", "Seconds", registry=registry, buckets=(1, 2))
    tally = ObservationTally(histogram)
    for _ in range(OBSERVATIONS_AT_ONCE - 1):
        tally.add(0.5)
    assert registry.get_sample_value("seconds_count") == 0
    tally.add(1.5)
    assert registry.get_sample_value("seconds_count") == OBSERVATIONS_AT_ONCE
    assert registry.get_sample_value("seconds_bucket", {"le": "1.0"}) == OBSERVATIONS_AT_ONCE - 1
    tally.add(5)
    tallies.hand_over_all()
    tallies.hand_over_all()
    assert registry.get_sample_value("seconds_count") == OBSERVATIONS_AT_ONCE + 1
    assert registry.get_sample_value("seconds_sum") == (OBSERVATIONS_AT_ONCE - 1) * 0.5 + 1.5 + 5


async def test_a_scrape_sees_what_was_counted_a_moment_ago(registry):
    counter = Counter("quill_test_things", "Things")
    tally = CountTally(counter)
    app = FastAPI()
    app.include_router(health.router(Health()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        tally.add(2)
        tally.add(3)
        assert "quill_test_things_total 5.0" in (await client.get("/metrics")).text
        assert "quill_test_things_total 5.0" in (await client.get("/metrics")).text
