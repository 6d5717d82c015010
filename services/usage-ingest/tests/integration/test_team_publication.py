"""Bringing what teams used to Kafka: in the order of revisions, through every crash, and nothing twice for nothing."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from quill_contracts import topics
from quill_contracts.usage import TeamUsageSnapshot
from quill_runtime.consumption import Received, Record
from quill_runtime.database import Database
from quill_runtime.publisher import Outgoing, PublishFailed
from quill_usage_ingest.consumers.teams import report_teams
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.team_cells import TeamsReport
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.team_publication import TeamUsagePublication
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.record_teams import record_teams

pytestmark = pytest.mark.integration

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 10, 20, tzinfo=UTC)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
EVENTS = "event_count_in_period"


class Log:
    """A log that can be away, or take a message and be gone before it says so."""

    def __init__(self) -> None:
        self.sent: list[TeamUsageSnapshot] = []
        self.keys: list[str] = []
        self.is_away = self.is_silent = False
        self.before_sending = asyncio.Event()
        self.before_sending.set()
        self.is_sending = asyncio.Event()

    async def publish_all(self, messages: list[Outgoing]) -> None:
        if not messages:
            return
        self.is_sending.set()
        await self.before_sending.wait()
        if self.is_away:
            raise PublishFailed("away")
        assert {message.topic for message in messages} == {"usage.team-usage.v1"}
        self.keys += [message.key for message in messages]
        self.sent += [TeamUsageSnapshot.from_bytes(message.value) for message in messages]
        if self.is_silent:
            raise PublishFailed("no answer")

    @property
    def told(self) -> list[tuple[str, int, int]]:
        """Team, revision and complete events of the newest period."""
        return [(each.team_id, each.revision, each.periods[0].meters["events"].complete) for each in self.sent]


@pytest.fixture
async def slots(database: Database, organization) -> CounterSlots:
    """A known customer and one meter."""
    slots = CounterSlots()
    async with database.begin() as transaction:
        usage = PostgresUsage(transaction, slots)
        await project_customers([organization()], tx=usage)
        await project_products([MeteredProduct("product_analytics", 1, "events", EVENTS)], tx=usage)
    return slots


def record(teams: dict[str, int], *, offset: int = 1, at: int = 0) -> Record:
    counters = {team_id: {EVENTS: events} for team_id, events in teams.items()}
    report = {
        "report_id": f"r{at}",
        "source": "us",
        "organization_id": "acme",
        "window_start": OCTOBER,
        "window_end": OCTOBER + timedelta(days=1),
        "completeness": "complete",
        "as_of": OCTOBER + timedelta(days=1, hours=at),
        "counters": {EVENTS: sum(teams.values())},
        "teams": counters,
    }
    return Record("usage.reports.v1", 0, offset, b"acme", orjson.dumps(report), {})


class Entering:
    """The teams' consumer without Kafka: commit and follow-up are two steps, and one may crash between them."""

    def __init__(self, database: Database, slots: CounterSlots, log: Log) -> None:
        self.database = database
        self.publication = TeamUsagePublication(database=database, publisher=log, slots=slots)
        self.consumption = report_teams("usage-ingest.teams", slots=slots, publication=self.publication)

    async def commit(self, delivered: Record) -> Any:
        async with self.database.begin() as transaction:
            received = Received(self.consumption.decode(delivered), delivered)
            return await self.consumption.apply(transaction, [received], NOW)

    async def settle(self, delivered: Record) -> None:
        follow_up = await self.commit(delivered)
        assert follow_up is not None
        await follow_up()


async def test_a_report_is_followed_by_its_teams_and_one_sent_again_by_nothing(database, slots):
    log = Log()
    entering = Entering(database, slots, log)
    await entering.settle(record({"1": 5, "2": 7}))
    assert log.told == [("1", 1, 5), ("2", 1, 7)]
    assert log.keys == ["acme/1", "acme/2"]
    await entering.settle(record({"1": 5, "2": 7}))
    assert await entering.publication.publish_due(NOW) == 0
    await entering.settle(record({"1": 6, "2": 7}, at=1))
    assert log.told[2:] == [("1", 2, 6)], "only the team that changed"


async def test_a_crash_between_commit_and_publishing_is_healed_by_redelivery(database, slots):
    log = Log()
    await Entering(database, slots, log).commit(record({"1": 5}))
    assert log.sent == []
    await Entering(database, slots, log).settle(record({"1": 5}))
    assert log.told == [("1", 1, 5)]


async def test_a_crash_between_commit_and_publishing_is_healed_by_the_job_alone(database, slots):
    log = Log()
    await Entering(database, slots, log).commit(record({"1": 5}))
    assert await Entering(database, slots, log).publication.publish_due(NOW) == 1
    assert log.told == [("1", 1, 5)]


async def test_what_was_sent_under_a_revision_never_becomes_something_else(database, slots):
    """Kafka took it and nobody heard: the same revision says the same again, and what is newer has a higher one."""
    log = Log()
    entering = Entering(database, slots, log)
    log.is_silent = True
    with pytest.raises(PublishFailed):
        await entering.settle(record({"1": 5}))
    log.is_silent = False
    await entering.settle(record({"1": 6}, at=1))
    assert log.told == [("1", 1, 5), ("1", 2, 6)]
    log.is_away = True
    with pytest.raises(PublishFailed):
        await entering.settle(record({"1": 7}, at=2))
    log.is_away = False
    await entering.publication.publish_due(NOW)
    assert log.told[2:] == [("1", 3, 7)]


async def test_while_a_snapshot_is_on_its_way_writers_do_not_wait_and_the_newer_follows_the_older(database, slots):
    log = Log()
    entering = Entering(database, slots, log)
    log.before_sending.clear()
    first = asyncio.create_task(entering.settle(record({"1": 5})))
    await asyncio.wait_for(log.is_sending.wait(), 30)
    async with asyncio.timeout(30):
        await entering.commit(record({"1": 9}, at=1))
        assert await entering.publication.publish_due(NOW) == 0, "left alone while the older one is not out"
    log.before_sending.set()
    await first
    assert await entering.publication.publish_due(NOW) == 1
    assert log.told == [("1", 1, 5), ("1", 2, 9)]


async def test_many_at_once_end_with_every_team_at_its_newest_and_revisions_rise(database, slots):
    log = Log()
    entering = [Entering(database, slots, log) for _ in range(4)]

    async def work(number: int) -> None:
        for at in range(number, 24, 4):
            await entering[number].settle(record({"1": 10 + at, "2": 100 - at, "3": 7}, at=at))

    async def publish() -> None:
        for _ in range(10):
            await entering[0].publication.publish_due(NOW)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(4)), publish())
    await entering[0].publication.publish_due(NOW)
    newest: dict[str, tuple[int, int]] = {}
    for team_id, revision, events in log.told:
        assert revision > newest.get(team_id, (0, 0))[0], "never an older one after a newer one"
        newest[team_id] = (revision, events)
    assert {team_id: events for team_id, (_, events) in newest.items()} == {"1": 33, "2": 77, "3": 7}
    assert newest["3"][0] == 1


async def test_teams_go_out_in_batches_until_none_is_due(database, slots, claim, monkeypatch):
    monkeypatch.setattr("quill_usage_ingest.store.team_publication.BATCH", 3)
    log = Log()
    publication = TeamUsagePublication(database=database, publisher=log, slots=slots)
    teams = {str(number): {EVENTS: number} for number in range(10)}
    async with database.begin() as transaction:
        await record_teams([TeamsReport(claim(), teams)], tx=PostgresTeams(transaction, slots), now=NOW)
    assert await publication.publish_due(NOW) == 10
    assert sorted(log.told) == sorted((team_id, 1, counters[EVENTS]) for team_id, counters in teams.items())


# -- the running service ---------------------------------------------------------------------------------------------


def daily(events: dict[str, int], **changed: Any) -> dict[str, Any]:
    """PostHog's report of yesterday."""
    return {
        "organization_id": "acme",
        "date": (TODAY - timedelta(days=1)).date().isoformat(),
        EVENTS: sum(events.values()),
        "teams": {team_id: {EVENTS: used} for team_id, used in events.items()},
        **changed,
    }


def native(events: dict[str, int], *, report_id: str, day: int) -> bytes:
    start = TODAY - timedelta(days=day)
    return orjson.dumps(
        {
            "report_id": report_id,
            "source": "us",
            "organization_id": "acme",
            "window_start": start,
            "window_end": start + timedelta(days=1),
            "completeness": "complete",
            "as_of": start + timedelta(days=1),
            "counters": {EVENTS: sum(events.values())},
            "teams": {team_id: {EVENTS: used} for team_id, used in events.items()},
        }
    )


async def test_what_teams_used_leaves_the_service_and_comes_down_with_a_void(intake_settings, platform):
    """On real Kafka and Postgres: reports before their customer, over Kafka and HTTP, and a correction."""
    async with platform(intake_settings) as running:
        told: dict[str, list[TeamUsageSnapshot]] = {}
        reader = AIOKafkaConsumer(
            bootstrap_servers=intake_settings.kafka_bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await reader.start()
        try:
            reader.assign([TopicPartition(topics.TEAM_USAGE.name, 0)])

            async def used() -> dict[str, int]:
                for records in (await reader.getmany(timeout_ms=50)).values():
                    for each in records:
                        snapshot = TeamUsageSnapshot.from_bytes(each.value)
                        assert each.key == snapshot.key.encode()
                        told.setdefault(snapshot.team_id, []).append(snapshot)
                return {
                    team_id: found[-1].periods[0].meters["events"].complete if found[-1].periods else 0
                    for team_id, found in sorted(told.items())
                }

            def saying(expected: dict[str, int]):
                async def look() -> bool:
                    return await used() == expected

                return look

            await running.send(topics.USAGE_REPORTS, "acme", native({"1": 5, "2": 7}, report_id="right", day=3))
            await running.until(lambda: running.letters(reason_code="unknown_organization"))
            await running.customers("acme")
            await running.until(saying({"1": 5, "2": 7}))
            await running.send(topics.USAGE_REPORTS, "acme", native({"1": 1000, "3": 9}, report_id="wrong", day=2))
            await running.until(saying({"1": 1005, "2": 7, "3": 9}))
            answer = await running.post(daily({"1": 20, "2": 1}))
            assert answer.status_code == 200, answer.text
            await running.until(saying({"1": 1025, "2": 8, "3": 9}))
            kept = (await running.get("/v1/usage/acme/reports"))["results"]
            order = {
                "correction_id": "c1",
                "kind": "void",
                "actor": "ada",
                "reason": "counted bots",
                "report_ids": [each["id"] for each in kept if each["report_id"] == "wrong"],
            }
            corrections = "/v1/usage/acme/corrections"
            headers = {"Authorization": "Bearer operator-token"}
            assert (await running.client.post(corrections, json=order, headers=headers)).status_code == 200
            await running.until(saying({"1": 25, "2": 8, "3": 0}))
            reversion = {"actor": "ada", "reason": "they were people"}
            answer = await running.client.post(f"{corrections}/c1/revert", json=reversion, headers=headers)
            assert answer.status_code == 200, answer.text
            await running.until(saying({"1": 1025, "2": 8, "3": 9}))
            replacement = {
                "correction_id": "c2",
                "kind": "replace",
                "actor": "ada",
                "reason": "half of it were bots",
                "source": "us",
                "start": (TODAY - timedelta(days=2)).isoformat(),
                "end": (TODAY - timedelta(days=1)).isoformat(),
                "counters": {EVENTS: 500},
                "windows": [
                    {
                        "window_start": (TODAY - timedelta(days=2)).isoformat(),
                        "window_end": (TODAY - timedelta(days=1)).isoformat(),
                    }
                ],
            }
            answer = await running.client.post(corrections, json=replacement, headers=headers)
            assert answer.status_code == 200, answer.text
            await running.until(saying({"1": 25, "2": 8, "3": 0}))
            for found in told.values():
                revisions = [each.revision for each in found]
                assert revisions == sorted(set(revisions)), "strictly rising, nothing twice"
        finally:
            await reader.stop()
