"""Bringing snapshots to Kafka: nothing is kept back that was not confirmed, nothing confirmed is said twice."""

from datetime import UTC, datetime

import msgspec
import pytest
from quill_runtime.publisher import PublishFailed
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports

pytestmark = pytest.mark.integration
NOW = datetime(2026, 11, 5, tzinfo=UTC)


class Log:
    """A log that can be away."""

    def __init__(self):
        self.revisions, self.is_away = [], False

    async def publish_all(self, messages):
        if self.is_away:
            raise PublishFailed("away")
        self.revisions += [msgspec.json.decode(message.value)["revision"] for message in messages]


async def test_a_revision_is_sent_until_it_is_confirmed_and_then_not_again(database, arrived, organization):
    log, slots = Log(), CounterSlots()

    async def recorded(**given):
        async with database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            await record_reports([arrived(**given)], tx=usage, now=NOW, is_publication_due=False)

    async with database.begin() as transaction:
        await project_customers([organization()], tx=PostgresUsage(transaction, slots))
    publication = SnapshotPublication(database=database, publisher=log, slots=slots)
    await recorded(day=1, events=10)
    log.is_away = True
    with pytest.raises(PublishFailed):
        await publication.publish_current({"acme"})
    log.is_away = False
    assert [await publication.publish_current({"acme"}) for _ in range(3)] == [1, 0, 0]
    await recorded(day=1, events=10)
    assert await publication.publish_current({"acme"}) == 0
    await recorded(day=2, events=5)
    assert await publication.publish_current({"acme"}) == 1
    # Another process cannot know what became of it.
    assert await SnapshotPublication(database=database, publisher=log, slots=slots).publish_current({"acme"}) == 1
    assert log.revisions == [1, 2, 2]
