"""While a meter is counted anew, what was published of it stays published: no reader sees it unused (L7, L9)."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from quill_contracts.usage import PeriodUsageSnapshot
from quill_runtime.consumption import Received, Record
from quill_runtime.database import Database
from quill_runtime.publisher import Outgoing
from quill_usage_ingest.consumers import catalog
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.ports import Arrival, ArrivedEvent
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.event_recounts import EventRecounts
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.meter_recounts import CounterRecounts, PostgresMeterRecounts
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_events import record_events
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.recount_counters import recount_counters
from quill_usage_ingest.usecases.recount_events import recount_some
from quill_usage_ingest.wire.meter_events import from_wire_event
from sqlalchemy import text

pytestmark = pytest.mark.integration

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
TENTH, TWENTIETH = datetime(2026, 10, 10, tzinfo=UTC), datetime(2026, 10, 20, tzinfo=UTC)
NOW = datetime(2026, 10, 30, tzinfo=UTC)
TOTAL = EventMeter("calls", "call", Aggregation.SUM, "n")
COUNT = EventMeter("calls", "call", Aggregation.COUNT)
FROM_TENTH = EventMeter("calls", "call", Aggregation.SUM, "n", counts_from=TENTH)
OTHERS = EventMeter("calls", "request", Aggregation.COUNT)


def call(event_id: str, organization_id: str = "acme", *, day: int, n: int = 1) -> ArrivedEvent:
    at = (OCTOBER + timedelta(days=day - 1)).isoformat()
    envelope = {"specversion": "1.0", "id": event_id, "source": "gateway", "type": "call", "subject": organization_id}
    body = orjson.dumps({**envelope, "time": at, "data": {"n": n}})
    return ArrivedEvent(from_wire_event(body), Arrival("http", body))


class Service:
    """The parts that take part, on one database; ``published`` is what a reader of the compacted topic knows."""

    def __init__(self, database: Database) -> None:
        self.database, self.slots = database, CounterSlots()
        self.published: dict[str, PeriodUsageSnapshot] = {}
        self._publication = SnapshotPublication(database=database, publisher=self, slots=self.slots)  # type: ignore[arg-type]
        self._revision = 0

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            snapshot = PeriodUsageSnapshot.from_bytes(message.value or b"")
            self.published[snapshot.organization_id] = snapshot

    async def product(self, *, counter: str | None = None, counts_from: Any = None, events: Any = None) -> None:
        """Define the one meter, ``calls``, by the message that the service receives."""
        self._revision += 1
        fed = MeteredProduct("calls", self._revision, "calls", counter, counts_from, events)
        received: Any = [Received(fed, Record("t", 0, self._revision, None, b"", {}))]
        async with self.database.begin() as transaction:
            await catalog("g", slots=self.slots).apply(transaction, received, NOW)

    async def known(self, *organizations: Any) -> None:
        async with self.database.begin() as transaction:
            await project_customers(organizations, tx=PostgresUsage(transaction, self.slots))

    async def events(self, *arrived: ArrivedEvent) -> None:
        async with self.database.begin() as transaction:
            tx, events = PostgresUsage(transaction, self.slots), PostgresEvents(transaction)
            await record_events(arrived, tx=tx, events=events, now=NOW, is_publication_due=True)

    async def reports(self, *arrived: Any) -> None:
        async with self.database.begin() as transaction:
            tx = PostgresUsage(transaction, self.slots)
            await record_reports(arrived, tx=tx, now=NOW, is_publication_due=True)

    async def recount_events(self, *, limit: int) -> None:
        async with self.database.begin() as transaction:
            tx, events = PostgresUsage(transaction, self.slots), PostgresEvents(transaction)
            assert await recount_some(tx=tx, events=events, limit=limit)

    async def recount_counters(self, *, limit: int) -> None:
        async with self.database.begin() as transaction:
            tx, recounts = PostgresUsage(transaction, self.slots), PostgresMeterRecounts(transaction)
            assert await recount_counters(tx=tx, recounts=recounts, limit=limit) is not None

    async def recount_all(self) -> None:
        await CounterRecounts(self.database, self.slots).run(NOW)
        await EventRecounts(self.database, self.slots).run(NOW)

    async def used(self, organization_id: str = "acme") -> tuple[int, int, int] | None:
        """The meter's complete, partial and maximum usage in the newest period, as published once nothing is due."""
        await self._publication.publish_due()
        meters = self.published[organization_id].periods[-1].meters
        return (
            (meters["calls"].complete, meters["calls"].partial, meters["calls"].maximum) if "calls" in meters else None
        )

    async def stand_ins(self) -> int:
        async with self.database.begin() as transaction:
            return await transaction.connection.scalar(text("select count(*) from usage_stand_ins"))


@pytest.fixture
async def service(database: Database, organization: Any) -> Service:
    service = Service(database)
    await service.known(*(organization(name) for name in ("acme", "globex", "initech")))
    return service


async def test_an_event_meter_defined_anew_shows_its_last_number_until_the_new_one_is_whole(service):
    await service.product(events=TOTAL)
    await service.events(call("1", day=2, n=50), call("2", day=11, n=7), call("3", "globex", day=3, n=9))
    assert (await service.used(), await service.used("globex")) == ((57, 0, 57), (9, 0, 9))
    await service.product(events=COUNT)
    assert (await service.used(), await service.used("globex")) == ((57, 0, 57), (9, 0, 9))
    # Half counted, and with an event that came meanwhile, it is still the number of before.
    await service.recount_events(limit=1)
    await service.events(call("4", day=1), call("5", day=20))
    assert await service.used() == (57, 0, 57)
    await service.recount_all()
    assert (await service.used(), await service.used("globex")) == ((4, 0, 4), (1, 0, 1))
    assert await service.stand_ins() == 0


async def test_a_third_definition_before_the_second_was_counted_leaves_the_first_one_standing(service):
    await service.product(events=TOTAL)
    await service.events(call("1", day=2, n=50), call("2", day=11, n=7), call("3", "globex", day=3, n=9))
    await service.product(events=COUNT)
    await service.recount_events(limit=100)
    assert (await service.used(), await service.used("globex")) == ((2, 0, 2), (9, 0, 9))
    await service.product(events=FROM_TENTH)
    # For acme the second definition was whole; for globex it never was.
    assert (await service.used(), await service.used("globex")) == ((2, 0, 2), (9, 0, 9))
    await service.recount_all()
    assert (await service.used(), await service.used("globex")) == ((7, 0, 7), None)


async def test_a_meter_fed_by_events_that_never_came_is_unused_and_that_is_a_fact(service):
    await service.product(events=TOTAL)
    await service.events(call("1", day=2, n=50))
    await service.product(events=OTHERS)
    assert await service.used() is None


async def test_a_date_named_later_leaves_the_whole_number_standing_organization_by_organization(service, arrived):
    await service.product(counter="events")
    for name in ("acme", "globex", "initech"):
        await service.reports(arrived(name, day=9, events=100), arrived(name, day=10, events=20, complete=False))
    assert await service.used() == (100, 20, 120)
    await service.product(counter="events", counts_from=TENTH)
    assert await service.used() == (100, 20, 120)
    # Another date before the first one was counted: a number that nobody has yet cannot stand in.
    await service.product(counter="events", counts_from=TWENTIETH)
    await service.product(counter="events", counts_from=TENTH)
    await service.reports(arrived("globex", day=10, at=1, events=15, complete=False))
    assert await service.used("globex") == (100, 20, 120)
    await service.recount_counters(limit=1)
    assert (await service.used(), await service.used("globex")) == ((0, 20, 20), (100, 20, 120))
    await service.recount_all()
    assert (await service.used("globex"), await service.used("initech")) == ((0, 15, 15), (0, 20, 20))
    assert await service.stand_ins() == 0


async def test_another_date_leaves_the_number_from_the_first_one_standing(service, arrived):
    await service.product(counter="events", counts_from=TENTH)
    await service.reports(arrived(day=9, events=100), arrived(day=10, events=20), arrived(day=20, events=3))
    assert await service.used() == (23, 0, 23)
    await service.product(counter="events", counts_from=TWENTIETH)
    assert await service.used() == (23, 0, 23)
    await service.recount_all()
    assert await service.used() == (3, 0, 3)


async def test_a_meter_may_change_from_reports_to_events_and_back(service, arrived):
    await service.product(counter="events")
    await service.reports(arrived(day=9, events=100), arrived("globex", day=9, events=1))
    await service.events(call("1", day=11, n=7))
    assert (await service.used(), await service.used("globex")) == ((100, 0, 100), (1, 0, 1))
    await service.product(events=TOTAL)
    # globex never sent such an event, so nothing is left to count.
    assert (await service.used(), await service.used("globex")) == ((100, 0, 100), None)
    await service.recount_all()
    assert await service.used() == (7, 0, 7)
    await service.product(counter="other", counts_from=TENTH)
    assert await service.used() == (7, 0, 7)
    # Nothing was ever reported for the counter: the recount moves no sum, and says so all the same.
    await service.recount_all()
    assert await service.used() is None
    await service.product(counter="events")
    assert await service.used() == (100, 0, 100)


async def test_a_meter_that_the_catalog_drops_is_gone_at_once(service):
    await service.product(events=TOTAL)
    await service.events(call("1", day=2, n=50))
    await service.product(events=COUNT)
    assert await service.used() == (50, 0, 50)
    await service.product()
    assert await service.used() is None
