"""``GET /api/billing`` shows the usage that Kafka had confirmed when it was asked, within a bounded time (D16)."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from quill_contracts import topics
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import MeterUsage, PeriodUsage, PeriodUsageSnapshot
from quill_runtime import read_up_to_now

pytestmark = pytest.mark.integration


class EndRequests:
    """Requests for end offsets; ``delay`` holds them up, as a broker does that has stopped."""

    def __init__(self) -> None:
        self.count = 0
        self.delay = 0.0


@pytest.fixture
def end_requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[EndRequests]:
    found = EndRequests()
    ask = AIOKafkaConsumer.end_offsets

    async def counted(consumer: AIOKafkaConsumer, partitions: Any) -> Any:
        found.count += 1
        await asyncio.sleep(found.delay)
        return await ask(consumer, partitions)

    monkeypatch.setattr(AIOKafkaConsumer, "end_offsets", counted)
    return found


async def events_shown(running: Any) -> int:
    answer = await running.http.get("/api/billing", headers=running.signed())
    assert answer.status_code == 200, answer.text
    return answer.json()["customer"]["usage_summary"]["events"]["usage"]


async def publish_events(running: Any, snapshot: CustomerSnapshot, events: int) -> None:
    usage = PeriodUsage(
        period_start=snapshot.period.start,
        period_end=snapshot.period.end,
        as_of=datetime.now(UTC),
        meters={"events": MeterUsage(complete=events, partial=0, maximum=events)},
    )
    org = running.organization_id
    message = PeriodUsageSnapshot(organization_id=org, revision=events, periods=[usage])
    await running.publish(topics.PERIOD_USAGE.name, org, message)


async def registered(running: Any) -> CustomerSnapshot:
    await events_shown(running)
    (value,) = await running.published(topics.CUSTOMERS.name, running.organization_id, 1)
    return CustomerSnapshot.from_bytes(value)


async def test_an_answer_is_never_older_than_what_kafka_confirmed_before_it(
    run_service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D16: the answer was older than the one to the report before it in 20 of 20 cases.

    The bound is lifted, so that a busy machine does not end the wait: what is tested is what is waited for.
    """
    monkeypatch.setattr(read_up_to_now, "WAIT_SECONDS", 30.0)
    async with run_service() as running:
        snapshot = await registered(running)
        for events in range(1, 31):
            await publish_events(running, snapshot, events)
            assert await events_shown(running) == events


async def test_answers_at_the_same_time_share_their_question(
    run_service: Any, end_requests: EndRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D16: one request for all GETs in flight."""
    monkeypatch.setattr(read_up_to_now, "WAIT_SECONDS", 30.0)
    async with run_service() as running:
        snapshot = await registered(running)
        await publish_events(running, snapshot, 7)
        before = end_requests.count
        shown = await asyncio.gather(*(events_shown(running) for _ in range(200)))
        assert shown == [7] * 200
        assert end_requests.count - before <= 20


async def test_an_answer_waits_a_quarter_of_a_second_for_a_silent_broker(
    run_service: Any, end_requests: EndRequests
) -> None:
    """D16: without Kafka the answer is what is there."""
    async with run_service() as running:
        await registered(running)
        end_requests.delay = 60.0
        for _ in range(3):
            began = time.monotonic()
            assert await events_shown(running) == 0
            assert 0.2 < time.monotonic() - began < 1.0
