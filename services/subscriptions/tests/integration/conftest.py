"""A migrated database per test, each store by name, and the whole service on real stores."""

import asyncio
import base64
import gzip
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiobotocore.session import get_session
from aiokafka import AIOKafkaConsumer
from quill_contracts import topics
from quill_contracts.licenses import License
from quill_contracts.message import Message
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import KafkaPublisher, Outgoing
from quill_runtime.sealing import Sealer
from quill_stack.kafka import TopicSpec
from quill_subscriptions.app import build
from quill_subscriptions.domain.catalog import Catalog
from quill_subscriptions.settings import SubscriptionsSettings
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.store.postgres import PostgresSubscriptions
from quill_subscriptions.usecases.catalog import put_catalog_in_force

OPERATOR_TOKEN = "quill_op_test"
SEALING_KEYS = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="session")
def migrated_template() -> dict[str, str]:
    return {}


@pytest.fixture
async def migrated_url(create_database: Callable[..., str], migrated_template: dict[str, str]) -> str:
    if "name" not in migrated_template:
        url = create_database()
        await migrate(url, (runtime_history(), service_history("quill_subscriptions")))
        migrated_template["name"] = url.rsplit("/", 1)[1].split("?")[0]
    return create_database(template=migrated_template["name"])


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, pool_size=8)
    yield database
    await database.close()


@pytest.fixture
async def postgres_store(database: Database, catalog: Catalog, now: datetime) -> PostgresSubscriptions:
    store = PostgresSubscriptions(database, Outbox())
    await store.run(lambda tx: put_catalog_in_force(catalog, tx=tx, now=now))
    return store


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest) -> MemorySubscriptions | PostgresSubscriptions:
    """The same behaviour on both stores."""
    return request.getfixturevalue(f"{request.param}_store")


@dataclass
class Running:
    """The service on real stores, and a license it learned of from Kafka."""

    http: httpx.AsyncClient
    publisher: KafkaPublisher
    bootstrap_servers: str
    license_id: str
    secret: bytes
    organization_id: str

    @property
    def operator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {OPERATOR_TOKEN}"}

    def signed(self, organization_id: str | None = None, **claims: Any) -> dict[str, str]:
        body = {
            "aud": "posthog:license-key",
            "id": self.license_id,
            "organization_id": organization_id or self.organization_id,
            "exp": int((datetime.now(UTC) + timedelta(minutes=15)).timestamp()),
            **claims,
        }
        return {"Authorization": f"Bearer {jwt.encode(body, self.secret, algorithm='HS256')}"}

    async def publish(self, topic: str, key: str, message: Message) -> None:
        await self.publisher.publish_all([Outgoing(topic, key, message.to_bytes())])

    async def published(self, topic: str, key: str, count: int) -> list[bytes]:
        """The first ``count`` values under a key, or as many as arrive in time."""
        reader = AIOKafkaConsumer(
            topic, bootstrap_servers=self.bootstrap_servers, group_id=None, auto_offset_reset="earliest"
        )
        await reader.start()
        try:
            found: list[bytes] = []
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(found) < count:
                    for records in (await reader.getmany(timeout_ms=200)).values():
                        found += [record.value for record in records if record.key == key.encode()]
            return found
        finally:
            await reader.stop()

    async def until(self, answers: Callable[[], Any]) -> Any:
        """What ``answers`` gives once it is true; it is asked until then."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := await answers()):
                await asyncio.sleep(0.05)
        return found


@dataclass
class Region:
    """A region's end of its queue, read as PostHog's consumer reads it."""

    address: str
    sqs: Any
    url: str

    async def heard(self, *, seconds: float = PATIENCE_SECONDS) -> list[dict[str, Any]]:
        """The next messages, unpacked and deleted; none if none comes in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = await self.sqs.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
            )
            found = answer.get("Messages", [])
            for each in found:
                await self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=each["ReceiptHandle"])
            if found:
                return [self._unpacked(each) for each in found]
            await asyncio.sleep(0.02)
        return []

    @staticmethod
    def _unpacked(message: dict[str, Any]) -> dict[str, Any]:
        encoding = message["MessageAttributes"].get("content_encoding", {}).get("StringValue")
        body = message["Body"].encode()
        plain = gzip.decompress(base64.b64decode(body)) if encoding == "gzip" else body
        return {**json.loads(plain), "is_packed": encoding == "gzip"}


@pytest.fixture
async def region(queues: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Region]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    async with get_session().create_client("sqs", region_name="us-east-1", endpoint_url=queues) as sqs:
        made = await sqs.create_queue(QueueName=f"billing-to-posthog-{time.monotonic_ns()}")
        yield Region(queues, sqs, made["QueueUrl"])


@pytest.fixture
def run_service(stores: Any, migrated_url: str) -> Any:
    """``async with run_service(catalog_file=…) as running``: the real service, asked without a socket of its own."""
    names = (topics.LICENSES, topics.CUSTOMERS, topics.CATALOG, topics.PERIOD_USAGE, topics.LIMIT_TRANSITIONS)
    stores.create_topics(TopicSpec(name, 1, {}) for topic in names for name in (topic.name, topic.dead))
    unique = migrated_url.rsplit("/", 1)[1]

    @asynccontextmanager
    async def run(
        *, license_type: str = "cloud", catalog_file: Path | None = None, region: Region | None = None, **more: Any
    ) -> AsyncIterator[Running]:
        license_id = f"lic-{unique}".replace("_", "-")
        if region is not None:
            more |= {"billing_updates_queues": f"{license_id}={region.url}", "aws_endpoint_url": region.address}
        settings = SubscriptionsSettings(
            database_url=migrated_url,
            kafka_bootstrap_servers=stores.kafka_bootstrap_servers,
            quill_kafka_group_prefix=f"{unique}.",
            quill_sealing_keys=SEALING_KEYS,
            quill_api_tokens=f"anna:operator:{hashlib.sha256(OPERATOR_TOKEN.encode()).hexdigest()}",
            catalog_file=catalog_file,
            refresh_seconds=0.2,
            catalog_check_seconds=0.2,
            **more,
        )
        publisher = KafkaPublisher(stores.kafka_bootstrap_servers)
        await publisher.start()
        secret = f"secret-of-{unique}-that-is-long-enough".encode()
        sealed = Sealer.parse(SEALING_KEYS).seal(secret, context=license_id)
        issued = License(
            license_id=license_id,
            revision=1,
            type=license_type,
            status="active",
            sealed_secret=sealed,
            source="eu",
            issued_at=datetime.now(UTC),
        )
        await publisher.publish_all([Outgoing(topics.LICENSES.name, license_id, issued.to_bytes())])
        service = build(settings)
        transport = httpx.ASGITransport(service.app)
        try:
            async with (
                service.running(),
                httpx.AsyncClient(transport=transport, base_url="http://subscriptions") as client,
            ):
                running = Running(
                    client, publisher, stores.kafka_bootstrap_servers, license_id, secret, f"org-{unique}"
                )

                async def knows_keys() -> bool:
                    report = (await client.get("/health/ready")).json()
                    return bool(report["checks"]["keys"] == "ok")

                await running.until(knows_keys)
                yield running
        finally:
            await publisher.stop()

    return run
