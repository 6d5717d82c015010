"""A migrated database per test, a region that speaks SQS and S3, and the whole service between them and Kafka."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.publisher import KafkaPublisher, Outgoing
from quill_runtime.sealing import Sealer
from quill_stack.ports import free_port
from quill_usage_ingest.app import build
from quill_usage_ingest.settings import UsageIngestSettings

SOURCE = "eu"
BUCKET = "reports"
SEALING_KEYS = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()
SECRET = b"s" * 64
TOKEN = "operator-token"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
COUNTERS = {"events": "event_count_in_period", "recordings": "recording_count_in_period"}
OURS = tuple(each for each in topics.TOPICS if "usage-ingest" in each.producer or "usage-ingest" in each.readers)


@pytest.fixture(scope="session")
def migrated_template() -> dict[str, str]:
    return {}


@pytest.fixture
async def migrated_url(create_database: Callable[..., str], migrated_template: dict[str, str]) -> str:
    if "name" not in migrated_template:
        url = create_database()
        await migrate(url, (runtime_history(), service_history("quill_usage_ingest")))
        migrated_template["name"] = url.rsplit("/", 1)[1].split("?")[0]
    return create_database(template=migrated_template["name"])


@pytest.fixture
def migrated_urls(create_database: Callable[..., str], migrated_template: dict[str, str]) -> Callable[[], str]:
    """For tests that are not asynchronous themselves: a fresh migrated database at each call."""
    if "name" not in migrated_template:
        url = create_database()
        asyncio.run(migrate(url, (runtime_history(), service_history("quill_usage_ingest"))))
        migrated_template["name"] = url.rsplit("/", 1)[1].split("?")[0]
    return lambda: create_database(template=migrated_template["name"])


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, pool_size=8)
    yield database
    await database.close()


@dataclass
class Region:
    """A region as PostHog runs it: a queue per generation and a bucket of chunk files."""

    address: str
    sqs: Any
    s3: Any
    v1: str
    v2: str

    async def send_v1(self, report: Mapping[str, Any], **outer: Any) -> None:
        """One organization's report: base64 of gzip of the envelope."""
        envelope = {"organization_id": report["organization_id"], "usage_report": report, **outer}
        await self.send_packed(gzip.compress(orjson.dumps(envelope)))

    async def send_packed(self, packed: bytes) -> None:
        await self.send_body(base64.b64encode(packed).decode())

    async def send_body(self, body: str, *, encoding: str | None = "gzip") -> None:
        attributes = {"content_type": {"DataType": "String", "StringValue": "application/json"}}
        if encoding is not None:
            attributes["content_encoding"] = {"DataType": "String", "StringValue": encoding}
        await self.sqs.send_message(QueueUrl=self.v1, MessageBody=body, MessageAttributes=attributes)

    async def write_run(
        self,
        run_id: str,
        *,
        day: datetime,
        started: datetime,
        chunks: Sequence[Sequence[Mapping[str, Any] | bytes]],
        completeness: str = "complete",
        manifest: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Chunks and manifest of a run; returns its pointer. A line given as bytes is written as it is."""
        prefix = f"billing/usage_reports/{day.date()}/{run_id}/"
        keys = [f"{prefix}chunk_{number:04d}.jsonl.gz" for number in range(len(chunks))]
        for key, reports in zip(keys, chunks, strict=True):
            lines = [each if isinstance(each, bytes) else line_of(each) for each in reports]
            await self.put(key, gzip.compress(b"\n".join(lines) + b"\n", compresslevel=1))
        pointer = {
            "version": 2,
            "run_id": run_id,
            "date": day.date().isoformat(),
            "period_start": day.isoformat(),
            "period_end": (day + timedelta(days=1, microseconds=-1)).isoformat(),
            "report_completeness": completeness,
            "region": SOURCE.upper(),
            "site_url": "https://eu.example.test",
            "bucket": BUCKET,
            "manifest_key": f"{prefix}manifest.json",
            "chunk_prefix": prefix,
            "chunk_count": len(chunks),
            "total_orgs": sum(len(reports) for reports in chunks),
            "total_orgs_with_usage": sum(len(reports) for reports in chunks),
            "workflow_started_at": started.isoformat(),
        }
        await self.put(pointer["manifest_key"], orjson.dumps({**pointer, "chunk_keys": keys, **(manifest or {})}))
        return pointer

    async def put(self, key: str, content: bytes) -> None:
        await self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)

    async def remove(self, key: str) -> None:
        await self.s3.delete_object(Bucket=BUCKET, Key=key)

    async def point(self, pointer: Mapping[str, Any] | str) -> None:
        body = pointer if isinstance(pointer, str) else orjson.dumps(pointer).decode()
        await self.sqs.send_message(QueueUrl=self.v2, MessageBody=body)

    async def left(self) -> int:
        """Messages in both queues, handed out ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = 0
        for url in (self.v1, self.v2):
            answer = await self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
            found += sum(int(count) for count in answer["Attributes"].values())
        return found


def line_of(report: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"organization_id": report["organization_id"], "usage_report": report})


@pytest.fixture
async def region(queues: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Region]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    session = get_session()
    given = {"region_name": "us-east-1", "endpoint_url": queues}
    async with session.create_client("sqs", **given) as sqs, session.create_client("s3", **given) as s3:
        urls = [
            (
                await sqs.create_queue(
                    QueueName=f"usage_reports_{generation}_{time.monotonic_ns()}",
                    Attributes={"VisibilityTimeout": "1"},
                )
            )["QueueUrl"]
            for generation in ("v1", "v2")
        ]
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
            await s3.create_bucket(Bucket=BUCKET)
        yield Region(queues, sqs, s3, *urls)


@pytest.fixture
def intake_settings(migrated_url: str, kafka: Any, region: Region) -> UsageIngestSettings:
    """Every intake is on: Kafka, HTTP, both queues."""
    kafka.create_topics({topic.name: 1 for topic in OURS} | {topic.dead: 1 for topic in OURS})
    return UsageIngestSettings(
        database_url=migrated_url,
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        quill_sealing_keys=SEALING_KEYS,
        quill_api_tokens=f"ops:operator:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
        quill_kafka_group_prefix="test-",
        usage_queue_v1_url=region.v1,
        usage_queue_v2_url=region.v2,
        usage_queue_source=SOURCE,
        usage_buckets=BUCKET,
        aws_endpoint_url=region.address,
    )


@dataclass
class Platform:
    """The running service with both ends of its topics in hand."""

    client: httpx.AsyncClient
    publisher: KafkaPublisher
    output: AIOKafkaConsumer
    region: Region
    anchor: datetime
    snapshots: dict[str, PeriodUsageSnapshot] = field(default_factory=dict)

    async def send(self, topic: Topic, key: str, *values: bytes) -> None:
        await self.publisher.publish_all([Outgoing(topic.name, key, value) for value in values])

    async def customers(self, *organization_ids: str) -> None:
        """Make customers known, and wait until they are."""
        for organization_id in organization_ids:
            snapshot = customer(organization_id, self.anchor)
            await self.send(topics.CUSTOMERS, organization_id, snapshot.to_bytes())

        async def look() -> bool:
            paths = [f"/v1/usage/{organization_id}" for organization_id in organization_ids]
            return all([(await self.client.get(path, headers=OPERATOR)).status_code == 200 for path in paths])

        await self.until(look)

    async def post(self, report: Mapping[str, Any] | bytes, *, organization_id: str | None = None) -> httpx.Response:
        """As a license of the region would: ``POST /api/usage``."""
        named = organization_id or report["organization_id"]  # type: ignore[index,call-overload]
        claims = {"id": "license-1", "organization_id": named, "aud": "posthog:license-key"}
        token = jwt.encode({**claims, "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")
        content = report if isinstance(report, bytes) else orjson.dumps(report)
        return await self.client.post("/api/usage", content=content, headers={"Authorization": f"Bearer {token}"})

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.client.get(path, params=query, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def letters(self, **query: Any) -> list[dict[str, Any]]:
        return (await self.get("/v1/dead-letters", limit=500, **query))["results"]

    async def replay(self, letter_id: int) -> None:
        answer = await self.client.post(f"/v1/dead-letters/{letter_id}/replay", headers=OPERATOR)
        assert answer.status_code == 200, answer.text

    async def read(self) -> None:
        for records in (await self.output.getmany(timeout_ms=50)).values():
            for record in records:
                snapshot = PeriodUsageSnapshot.from_bytes(record.value)
                self.snapshots[snapshot.organization_id] = snapshot

    def events(self, organization_id: str = "acme") -> tuple[int, int, int] | None:
        """Complete, partial and maximum events of the newest published period."""
        held = self.snapshots.get(organization_id)
        usage = held.periods[-1].meters.get("events") if held and held.periods else None
        return (usage.complete, usage.partial, usage.maximum) if usage else None

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

    async def drained(self) -> None:
        """Until the queues are empty and nothing waits in Kafka."""

        async def look() -> bool:
            if await self.region.left():
                return False
            lag = (await self.get("/health/ready"))["consumer_lag_records"]
            runs = (await self.get("/v1/report-runs"))["results"]
            return not sum(lag.values()) and all(run["state"] != "due" for run in runs)

        for _ in range(2):
            await self.until(look)
            await asyncio.sleep(0.3)


RunPlatform = Callable[..., AbstractAsyncContextManager[Platform]]


@pytest.fixture
def platform(region: Region) -> RunPlatform:
    """``async with platform(settings) as running``: the service in this process."""

    @asynccontextmanager
    async def run(settings: UsageIngestSettings) -> AsyncIterator[Platform]:
        service = build(settings)
        async with service.running():
            transport = httpx.ASGITransport(service.app)
            async with (
                httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client,
                outside(settings, client, region) as running,
            ):
                yield running

    return run


@pytest.fixture
def around(region: Region) -> RunPlatform:
    """``async with around(settings, client) as running``: the service runs elsewhere."""
    return lambda settings, client: outside(settings, client, region)


@asynccontextmanager
async def outside(settings: UsageIngestSettings, client: httpx.AsyncClient, region: Region) -> AsyncIterator[Platform]:
    """What stands around a running service: license, catalog, and a reader of its snapshots."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers)
    output = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await output.start()
    try:
        output.assign([TopicPartition(topics.PERIOD_USAGE.name, 0)])
        running = Platform(client, publisher, output, region, today - timedelta(days=20))
        await running.send(topics.LICENSES, "license-1", a_license())
        for meter, counter in COUNTERS.items():
            await running.send(topics.CATALOG, meter, product(meter, counter))

        async def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/health/ready")).status_code == 200
            return False

        await running.until(is_ready)
        yield running
    finally:
        await output.stop()
        await publisher.stop()


@dataclass
class ServiceProcess:
    """The service as a process of its own, to be killed."""

    process: subprocess.Popen[bytes]
    address: str

    def kill(self) -> None:
        """SIGKILL: no drain, no release, nothing."""
        self.process.kill()
        self.process.wait(timeout=10)


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """``spawn(settings)``: ``python -m quill_usage_ingest serve``; ended with the test."""
    made: list[ServiceProcess] = []

    def start(settings: UsageIngestSettings, **changed: str) -> ServiceProcess:
        port = free_port()
        environment = {
            name.upper(): str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
            for name, value in dict(settings).items()
            if value is not None
        }
        environment |= {"HTTP_PORT": str(port), "QUILL_INSTANCE_ID": str(len(made)), **changed}
        with (tmp_path / f"service-{len(made)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "quill_usage_ingest", "serve"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )
        made.append(ServiceProcess(process, f"http://127.0.0.1:{port}"))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.kill()


def customer(organization_id: str, anchor: datetime) -> CustomerSnapshot:
    return CustomerSnapshot.model_validate(
        {
            "organization_id": organization_id,
            "customer_id": f"customer-of-{organization_id}",
            "revision": 1,
            "effective_at": anchor,
            "license_id": "license-1",
            "license_type": "cloud",
            "schedule": {"anchor": anchor, "interval": "month"},
            "period": {"start": anchor, "end": anchor + timedelta(days=28)},
            "has_active_subscription": True,
            "items": [],
            "trust_scores": {},
            "features": [],
        }
    )


def product(meter: str, counter: str) -> bytes:
    return CatalogProduct.model_validate(
        {
            "product_key": f"product_{meter}",
            "revision": 1,
            "effective_at": datetime(2026, 1, 1, tzinfo=UTC),
            "name": meter,
            "usage_key": meter,
            "counter": counter,
            "price_id": "standard",
            "price": {"model": "per_unit", "unit_amount": "0.01"},
        }
    ).to_bytes()


def a_license() -> bytes:
    return License.model_validate(
        {
            "license_id": "license-1",
            "revision": 1,
            "type": "cloud",
            "status": "active",
            "sealed_secret": Sealer.parse(SEALING_KEYS).seal(SECRET, context="license-1"),
            "source": SOURCE,
            "issued_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
    ).to_bytes()
