"""The whole service on real Kafka and Postgres: reports in, snapshots out, nothing lost and nothing doubled."""

import asyncio
import base64
import contextlib
import dataclasses
import gzip
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
from aiobotocore.session import get_session
from aiokafka import AIOKafkaConsumer, TopicPartition
from quill_contracts import topics
from quill_contracts.licenses import License
from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot
from quill_contracts.topics import Topic
from quill_contracts.usage import PeriodUsageSnapshot
from quill_runtime.consumption import Record
from quill_runtime.database import Database
from quill_runtime.publisher import KafkaPublisher, Outgoing, PublishFailed
from quill_runtime.queues import QueueAway, QueueMessage, SqsQueue
from quill_runtime.sealing import Sealer
from quill_usage_ingest.app import build
from quill_usage_ingest.consumers import report_runs
from quill_usage_ingest.consumers.queue import QueueIntake, report_from
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.report_run import ReportRun, RunPosition
from quill_usage_ingest.settings import UsageIngestSettings
from quill_usage_ingest.store.report_runs import PostgresRuns
from sqlalchemy import text

pytestmark = pytest.mark.integration

SEALING_KEYS = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()
SECRET = b"s" * 64
TOKEN = "operator-token"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
ANCHOR = TODAY - timedelta(days=20)
YESTERDAY = TODAY - timedelta(days=1)


@dataclass
class Running:
    """The service at work, with both ends of its topics in hand."""

    settings: UsageIngestSettings
    client: httpx.AsyncClient
    publisher: KafkaPublisher
    output: AIOKafkaConsumer
    snapshots: dict[str, list[PeriodUsageSnapshot]] = field(default_factory=dict)

    async def send(self, topic: Topic, key: str, *values: bytes) -> None:
        await self.publisher.publish_all([Outgoing(topic.name, key, value) for value in values])

    async def read(self) -> None:
        for records in (await self.output.getmany(timeout_ms=50)).values():
            for record in records:
                snapshot = PeriodUsageSnapshot.from_bytes(record.value)
                self.snapshots.setdefault(snapshot.organization_id, []).append(snapshot)

    async def until(self, look: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            await self.read()
            found = look()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            assert time.monotonic() < deadline, f"waited too long; snapshots so far: {self.snapshots}"

    def events(self, organization_id: str = "acme") -> tuple[int, int, int] | None:
        """Complete, partial and maximum events of the newest period in the newest snapshot."""
        held = self.snapshots.get(organization_id)
        usage = held[-1].periods[-1].meters.get("events") if held and held[-1].periods else None
        return (usage.complete, usage.partial, usage.maximum) if usage else None

    async def dead_letters(self) -> list[dict[str, Any]]:
        return (await self.client.get("/v1/dead-letters", headers=OPERATOR)).json()["results"]

    async def customer(self, organization_id: str = "acme", revision: int = 1, **changed: Any) -> None:
        await self.send(topics.CUSTOMERS, organization_id, customer(organization_id, revision, **changed).to_bytes())

    async def known(self, organization_id: str = "acme") -> None:
        """Wait until customer and catalog have come by: they travel on topics of their own."""
        database = Database(self.settings.database_url, pool_size=1)

        async def look() -> bool:
            answer = await self.client.get(f"/v1/usage/{organization_id}", headers=OPERATOR)
            async with database.begin() as transaction:
                has_catalog = await transaction.connection.scalar(text("select count(*) >= 2 from metered_products"))
            return answer.status_code == 200 and bool(has_catalog)

        try:
            await self.until(look)
        finally:
            await database.close()

    async def post(self, body: Any, *, organization_id: str = "acme", token: str | None = None, **options: Any):
        headers = {"Authorization": f"Bearer {token or license_token(organization_id)}", **options.pop("headers", {})}
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.client.post("/api/usage", content=content, headers=headers, **options)


def customer(organization_id: str, revision: int = 1, **changed: Any) -> CustomerSnapshot:
    return CustomerSnapshot.model_validate(
        {
            "organization_id": organization_id,
            "customer_id": f"customer-of-{organization_id}",
            "revision": revision,
            "effective_at": ANCHOR,
            "license_id": "license-1",
            "license_type": "cloud",
            "schedule": {"anchor": ANCHOR, "interval": "month"},
            "period": {"start": ANCHOR, "end": ANCHOR + timedelta(days=28)},
            "has_active_subscription": True,
            "items": [
                {
                    "product_key": "product_analytics",
                    "usage_key": "events",
                    "counter": "event_count_in_period",
                    "price_id": "standard",
                    "price": {"model": "per_unit", "unit_amount": "0.01"},
                    "subscribed": True,
                    "allowance": 100,
                    "quota": 5_000,
                }
            ],
            "trust_scores": {"events": 7},
            "features": [{"key": "zapier", "name": "Zapier", "limit": 3}],
            **changed,
        }
    )


def product(key: str, meter: str, counter: str, revision: int = 1) -> bytes:
    return CatalogProduct.model_validate(
        {
            "product_key": key,
            "revision": revision,
            "effective_at": ANCHOR,
            "name": key,
            "usage_key": meter,
            "counter": counter,
            "price_id": "standard",
            "price": {"model": "per_unit", "unit_amount": "0.01"},
        }
    ).to_bytes()


def a_license(license_id: str, **changed: Any) -> bytes:
    sealed = Sealer.parse(SEALING_KEYS).seal(SECRET, context=license_id)
    fields = {
        "license_id": license_id,
        "revision": 1,
        "type": "cloud",
        "status": "active",
        "sealed_secret": sealed,
        "source": "eu",
        "issued_at": ANCHOR,
    }
    return License.model_validate({**fields, **changed}).to_bytes()


def license_token(
    organization_id: str = "acme", *, key: bytes = SECRET, algorithm: str = "HS256", **changed: Any
) -> str:
    claims = {
        "id": "license-1",
        "organization_id": organization_id,
        "aud": "posthog:license-key",
        "exp": int(time.time()) + 600,
    }
    return jwt.encode({**claims, **changed}, key, algorithm=algorithm)


def report(organization_id: str = "acme", *, day: datetime = YESTERDAY, at: int = 0, **changed: Any) -> bytes:
    return orjson.dumps(
        {
            "report_id": f"{organization_id}:{day.date()}:{at}",
            "source": "us",
            "organization_id": organization_id,
            "window_start": day,
            "window_end": day + timedelta(days=1),
            "completeness": "complete",
            "as_of": day + timedelta(hours=at),
            "counters": {"event_count_in_period": 10},
            **changed,
        }
    )


def daily(**changed: Any) -> dict[str, Any]:
    return {
        "organization_id": "acme",
        "date": YESTERDAY.date().isoformat(),
        "event_count_in_period": 120,
        "recording_count_in_period": 4,
        "dwh_total_storage_in_s3_in_mib": 1.5,
        "teams": {"1": {"event_count_in_period": 120}},
        **changed,
    }


@pytest.fixture
def settings(migrated_url: str, kafka: Any) -> UsageIngestSettings:
    ours = (
        topics.USAGE_REPORTS,
        topics.DAILY_REPORTS,
        topics.REPORT_RUNS,
        topics.METER_EVENTS,
        topics.WATERMARKS,
        topics.SOURCES,
        topics.CUSTOMERS,
        topics.CATALOG,
        topics.LICENSES,
        topics.PERIOD_USAGE,
    )
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
            output.assign([TopicPartition(topics.PERIOD_USAGE.name, 0)])
            await output.seek_to_beginning()
            for license_id in ("license-1", "license-2"):
                await publisher.publish_all([Outgoing(topics.LICENSES.name, license_id, a_license(license_id))])
            for key, meter, counter in (
                ("product_analytics", "events", "event_count_in_period"),
                ("session_replay", "recordings", "recording_count_in_period"),
            ):
                await publisher.publish_all([Outgoing(topics.CATALOG.name, key, product(key, meter, counter))])
            async with service.running():
                running = Running(settings, client, publisher, output)
                await running.until(lambda: _is_ready(client))
                yield running
        finally:
            await output.stop()
            await publisher.stop()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/health/ready")).status_code == 200


async def test_reports_come_out_as_snapshots_whatever_the_order_and_the_repetition(settings):
    async with run(settings) as running:
        await running.customer()
        await running.known()
        early, late = (
            report(counters={"event_count_in_period": 90}),
            report(at=2, counters={"event_count_in_period": 70}),
        )
        await running.send(topics.USAGE_REPORTS, "acme", late, early, late, early)
        await running.send(topics.USAGE_REPORTS, "acme", report(day=TODAY, at=3, completeness="partial"))
        await running.until(lambda: running.events() == (70, 10, 80))
        revisions = [snapshot.revision for snapshot in running.snapshots["acme"]]
        assert revisions == sorted(revisions)

        # What Kafka confirmed is not said again for reports that change nothing; the next change is.
        said = len(running.snapshots["acme"])
        await running.send(topics.USAGE_REPORTS, "acme", late, early)
        await running.send(
            topics.USAGE_REPORTS, "acme", report(day=TODAY, at=4, counters={"event_count_in_period": 11})
        )
        await running.until(lambda: running.events() == (81, 0, 81))
        assert len(running.snapshots["acme"]) <= said + 2
        assert len({snapshot.revision for snapshot in running.snapshots["acme"]}) == len(running.snapshots["acme"])

        shown = (await running.client.get("/v1/usage/acme/", params={"meter": "events"}, headers=OPERATOR)).json()
        assert shown["periods"][0]["meters"] == {"events": {"complete": 81, "partial": 0, "maximum": 81}}
        assert [(cell["quantity"], cell["completeness"]) for cell in shown["cells"]] == [
            (70, "complete"),
            (11, "complete"),
        ]
        assert shown["sources"] == [{"source": "us", "complete": 81, "partial": 0}]
        kept = (await running.client.get("/v1/usage/acme/reports", headers=OPERATOR)).json()["results"]
        assert [entry["verdict"] for entry in kept] == ["applied", "superseded", "applied", "applied"]


async def test_a_correction_lowers_the_maximum_in_the_snapshot(settings):
    async with run(settings) as running:
        await running.customer()
        await running.known()
        await running.send(topics.USAGE_REPORTS, "acme", report(counters={"event_count_in_period": 900}))
        await running.until(lambda: running.events() == (900, 0, 900))
        correction = {"actor": "ada@example.org", "reason": "counted twice"}
        lower = report(at=1, counters={"event_count_in_period": 450}, correction=correction)
        await running.send(topics.USAGE_REPORTS, "acme", lower)
        await running.until(lambda: running.events() == (450, 0, 450))


async def test_poison_is_parked_with_its_reason_and_its_neighbours_are_applied(settings):
    poison = {
        b"not json": ("not_json", None),
        b"\xff\xfe": ("not_json", None),
        b'{"a":' * 20_000: ("not_json", None),
        report(at=5, counters={"event_count_in_period": -1}): ("invalid_message", "counters__event_count_in_period"),
        report(at=6, counters={"event_count_in_period": 2**63}): ("invalid_message", "counters__event_count_in_period"),
        report(at=7, window_end=YESTERDAY + timedelta(hours=5)): ("overlapping_window", "window_end"),
        report(at=24 * 30): ("as_of_in_the_future", "as_of"),
    }
    async with run(settings) as running:
        await running.customer()
        await running.known()
        await running.send(topics.USAGE_REPORTS, "acme", report(), *poison, report(day=TODAY, at=1))
        await running.until(lambda: running.events() == (20, 0, 20))
        letters = await running.dead_letters()
        assert {(letter["reason_code"], letter["attribute"]) for letter in letters} == set(poison.values())
        assert len(letters) == len(poison)
        one = (await running.client.get(f"/v1/dead-letters/{letters[0]['id']}", headers=OPERATOR)).json()
        assert base64.b64decode(one["value_base64"]) in poison


async def test_reports_of_an_unknown_organization_wait_and_are_let_in_when_the_customer_arrives(settings):
    async with run(settings) as running:
        await running.customer("globex")
        await running.known("globex")
        await running.send(topics.USAGE_REPORTS, "acme", report(), report(day=TODAY, at=1), report("globex"))
        await running.until(lambda: running.events("globex") == (10, 0, 10))
        letters = await running.dead_letters()
        assert [(letter["reason_code"], letter["subject"]) for letter in letters] == [
            ("unknown_organization", "acme")
        ] * 2
        await running.customer()
        await running.until(lambda: running.events() == (20, 0, 20))
        assert await running.dead_letters() == []


async def test_a_crash_between_commit_and_publishing_is_healed_by_the_redelivery(settings):
    failures = [PublishFailed("the broker went away")]

    def fail_once(service: Any) -> None:
        publisher = next(part for part in service.components if isinstance(part, KafkaPublisher))
        publish_all = publisher.publish_all

        async def publish_or_fail(messages):
            if failures and any(message.topic == topics.PERIOD_USAGE.name for message in messages):
                raise failures.pop()
            await publish_all(messages)

        publisher.publish_all = publish_or_fail

    async with run(settings, before=fail_once) as running:
        await running.customer()
        await running.known()
        await running.send(topics.USAGE_REPORTS, "acme", report())
        await running.until(lambda: running.events() == (10, 0, 10))
        assert failures == []
        assert running.snapshots["acme"][-1].revision == 1
        assert len((await running.client.get("/v1/usage/acme/reports", headers=OPERATOR)).json()["results"]) == 1
        beyond = await running.client.get(f"/v1/usage/acme/reports?after_id={10**20}", headers=OPERATOR)
        assert (beyond.status_code, beyond.json()["attr"]) == (400, "after_id")


async def test_a_new_meter_is_published_with_the_history_its_counter_already_has(settings):
    async with run(settings) as running:
        await running.customer()
        await running.known()
        counters = {"event_count_in_period": 10, "rows_synced_in_period": 77}
        await running.send(topics.USAGE_REPORTS, "acme", report(counters=counters))
        await running.until(lambda: running.events() == (10, 0, 10))
        rows = product("data_warehouse", "rows_synced", "rows_synced_in_period")
        await running.send(topics.CATALOG, "data_warehouse", rows)
        found = await running.until(lambda: running.snapshots["acme"][-1].periods[-1].meters.get("rows_synced"))
        assert (found.complete, found.maximum) == (77, 77)


async def test_a_changed_schedule_moves_usage_to_its_new_period(settings):
    async with run(settings) as running:
        await running.customer()
        await running.known()
        await running.send(topics.USAGE_REPORTS, "acme", report(day=TODAY - timedelta(days=9)), report())
        await running.until(lambda: running.events() == (20, 0, 20))
        anchor = (TODAY - timedelta(days=4)).isoformat()
        await running.customer(revision=2, schedule={"anchor": anchor, "interval": "month"})
        await running.until(lambda: running.events() == (10, 0, 10))
        assert [period.meters["events"].complete for period in running.snapshots["acme"][-1].periods] == [10, 10]


async def test_the_daily_report_is_durable_answered_and_published(settings):
    async with run(settings) as running:
        await running.customer()
        await running.known()
        await running.post(daily(date=TODAY.date().isoformat(), event_count_in_period=33))
        answer = await running.post(gzip.compress(orjson.dumps(daily())), headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 200
        body = answer.json()
        assert body["license"] == {"type": "cloud"}
        found = body["customer"]
        assert found["customer_id"] == "customer-of-acme"
        assert found["usage_summary"] == {
            "events": {"usage": 120, "limit": 5_000},
            "recordings": {"usage": 4, "limit": None},
        }
        assert found["billing_period"]["current_period_start"] == ANCHOR.isoformat()
        assert found["billing_period"]["interval"] == "month"
        assert found["customer_trust_scores"] == {"product_analytics": 7}
        assert found["available_product_features"][0]["key"] == "zapier"
        assert (found["has_active_subscription"], found["never_drop_data"], found["products"]) == (True, False, None)
        await running.until(lambda: running.events() == (120, 33, 153))
        replaced = await running.post(daily(event_count_in_period=100))
        assert replaced.json()["customer"]["usage_summary"]["events"]["usage"] == 100
        await running.until(lambda: running.events() == (100, 33, 153))
        mine = {"Authorization": f"Bearer {license_token()}"}
        assert (await running.client.get("/v1/usage/acme", headers=mine)).status_code == 200
        recomputed = await running.client.post("/v1/usage/acme/recompute", headers=OPERATOR)
        assert recomputed.json() == {"organization_id": "acme", "repaired_periods": [], "retired_periods": 0}


async def test_a_daily_report_that_is_not_good_is_refused_by_name_and_changes_nothing(settings):
    now = int(time.time())
    good = daily()
    refused_tokens = {
        "forged": license_token(key=b"x" * 64),
        "expired": license_token(exp=now - 121),
        "too long": license_token(exp=now + 86_400),
        "wrong audience": license_token(aud="somebody:else"),
        "wrong algorithm": license_token(algorithm="HS512"),
        "unsigned": jwt.encode({"id": "license-1", "organization_id": "acme"}, None, algorithm="none"),
        "unknown license": license_token(id="license-9"),
        "without organization": license_token(organization_id=None),
        "static token": TOKEN,
    }
    async with run(settings) as running:
        await running.customer()
        await running.customer("globex", license_id="license-2")
        await running.known("acme")
        await running.known("globex")
        for name, token in refused_tokens.items():
            answer = await running.post(good, token=token)
            assert (answer.status_code, "customer" in answer.json()) == (401, False), name
        foreign = [
            await running.post(good, token=license_token("globex")),
            await running.post(daily(organization_id="globex"), token=license_token("globex")),
        ]
        assert [answer.status_code for answer in foreign] == [403] * 2
        assert len({answer.content for answer in foreign}) == 1
        assert foreign[0].json()["attr"] == "organization_id"
        for reader in ("globex", "nobody"):
            mine = {"Authorization": f"Bearer {license_token(reader)}"}
            assert (await running.client.get(f"/v1/usage/{reader}", headers=mine)).status_code == 403
        for body, status, attr in [
            (b"not json", 400, None),
            (b"[" * 100_000, 400, None),
            (daily(event_count_in_period=-1), 400, "event_count_in_period"),
            (daily(event_count_in_period="1"), 400, "event_count_in_period"),
            (daily(event_count_in_period=10**15), 400, "event_count_in_period"),
            (daily(date=(TODAY + timedelta(days=2)).date().isoformat()), 400, "date"),
            (b'{"x":"' + b"x" * (10 * 1024 * 1024) + b'"}', 413, None),
        ]:
            answer = await running.post(body)
            assert (answer.status_code, answer.json()["attr"]) == (status, attr)
            assert answer.headers["content-type"] == "application/problem+json"
        bomb = gzip.compress(b"0" * (200 * 1024 * 1024), compresslevel=9)
        assert len(bomb) < 1024 * 1024
        answer = await running.post(bomb, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        shown = (await running.client.get("/v1/usage/acme", headers=OPERATOR)).json()
        assert (shown["revision"], shown["periods"]) == (0, [])


@pytest.fixture
async def queue(queues: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, Any]]:
    """A fresh queue: its address, and a client to send with."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    async with get_session().create_client("sqs", region_name="us-east-1", endpoint_url=queues) as client:
        created = await client.create_queue(
            QueueName=f"usage_reports_{time.monotonic_ns()}", Attributes={"VisibilityTimeout": "1"}
        )
        yield created["QueueUrl"], client


def queued(daily_report: dict[str, Any]) -> dict[str, Any]:
    """A message of generation v1, as PostHog sends it."""
    content = orjson.dumps({"organization_id": daily_report["organization_id"], "usage_report": daily_report})
    return {
        "MessageBody": base64.b64encode(gzip.compress(content)).decode(),
        "MessageAttributes": {
            "content_encoding": {"DataType": "String", "StringValue": "gzip"},
            "content_type": {"DataType": "String", "StringValue": "application/json"},
        },
    }


def with_queue(settings: UsageIngestSettings, url: str) -> UsageIngestSettings:
    return settings.model_copy(
        update={"usage_queue_v1_url": url, "usage_queue_source": "us", "aws_endpoint_url": url.rsplit("/", 2)[0]}
    )


async def left_in(client: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = await client.get_queue_attributes(QueueUrl=url, AttributeNames=names)
    return sum(int(count) for count in answer["Attributes"].values())


async def test_reports_from_the_queue_count_once_with_their_teams_and_bad_ones_are_parked(settings, queue):
    url, client = queue
    before, newest = daily(event_count_in_period=50), daily(teams={"1": {"event_count_in_period": 120}})
    for message in (queued(before), queued(newest), {"MessageBody": "%%%"}, queued(daily(event_count_in_period=-1))):
        await client.send_message(QueueUrl=url, **message)
        await asyncio.sleep(0.01)
    await client.send_message(QueueUrl=url, **queued(daily(organization_id="stranger")))
    async with run(with_queue(settings, url)) as running:
        await running.customer()
        await running.until(lambda: running.events() == (120, 0, 120), seconds=30)

        async def is_empty() -> bool:
            return await left_in(client, url) == 0

        await running.until(is_empty)

        async def parked() -> list[tuple[str, str | None]]:
            letters = await running.dead_letters()
            found = sorted((letter["reason_code"], letter["attribute"] or "") for letter in letters)
            return found if len(found) >= 3 else []

        assert await running.until(parked) == [
            ("invalid_input", "event_count_in_period"),
            ("not_json", "body"),
            ("unknown_organization", "organization_id"),
        ]
        await running.customer("stranger")
        await running.until(lambda: running.events("stranger") == (120, 0, 120))
        query = {"meter": "events", "by": "team", "from": YESTERDAY.date(), "to": TODAY.date()}

        async def team_total() -> list[tuple[str, int]]:
            answer = (await running.client.get("/v1/usage/acme", params=query, headers=OPERATOR)).json()
            return [(each["key"], each["total"]) for each in answer["series"]["series"]]

        assert await running.until(team_total) == [("1", 120)]


async def test_a_queue_message_that_was_copied_and_not_forgotten_counts_once(settings, queue):
    """Killed between the copy and the deletion: the queue hands the message out again, with the same instant."""
    url, client = queue
    await client.send_message(QueueUrl=url, **queued(daily()))
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers)

    class Forgetful(SqsQueue):
        async def delete(self, messages: Sequence[QueueMessage]) -> None:
            raise QueueAway(f"killed before {len(messages)} were deleted")

    intake = QueueIntake(
        copy=report_from("us"), open_queue=lambda: contextlib.nullcontext(Forgetful(client, url)), publisher=publisher
    )
    with pytest.raises(QueueAway):
        await intake.take(Forgetful(client, url))
    await publisher.stop()
    async with run(with_queue(settings, url)) as running:
        await running.customer()
        await running.until(lambda: running.events() == (120, 0, 120), seconds=30)

        async def is_empty() -> bool:
            return await left_in(client, url) == 0

        await running.until(is_empty)
        await asyncio.sleep(1)
        await running.read()
        assert running.events() == (120, 0, 120)
        kept = (await running.client.get("/v1/usage/acme/reports", headers=OPERATOR)).json()["results"]
        assert [(each["intake"], each["verdict"]) for each in kept] == [("queue-v1", "applied")]


class Runs:
    """A region's bucket and queue: writes chunk files, their manifest and the pointer, as PostHog does."""

    def __init__(self, s3: Any, sqs: Any, url: str) -> None:
        self._s3 = s3
        self._sqs = sqs
        self._url = url

    async def prepare(self) -> None:
        await self._s3.create_bucket(Bucket="reports")

    async def write(self, run_id: str, *, completeness: str, started: datetime, chunks: list[list[dict[str, Any]]]):
        """Everything but the pointer; returns the pointer."""
        prefix = f"billing/usage_reports/{YESTERDAY.date()}/{run_id}/"
        keys = [f"{prefix}chunk_{number:04d}.jsonl.gz" for number in range(len(chunks))]
        for key, reports in zip(keys, chunks, strict=True):
            lines = [
                orjson.dumps({"organization_id": each["organization_id"], "usage_report": each}) for each in reports
            ]
            await self._s3.put_object(Bucket="reports", Key=key, Body=gzip.compress(b"\n".join(lines) + b"\n"))
        facts = {
            "version": 2,
            "run_id": run_id,
            "date": YESTERDAY.date().isoformat(),
            "report_completeness": completeness,
            "region": "US",
            "bucket": "reports",
            "manifest_key": f"{prefix}manifest.json",
            "chunk_prefix": prefix,
            "chunk_count": len(chunks),
            "total_orgs": sum(len(reports) for reports in chunks),
            "workflow_started_at": started.isoformat(),
        }
        await self._s3.put_object(
            Bucket="reports", Key=facts["manifest_key"], Body=orjson.dumps({**facts, "chunk_keys": keys})
        )
        return facts

    async def point(self, facts: dict[str, Any]) -> None:
        await self._sqs.send_message(QueueUrl=self._url, MessageBody=orjson.dumps(facts).decode())


@pytest.fixture
async def runs(queues: str, queue: tuple[str, Any]) -> AsyncIterator[Runs]:
    url, sqs = queue
    async with get_session().create_client("s3", region_name="us-east-1", endpoint_url=queues) as s3:
        held = Runs(s3, sqs, url)
        await held.prepare()
        yield held


def with_runs(settings: UsageIngestSettings, url: str) -> UsageIngestSettings:
    return settings.model_copy(
        update={
            "usage_queue_v2_url": url,
            "usage_queue_source": "us",
            "usage_buckets": "reports, other",
            "aws_endpoint_url": url.rsplit("/", 2)[0],
        }
    )


async def test_a_run_of_chunk_files_counts_once_and_its_final_word_wins(settings, queue, runs):
    url, _ = queue
    noon, midnight = YESTERDAY + timedelta(hours=12), TODAY + timedelta(minutes=30)
    strangers = [daily(organization_id=f"stranger-{number}") for number in range(3)]
    partial = await runs.write(
        "noon", completeness="partial", started=noon, chunks=[[daily(event_count_in_period=50), *strangers]]
    )
    final = await runs.write(
        "final",
        completeness="complete",
        started=midnight,
        chunks=[
            strangers,
            [daily(event_count_in_period=90), daily(organization_id="globex", event_count_in_period=-1)],
        ],
    )
    for facts in (final, partial, final):
        await runs.point(facts)
    async with run(with_runs(settings, url)) as running:
        await running.customer()
        await running.until(lambda: running.events() == (90, 0, 90), seconds=40)

        async def kept() -> list[tuple[str, str, str]]:
            answer = (await running.client.get("/v1/usage/acme/reports", headers=OPERATOR)).json()["results"]
            found = sorted((each["intake"], each["completeness"], each["note"]["run_id"]) for each in answer)
            return found if len(found) == 2 else []

        assert await running.until(kept, seconds=30) == [
            ("bucket-v2", "complete", "final"),
            ("bucket-v2", "partial", "noon"),
        ]
        assert running.events() == (90, 0, 90)
        letters = await running.dead_letters()
        assert {(each["reason_code"], each["attribute"]) for each in letters} == {
            ("unknown_organization", "organization_id"),
            ("invalid_input", "event_count_in_period"),
        }

        async def is_complete() -> bool:
            answer = (await running.client.get("/v1/sources/us", headers=OPERATOR)).json()
            return (answer.get("complete_through"), answer.get("parked", 0) > 0) == (TODAY.isoformat(), True)

        assert await running.until(is_complete), "the final run tells of its whole day, but for what is parked"


async def test_a_broken_run_is_parked_with_its_reason_and_replaying_its_pointer_goes_on(
    settings, queue, runs, monkeypatch
):
    monkeypatch.setattr(report_runs, "RETRY", timedelta(0))
    url, _ = queue
    facts = await runs.write("r1", completeness="complete", started=TODAY, chunks=[[daily(event_count_in_period=7)]])
    await runs.point({**facts, "total_orgs": 9})
    await runs.point({**facts, "run_id": "r2", "bucket": "somebody-elses"})
    await runs.point({**facts, "run_id": "r3", "report_completeness": "corrected"})
    async with run(with_runs(settings, url)) as running:
        await running.customer()

        async def parked() -> list[tuple[str, str | None]]:
            letters = await running.dead_letters()
            found = sorted((each["reason_code"], each["subject"]) for each in letters)
            return found if len(found) == 3 else []

        assert await running.until(parked, seconds=40) == [
            ("bucket_not_allowed", "r2"),
            ("invalid_pointer", None),
            ("wrong_manifest", "r1"),
        ]
        await runs.write("r1", completeness="complete", started=TODAY, chunks=[[daily(event_count_in_period=7)] * 9])
        manifest = {**facts, "total_orgs": 9, "chunk_keys": [f"{facts['chunk_prefix']}chunk_0000.jsonl.gz"]}
        await runs._s3.put_object(Bucket="reports", Key=facts["manifest_key"], Body=orjson.dumps(manifest))
        (letter,) = [each for each in await running.dead_letters() if each["subject"] == "r1"]
        answer = await running.client.post(f"/v1/dead-letters/{letter['id']}/replay", headers=OPERATOR)
        assert answer.status_code == 200
        await running.until(lambda: running.events() == (7, 0, 7), seconds=40)
        shown = (await running.client.get("/v1/report-runs", headers=OPERATOR)).json()["results"]
        states = {each["run_id"]: (each["state"], each["chunks_done"], each["lines_sent"]) for each in shown}
        assert states == {"r1": ("done", 1, 9), "r2": ("failed", 0, 0)}


async def test_a_pointer_sent_again_with_other_facts_begins_anew(database):
    """The first pointer promised too much; the run had failed in its second chunk."""
    runs_at, record = TODAY, Record("usage.report-runs.v1", 0, 1, None, b"{}", {})
    one = ReportRun(
        "r1",
        "us",
        YESTERDAY.date(),
        Completeness.COMPLETE,
        TODAY,
        "reports",
        "m.json",
        "p/",
        chunk_count=2,
        organizations=5,
    )
    other = dataclasses.replace(one, organizations=4)
    for again, position in ((one, RunPosition(1, 3)), (other, RunPosition(0, 0))):
        async with database.begin() as transaction:
            await PostgresRuns(transaction).take_in(one, pointer=record, now=runs_at)
            await PostgresRuns(transaction).reached("r1", RunPosition(1, 3), sent=0, now=runs_at)
            await PostgresRuns(transaction).fail("r1", attempts=3, reason="short")
            await PostgresRuns(transaction).take_in(again, pointer=record, now=runs_at)
            leased = await PostgresRuns(transaction).lease(runs_at)
        assert leased is not None
        assert (leased.run, leased.position, leased.attempts) == (again, position, 0)


async def own_license(running: Running, license_id: str) -> None:
    """A license of an instance, with no organization yet."""
    record = a_license(license_id, type="enterprise", source=license_id)
    await running.send(topics.LICENSES, license_id, record)


async def parked(running: Running) -> list[tuple[str, str]]:
    return [(letter["subject"], letter["reason_code"]) for letter in await running.dead_letters()]


def in_use(running: Running) -> Any:
    return lambda: running.events("early") == (120, 0, 120)


async def test_the_first_report_of_a_new_customer_is_kept_and_enters_by_itself(settings):
    """K15: a report before the first customer snapshot was refused with 403 and lost."""
    async with run(settings) as running:
        await own_license(running, "license-3")
        token = license_token("early", id="license-3")
        first = [await running.post(daily(organization_id="early"), token=token) for _ in range(3)]
        assert [answer.status_code for answer in first] == [200] * 3
        assert first[0].json() == {
            "license": {"type": "enterprise"},
            "customer": {
                "customer_id": None,
                "has_active_subscription": False,
                "billing_period": None,
                "free_trial_until": None,
                "usage_summary": {},
                "never_drop_data": False,
                "customer_trust_scores": {},
                "available_product_features": [],
                "products": None,
            },
        }

        async def waits() -> bool:
            return await parked(running) == [("early", "unknown_organization")]

        await running.until(waits)
        await running.customer("early", license_id="license-3", license_type="enterprise")
        await running.until(in_use(running))
        assert await parked(running) == []
        full = (await running.post(daily(organization_id="early"), token=token)).json()
        assert set(full["customer"]) == set(first[0].json()["customer"])
        assert full["customer"]["usage_summary"]["events"] == {"usage": 120, "limit": 5_000}
        kept = (await running.client.get("/v1/usage/early/reports", headers=OPERATOR)).json()["results"]
        assert {entry["intake"] for entry in kept} == {"http"}
        assert orjson.loads(await body_of(running, kept[0]["id"])) == daily(organization_id="early")


async def body_of(running: Running, report_id: int) -> bytes:
    shown = await running.client.get(f"/v1/usage/early/reports/{report_id}", headers=OPERATOR)
    return base64.b64decode(shown.json()["body_base64"])


async def test_an_early_report_enters_only_for_the_license_of_its_organization(settings):
    """K15, L18: whom a report may speak for is decided when it enters."""
    async with run(settings) as running:
        for license_id in ("license-3", "license-4"):
            await own_license(running, license_id)
        stranger = license_token("early", id="license-4")
        body = daily(organization_id="early", event_count_in_period=999, teams={"7": {"event_count_in_period": 999}})
        assert (await running.post(body, token=stranger)).status_code == 200
        mine = license_token("early", id="license-3")
        assert (await running.post(daily(organization_id="early"), token=mine)).status_code == 200
        await running.customer("early", license_id="license-3", license_type="enterprise")
        await running.until(in_use(running))

        async def refused() -> bool:
            return await parked(running) == [("early", "permission_denied")]

        await running.until(refused)
        assert running.events("early") == (120, 0, 120)
        database = Database(settings.database_url, pool_size=1)

        async def only_own_teams() -> bool:
            async with database.begin() as transaction:
                teams = await transaction.connection.scalars(text("select distinct team_id from team_windows"))
                return list(teams) == ["1"]

        await running.until(only_own_teams)
        await database.close()
        # Now it is somebody's: said at once.
        assert (await running.post(body, token=stranger)).status_code == 403


async def test_what_a_stranger_can_make_us_keep_is_bounded(settings):
    """K15, L17: forty reports per license of an instance, and none once it has its one organization."""
    async with run(settings) as running:
        await own_license(running, "license-3")
        token = license_token("early", id="license-3")
        for number in range(40):
            body = daily(organization_id="early", event_count_in_period=number)
            assert (await running.post(body, token=token)).status_code == 200
        full = await running.post(daily(organization_id="early", event_count_in_period=41), token=token)
        assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (429, "too_many_reports", "60")
        assert (await running.post(body, token=token)).status_code == 200, "kept already"
        bad = await running.post(daily(organization_id="early", event_count_in_period=-1), token=token)
        assert (bad.status_code, bad.json()["attr"]) == (400, "event_count_in_period")

        await running.customer("mine", license_id="license-3", license_type="enterprise")
        await running.known("mine")
        other = daily(organization_id="other")
        assert (await running.post(other, token=license_token("other", id="license-3"))).status_code == 403


async def test_a_token_of_a_license_that_was_just_issued_waits_for_its_key(settings):
    """K15: the first calls after signup got 401, since the key travels for a moment."""
    async with run(settings) as running:
        asked = running.post(daily(organization_id="early"), token=license_token("early", id="license-3"))
        posting = asyncio.create_task(asked)
        await asyncio.sleep(0.2)
        await own_license(running, "license-3")
        assert (await posting).status_code == 200
        began = time.monotonic()
        unknown = await running.post(daily(organization_id="early"), token=license_token("early", id="license-9"))
        assert (unknown.status_code, unknown.json()["code"]) == (401, "authentication_failed")
        assert 0.9 < time.monotonic() - began < 3


async def test_a_report_is_answered_once_kafka_has_its_snapshot(settings):
    """D16: what the answer says must be in Kafka, so that the next GET can wait for it."""
    async with run(settings) as running:
        await running.customer()
        await running.known()
        for events in range(100, 120):
            assert (await running.post(daily(event_count_in_period=events))).status_code == 200
            topic_end = await end_of_snapshots(running)
            await running.until(lambda end=topic_end: position_of_output(running, end))
            assert running.events() == (events, 0, events)


async def end_of_snapshots(running: Running) -> int:
    partition = TopicPartition(topics.PERIOD_USAGE.name, 0)
    return (await running.output.end_offsets([partition]))[partition]


async def position_of_output(running: Running, end: int) -> bool:
    return await running.output.position(TopicPartition(topics.PERIOD_USAGE.name, 0)) >= end


async def test_reports_are_answered_in_time_while_kafka_is_silent(settings, monkeypatch):
    """D16: a report waited 30 s behind the publication of the one before it, which held its organization."""
    async with run(settings) as running:
        await running.customer()
        await running.known()
        is_silent = asyncio.Event()
        publish = KafkaPublisher.publish_all
        ours = running.publisher

        async def publish_when_heard(publisher: KafkaPublisher, messages: Any) -> None:
            while publisher is not ours and is_silent.is_set():
                await asyncio.sleep(0.05)
            await publish(publisher, messages)

        monkeypatch.setattr(KafkaPublisher, "publish_all", publish_when_heard)
        is_silent.set()
        for events in range(100, 106):
            began = time.monotonic()
            answer = await running.post(daily(event_count_in_period=events))
            assert answer.json()["customer"]["usage_summary"]["events"]["usage"] == events
            assert time.monotonic() - began < 2.5
        assert running.events() is None
        is_silent.clear()
        await running.until(lambda: running.events() == (105, 0, 105))
        revisions = [snapshot.revision for snapshot in running.snapshots["acme"]]
        assert revisions == sorted(revisions)
