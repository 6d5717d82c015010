"""Freshness on real Kafka and Postgres: watermarks never run ahead of their reports, silence is seen, holes are named."""

import asyncio
import base64
import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from quill_contracts import topics
from quill_contracts.licenses import License
from quill_contracts.sources import SourceWatermark, UsageSource
from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot
from quill_runtime.publisher import KafkaPublisher, Outgoing
from quill_runtime.sealing import Sealer
from quill_usage_ingest.app import build
from quill_usage_ingest.settings import UsageIngestSettings

pytestmark = pytest.mark.integration

SEALING_KEYS = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()
SECRET = b"s" * 64
TOKEN = "operator-token"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
ADA = {"actor": "ada@example.org", "reason": "asked the region"}
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
ANCHOR = TODAY - timedelta(days=20)
YESTERDAY = TODAY - timedelta(days=1)
DAY = timedelta(days=1)


@dataclass
class HandClock:
    """Moves when a test says so."""

    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Running:
    """The service at work, with both ends of its topics in hand."""

    service: Any
    client: httpx.AsyncClient
    publisher: KafkaPublisher
    output: AIOKafkaConsumer
    sources: dict[str, UsageSource] = field(default_factory=dict)
    snapshots: dict[str, PeriodUsageSnapshot] = field(default_factory=dict)

    async def send(self, topic: str, key: str, *values: bytes) -> None:
        await self.publisher.publish_all([Outgoing(topic, key, value) for value in values])

    async def read(self) -> None:
        for records in (await self.output.getmany(timeout_ms=50)).values():
            for record in records:
                if record.topic == topics.SOURCES.name:
                    source = UsageSource.from_bytes(record.value)
                    assert source.revision > getattr(self.sources.get(source.source), "revision", 0)
                    self.sources[source.source] = source
                else:
                    snapshot = PeriodUsageSnapshot.from_bytes(record.value)
                    self.snapshots[snapshot.organization_id] = snapshot

    async def until(self, look: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            await self.read()
            found = look()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            assert time.monotonic() < deadline, f"waited too long; {self.sources} {self.snapshots}"

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.client.get(path, params=query, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, method: str, path: str, body: Any, *, status: int = 200, headers=OPERATOR) -> Any:
        answer = await self.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def expect(self, *names: str, **said: Any) -> None:
        for name in names:
            await self.ask("PUT", f"/v1/sources/{name}", {"is_expected": True, **ADA, **said})

    def through(self, name: str) -> datetime | None:
        source = self.sources.get(name)
        return source.complete_through if source else None

    async def freshness(self) -> Any:
        periods = (await self.get("/v1/usage/acme"))["periods"]
        return periods[0]["freshness"] if periods else None


def consumer_of(service: Any, topic: str, group: str) -> Any:
    (found,) = [
        part
        for part in service.components
        if getattr(part, "consumption", None) is not None
        and (part.consumption.topic, part.consumption.group) == (topic, f"usage-ingest.{group}")
    ]
    return found


def hold_reports_until(gate: asyncio.Event) -> Callable[[Any], None]:
    """Reports are read from Kafka and entered only when the gate opens."""

    def hold(service: Any) -> None:
        consumer = consumer_of(service, topics.USAGE_REPORTS.name, "reports")
        apply = consumer.consumption.apply

        async def late(transaction: Any, received: Sequence[Any], now: datetime) -> Any:
            await gate.wait()
            return await apply(transaction, received, now)

        consumer.consumption = dataclasses.replace(consumer.consumption, apply=late)

    return hold


@pytest.fixture
def settings(migrated_url: str, kafka: Any) -> UsageIngestSettings:
    ours = [each for each in topics.TOPICS if "usage-ingest" in each.producer or "usage-ingest" in each.readers]
    kafka.create_topics({topic.name: 1 for topic in ours} | {topic.dead: 1 for topic in ours})
    return UsageIngestSettings(
        database_url=migrated_url,
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        quill_sealing_keys=SEALING_KEYS,
        quill_api_tokens=f"ops:operator:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
        quill_kafka_group_prefix="test-",
    )


@asynccontextmanager
async def run(
    settings: UsageIngestSettings, *, before: Callable[[Any], None] = lambda _service: None
) -> AsyncIterator[Running]:
    service = build(settings)
    before(service)
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers)
    output = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client:
        await output.start()
        try:
            output.assign([TopicPartition(topic.name, 0) for topic in (topics.SOURCES, topics.PERIOD_USAGE)])
            await output.seek_to_beginning()
            running = Running(service, client, publisher, output)
            for license_id, source, type_ in (("license-1", "eu", "cloud"), ("license-2", "inst", "enterprise")):
                await running.send(topics.LICENSES.name, license_id, a_license(license_id, source=source, type=type_))
            await running.send(topics.CATALOG.name, "product_analytics", PRODUCT)
            await running.send(topics.CUSTOMERS.name, "acme", customer("acme", "license-1"))
            await running.send(topics.CUSTOMERS.name, "globex", customer("globex", "license-2"))
            async with service.running():
                await running.until(lambda: _is_known(client))
                yield running
        finally:
            await output.stop()
            await publisher.stop()


async def _is_known(client: httpx.AsyncClient) -> bool:
    answers = [await client.get(f"/v1/usage/{name}", headers=OPERATOR) for name in ("acme", "globex")]
    ready = await client.get("/health/ready")
    return all(answer.status_code == 200 for answer in (*answers, ready))


def a_license(license_id: str, **changed: Any) -> bytes:
    sealed = Sealer.parse(SEALING_KEYS).seal(SECRET, context=license_id)
    fields = {"license_id": license_id, "revision": 1, "status": "active", "sealed_secret": sealed, "issued_at": ANCHOR}
    return License.model_validate({**fields, **changed}).to_bytes()


def customer(organization_id: str, license_id: str) -> bytes:
    return CustomerSnapshot.model_validate(
        {
            "organization_id": organization_id,
            "customer_id": f"customer-of-{organization_id}",
            "revision": 1,
            "effective_at": ANCHOR,
            "license_id": license_id,
            "license_type": "cloud",
            "schedule": {"anchor": ANCHOR, "interval": "month"},
            "period": {"start": ANCHOR, "end": ANCHOR + timedelta(days=28)},
            "has_active_subscription": False,
            "items": [],
        }
    ).to_bytes()


PRODUCT = CatalogProduct.model_validate(
    {
        "product_key": "product_analytics",
        "revision": 1,
        "effective_at": ANCHOR,
        "name": "Product analytics",
        "usage_key": "events",
        "counter": "event_count_in_period",
        "price_id": "standard",
        "price": {"model": "per_unit", "unit_amount": "0.01"},
    }
).to_bytes()


def report(organization_id: str = "acme", *, source: str = "us", day: datetime = YESTERDAY, events: int = 10) -> bytes:
    return orjson.dumps(
        {
            "report_id": f"{source}:{organization_id}:{day.date()}:{events}",
            "source": source,
            "organization_id": organization_id,
            "window_start": day,
            "window_end": day + DAY,
            "completeness": "complete",
            "as_of": day + DAY,
            "counters": {"event_count_in_period": events},
        }
    )


def watermark(source: str, through: datetime) -> bytes:
    return SourceWatermark(source=source, complete_through=through, as_of=datetime.now(UTC)).to_bytes()


def license_headers(license_id: str, organization_id: str) -> dict[str, str]:
    claims = {
        "id": license_id,
        "organization_id": organization_id,
        "aud": "posthog:license-key",
        "exp": int(time.time()) + 600,
    }
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}


async def test_a_watermark_read_before_its_reports_are_entered_counts_only_after_them(settings):
    gate = asyncio.Event()
    async with run(settings, before=hold_reports_until(gate)) as running:
        await running.send(topics.USAGE_REPORTS.name, "acme", report(), report(source="eu"))
        await running.send(topics.WATERMARKS.name, "us", watermark("us", TODAY))

        async def has_fence() -> bool:
            answer = await running.client.get("/v1/sources", headers=OPERATOR)
            assert all(each["complete_through"] is None for each in answer.json()["results"])
            async with consumer_of(running.service, topics.WATERMARKS.name, "watermarks")._database.begin() as tx:
                rows = await tx.connection.exec_driver_sql("select fence from watermark_claims")
                return [row.fence for row in rows] == [{topics.USAGE_REPORTS.name: {"0": 2}}]

        await running.until(has_fence)
        await asyncio.sleep(2.5)  # two turns of the job
        await running.read()
        assert running.through("us") is None, "its reports are still in the consumer's hands"
        gate.set()
        await running.until(lambda: running.through("us") == TODAY)
        assert running.snapshots["acme"].periods[-1].meters["events"].complete == 20
        assert running.snapshots["acme"].sources == ["eu", "us"]


async def test_totals_say_from_how_many_sources_and_through_when_with_what_is_parked(settings):
    async with run(settings) as running:
        await running.send(topics.USAGE_REPORTS.name, "acme", report(), report(day=TODAY - 2 * DAY))
        poison = orjson.loads(report(events=11)) | {"counters": {"event_count_in_period": -1}}
        await running.send(topics.USAGE_REPORTS.name, "acme", orjson.dumps(poison))
        await running.expect("us", "eu", "inst")
        await running.send(topics.WATERMARKS.name, "us", watermark("us", TODAY), watermark("us", YESTERDAY))
        await running.until(lambda: running.through("us") == TODAY and running.sources["us"].parked == 1)
        fresh = await running.freshness()
        assert fresh["sentence"] == (
            f"From 1 of 2 expected sources, complete through {TODAY:%Y-%m-%dT%H:%MZ};"
            " nothing said of this period: eu; 1 report parked."
        )
        assert (fresh["expected"], fresh["complete"], fresh["parked"], fresh["known_through"]) == (2, 1, 1, None)
        assert [(each["source"], each["parked"]) for each in fresh["sources"]] == [("eu", 0), ("us", 1)]

        told = {"complete_through": TODAY.isoformat(), **ADA}
        assert (await running.ask("POST", "/v1/sources/eu/watermark", told))["waiting"][0]["origin"] == "api"
        await running.until(lambda: running.through("eu") == TODAY)
        fresh = await running.freshness()
        assert (fresh["complete"], fresh["known_through"]) == (2, YESTERDAY.isoformat()), "the parked day is a hole"

        explained = await running.get("/v1/usage/acme/explain", meter="events")
        assert explained["freshness"]["sentence"] == fresh["sentence"]
        before = await running.get("/v1/usage/acme/as-of", at=(datetime.now(UTC) - timedelta(hours=1)).isoformat())
        assert before["freshness"]["sentence"].startswith("No source is expected")

        (letter,) = (await running.get("/v1/dead-letters"))["results"]
        await running.ask("POST", f"/v1/dead-letters/{letter['id']}/replay", {})

        async def parked_again() -> bool:
            letters = (await running.get("/v1/dead-letters"))["results"]
            return bool(letters) and letters[0]["id"] != letter["id"] and running.sources["us"].parked == 1

        await running.until(parked_again)
        assert (await running.freshness())["parked"] == 1


async def test_a_parked_report_that_is_let_in_is_no_hole_any_more(settings):
    async with run(settings) as running:
        await running.send(topics.USAGE_REPORTS.name, "new", report("new"))
        await running.send(topics.WATERMARKS.name, "us", watermark("us", TODAY))
        await running.until(lambda: running.through("us") == TODAY)
        assert running.sources["us"].parked == 1, "it was counted before the watermark was let count"
        await running.send(topics.CUSTOMERS.name, "new", customer("new", "license-1"))
        await running.until(lambda: running.sources["us"].parked == 0)
        assert running.snapshots["new"].periods[-1].meters["events"].complete == 10


async def test_an_instances_complete_day_is_its_watermark_and_a_hole_before_it_stays(settings):
    async with run(settings) as running:

        async def tell(license_id: str, organization_id: str, day: datetime) -> None:
            body = {"organization_id": organization_id, "date": day.date().isoformat(), "event_count_in_period": 5}
            await running.ask("POST", "/api/usage", body, headers=license_headers(license_id, organization_id))

        await tell("license-1", "acme", YESTERDAY)
        await tell("license-2", "globex", TODAY - 4 * DAY)
        await tell("license-2", "globex", TODAY)
        await tell("license-2", "globex", YESTERDAY)
        await running.until(lambda: running.through("inst") == TODAY - 3 * DAY)

        async def beyond_the_hole() -> bool:
            later = (await running.get("/v1/sources/inst"))["complete_later"]
            return later == [{"start": YESTERDAY.isoformat(), "end": TODAY.isoformat()}]

        await running.until(beyond_the_hole)
        assert running.through("inst") == TODAY - 3 * DAY
        for day in (2, 3):
            await tell("license-2", "globex", TODAY - day * DAY)
        await running.until(lambda: running.through("inst") == TODAY)
        await running.until(lambda: "eu" in running.sources)
        assert running.through("eu") is None, "a region has more than one organization"

        own = license_headers("license-2", "globex")
        told = {"complete_through": TODAY.isoformat()}
        await running.ask("POST", "/v1/sources/inst/watermark", told, headers=own)
        refused = await running.ask("POST", "/v1/sources/us/watermark", told, headers=own, status=403)
        assert refused["attr"] == "source"
        await running.ask("POST", "/v1/sources/inst/watermark", {**told, "reset": True}, headers=own, status=403)
        assert (await running.ask("GET", "/v1/sources/us", None, headers=own, status=403))["attr"] == "source"
        assert (await running.ask("GET", "/v1/sources/inst", None, headers=own))["state"] == "reporting"


async def test_silence_is_announced_and_ends_waivers_come_and_go_and_every_change_has_a_name(settings):
    clock = HandClock()

    def by_hand(service: Any) -> None:
        for part in service.components:
            if hasattr(part, "_clock"):
                part._clock = clock

    async with run(settings, before=by_hand) as running:
        await running.send(topics.USAGE_REPORTS.name, "acme", report())
        await running.until(lambda: "us" in running.sources)
        await running.expect("us", silent_after_hours=2)
        await running.until(lambda: running.sources["us"].is_expected)
        revision = running.sources["us"].revision
        await running.expect("us", silent_after_hours=2)
        clock.ahead = timedelta(hours=3)
        await running.until(lambda: running.sources["us"].state == "silent")
        assert running.sources["us"].revision == revision + 1, "saying the same again made none"
        since = running.sources["us"].silent_since
        assert since - running.sources["us"].heard_at <= timedelta(hours=2, seconds=60)

        async def gauge() -> bool:
            return 'quill_source_silent{source="us"} 1.0' in (await running.client.get("/metrics")).text

        await running.until(gauge)
        await running.send(topics.USAGE_REPORTS.name, "acme", report(events=12))
        await running.until(lambda: running.sources["us"].state == "reporting")

        async def is_calm() -> bool:
            return 'quill_source_silent{source="us"} 0.0' in (await running.client.get("/metrics")).text

        await running.until(is_calm)

        waiver = {"waiver_id": "october", "through": TODAY.isoformat(), "organization_id": "acme", **ADA}
        for _ in range(2):
            await running.ask("POST", "/v1/sources/us/waivers", waiver)
        other = await running.ask("POST", "/v1/sources/us/waivers", {**waiver, "reason": "x"}, status=409)
        assert other["code"] == "waiver_conflict"
        await running.until(lambda: [w.waiver_id for w in running.sources["us"].waivers] == ["october"])
        back = {"actor": "bob", "reason": "the data was found"}
        await running.ask("POST", "/v1/sources/us/waivers/october/take-back", back)
        await running.until(lambda: running.sources["us"].waivers == [])
        missing = await running.ask("POST", "/v1/sources/us/waivers/november/take-back", back, status=400)
        assert (missing["code"], missing["attr"]) == ("unknown_waiver", "waiver_id")
        nobody = await running.ask("POST", "/v1/sources/us/watermark", {"complete_through": None}, status=400)
        assert nobody["attr"] == "actor"
        far = {"complete_through": "9999-01-01T00:00:00Z", **ADA}
        assert (await running.ask("POST", "/v1/sources/us/watermark", far, status=400))["attr"] == "complete_through"
        await running.send(topics.WATERMARKS.name, "us", watermark("us", TODAY + timedelta(days=400)))

        async def is_parked() -> bool:
            letters = (await running.get("/v1/dead-letters"))["results"]
            return [each["reason_code"] for each in letters] == ["watermark_in_the_future"]

        await running.until(is_parked)
        told = {"complete_through": TODAY.isoformat(), **ADA}
        await running.ask("POST", "/v1/sources/us/watermark", told)
        await running.until(lambda: running.through("us") == TODAY)
        back_to = {"complete_through": YESTERDAY.isoformat(), "reset": True, **ADA}
        for _ in range(2):
            await running.ask("POST", "/v1/sources/us/watermark", back_to)
        await running.until(lambda: running.through("us") == YESTERDAY)
        forward = {**back_to, "complete_through": TODAY.isoformat()}
        assert (await running.ask("POST", "/v1/sources/us/watermark", forward, status=400))["code"] == "invalid_input"

        await running.expect("us", is_expected=False)

        async def is_hidden() -> bool:
            return 'quill_source_silent{source="us"}' not in (await running.client.get("/metrics")).text

        await running.until(is_hidden)
        database = consumer_of(running.service, topics.WATERMARKS.name, "watermarks")._database
        async with database.begin() as transaction:
            rows = await transaction.connection.exec_driver_sql(
                "select type, actor from events where stream = 'usage-source:us' order by version"
            )
            told = [(row.type.removeprefix("usage-source."), row.actor) for row in rows]
        assert told == [
            ("first-heard", "clock"),
            ("declared", "ada@example.org"),
            ("fell-silent", "clock"),
            ("heard-again", "clock"),
            ("waived", "ada@example.org"),
            ("waiver-taken-back", "bob"),
            ("advanced", "ada@example.org"),
            ("set-back", "ada@example.org"),
            ("declared", "ada@example.org"),
        ]
