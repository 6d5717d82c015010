"""Meter events on real Kafka and Postgres: in over both doors, out in the one snapshot (L1-L5, L18)."""

import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from quill_contracts import topics
from quill_contracts.licenses import License
from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot
from quill_runtime.publisher import KafkaPublisher, Outgoing, PublishFailed
from quill_runtime.sealing import Sealer
from quill_usage_ingest.app import build
from quill_usage_ingest.settings import UsageIngestSettings

pytestmark = pytest.mark.integration

SEALING_KEYS = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()
SECRET = b"s" * 64
OPERATOR = {"Authorization": "Bearer operator-token"}
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
ANCHOR = TODAY - timedelta(days=20)
YESTERDAY = TODAY - timedelta(days=1)
PRICE = {"model": "per_unit", "unit_amount": "0.01"}


def product(key: str, *, revision: int = 1, **feed: Any) -> bytes:
    fields = {"product_key": key, "revision": revision, "effective_at": ANCHOR, "name": key, "usage_key": key}
    return CatalogProduct.model_validate({**fields, "price_id": "p", "price": PRICE, **feed}).to_bytes()


def customer(organization_id: str = "acme", revision: int = 1, **changed: Any) -> bytes:
    fields = {
        "organization_id": organization_id,
        "customer_id": f"customer-of-{organization_id}",
        "revision": revision,
        "effective_at": ANCHOR,
        "license_id": f"license-of-{organization_id}",
        "license_type": "cloud",
        "schedule": {"anchor": ANCHOR, "interval": "month"},
        "period": {"start": ANCHOR, "end": ANCHOR + timedelta(days=28)},
        "has_active_subscription": True,
        "items": [],
    }
    return CustomerSnapshot.model_validate({**fields, **changed}).to_bytes()


def token(license_id: str = "license-of-acme", organization_id: str = "acme") -> dict[str, str]:
    claims = {"id": license_id, "organization_id": organization_id, "aud": "posthog:license-key"}
    return {"Authorization": f"Bearer {jwt.encode({**claims, 'exp': int(time.time()) + 600}, SECRET, 'HS256')}"}


def call(event_id: str, organization_id: str = "acme", *, at: datetime = YESTERDAY, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "gateway",
        "type": "call",
        "subject": organization_id,
        "time": at.isoformat(),
        "data": {"seconds": "1.250", "model": "large", "user": event_id, **data},
    }


COMPUTE = {
    "event_meter": {
        "type": "call",
        "aggregation": "sum",
        "value": "seconds",
        "group_by": ["model"],
        "decimals": 3,
    }
}
USERS = {"event_meter": {"type": "call", "aggregation": "unique_count", "value": "user", "group_by": ["model"]}}


class Running:
    def __init__(self, client: httpx.AsyncClient, publisher: KafkaPublisher, output: AIOKafkaConsumer) -> None:
        self.client = client
        self.publisher = publisher
        self.output = output
        self.snapshots: dict[str, list[PeriodUsageSnapshot]] = {}

    async def send(self, topic: topics.Topic, key: str, *values: bytes) -> None:
        await self.publisher.publish_all([Outgoing(topic.name, key, value) for value in values])

    async def events(self, *events: dict[str, Any]) -> None:
        for event in events:
            await self.send(topics.METER_EVENTS, event["subject"], orjson.dumps(event))

    async def post(self, body: Any, *, media: str = "application/json", headers: dict[str, str] = OPERATOR) -> Any:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.client.post("/v1/meter-events", content=content, headers={**headers, "Content-Type": media})

    async def get(self, path: str, headers: dict[str, str] = OPERATOR, **query: Any) -> Any:
        return await self.client.get(path, headers=headers, params=query)

    async def until(self, look: Any, *, seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            for records in (await self.output.getmany(timeout_ms=50)).values():
                for record in records:
                    snapshot = PeriodUsageSnapshot.from_bytes(record.value)
                    self.snapshots.setdefault(snapshot.organization_id, []).append(snapshot)
            found = look()
            if hasattr(found, "__await__"):
                found = await found
            if found:
                return found
            assert time.monotonic() < deadline, f"waited too long; snapshots so far: {self.snapshots}"

    def used(self, organization_id: str = "acme") -> dict[str, tuple[int, int, int]]:
        held = self.snapshots.get(organization_id)
        if not held or not held[-1].periods:
            return {}
        newest = held[-1].periods[-1].meters
        return {meter: (usage.complete, usage.partial, usage.maximum) for meter, usage in newest.items()}

    async def letters(self) -> list[tuple[str, str | None]]:
        found = (await self.get("/v1/dead-letters")).json()["results"]
        return [(letter["reason_code"], letter["attribute"]) for letter in found]


@pytest.fixture
def settings(migrated_url: str, kafka: Any) -> UsageIngestSettings:
    ours = [topic for topic in topics.TOPICS if "usage-ingest" in topic.producer or "usage-ingest" in topic.readers]
    kafka.create_topics({topic.name: 1 for topic in ours} | {topic.dead: 1 for topic in ours})
    return UsageIngestSettings(
        database_url=migrated_url,
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        quill_sealing_keys=SEALING_KEYS,
        quill_api_tokens=f"ops:operator:{hashlib.sha256(b'operator-token').hexdigest()}",
        quill_kafka_group_prefix="test-",
    )


@asynccontextmanager
async def run(settings: UsageIngestSettings, before: Any = lambda _service: None) -> AsyncIterator[Running]:
    service = build(settings)
    before(service)
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers)
    output = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
    async with contextlib.AsyncExitStack() as stack:
        transport = httpx.ASGITransport(service.app)
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30)
        )
        await output.start()
        stack.push_async_callback(publisher.stop)
        stack.push_async_callback(output.stop)
        output.assign([TopicPartition(topics.PERIOD_USAGE.name, 0)])
        await output.seek_to_beginning()
        await stack.enter_async_context(service.running())
        running = Running(client, publisher, output)
        for license_id in ("license-of-acme", "license-of-globex", "further"):
            sealed = Sealer.parse(SEALING_KEYS).seal(SECRET, context=license_id)
            fields = {"license_id": license_id, "revision": 1, "type": "cloud", "status": "active", "source": "eu"}
            license_ = License.model_validate({**fields, "sealed_secret": sealed, "issued_at": ANCHOR})
            await running.send(topics.LICENSES, license_id, license_.to_bytes())

        async def ready() -> bool:
            return (await client.get("/health/ready")).status_code == 200

        await running.until(ready)
        yield running


async def known(running: Running, organization_id: str = "acme", **changed: Any) -> None:
    await running.send(topics.CUSTOMERS, organization_id, customer(organization_id, **changed))

    async def look() -> bool:
        return (await running.get(f"/v1/usage/{organization_id}")).status_code == 200

    await running.until(look)


async def test_events_come_in_over_kafka_and_out_in_the_snapshot_beside_reports(settings):
    async with run(settings) as running:
        await known(running)
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        await running.send(topics.CATALOG, "users", product("users", **USERS))
        await running.send(topics.CATALOG, "rows", product("rows", counter="rows_in_period", counts_from=YESTERDAY))
        first = call("1")
        await running.events(first, call("2", seconds=2), first, call("3", user="2", model="small"))
        await running.until(lambda: running.used() == {"compute": (4_500, 0, 4_500), "users": (2, 0, 2)})
        for day, count in ((YESTERDAY - timedelta(days=1), 900), (YESTERDAY, 70)):
            await running.send(
                topics.USAGE_REPORTS,
                "acme",
                orjson.dumps(
                    {
                        "report_id": day.isoformat(),
                        "source": "us",
                        "organization_id": "acme",
                        "window_start": day,
                        "window_end": day + timedelta(days=1),
                        "completeness": "complete",
                        "as_of": TODAY,
                        "counters": {"rows_in_period": count},
                    }
                ),
            )
        await running.until(lambda: running.used().get("rows") == (70, 0, 70))
        assert running.used()["compute"] == (4_500, 0, 4_500)
        revisions = [snapshot.revision for snapshot in running.snapshots["acme"]]
        assert revisions == sorted(revisions)

        explained = (await running.get("/v1/usage/acme/explain", meter="rows")).json()
        assert (explained["usage"]["to_date"], explained["is_equal"]) == (70, True)
        assert datetime.fromisoformat(explained["counts_from"]) == YESTERDAY
        assert "do not count for this meter" in explained["sentence"]
        dated = (await running.get("/v1/usage/acme", meter="rows", interval="week")).json()
        assert [cell["quantity"] for cell in dated["cells"]] == [70]
        assert [line["total"] for line in dated["series"]["series"]] == [70]

        shown = (await running.get("/v1/usage/acme")).json()["periods"][0]["meters"]
        assert {meter: usage["complete"] for meter, usage in shown.items()} == {
            "compute": 4_500,
            "users": 2,
            "rows": 70,
        }


async def test_poison_is_parked_by_attribute_and_its_neighbours_count(settings):
    async with run(settings) as running:
        await known(running)
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        await running.events(call("0"))
        await running.until(lambda: running.used() == {"compute": (1_250, 0, 1_250)})
        await running.send(topics.METER_EVENTS, "acme", b"not json", b'{"a":' * 20_000)
        far = TODAY + timedelta(days=5)
        await running.events(
            call("1", seconds="1.2345"),
            call("2", seconds=-1),
            {**call("3"), "time": "yesterday"},
            call("4", at=far),
            call("0", seconds=9),
            call("5", "nobody"),
            call("6", seconds=3),
        )
        await running.until(lambda: running.used() == {"compute": (4_250, 0, 4_250)})
        assert sorted(await running.letters(), key=repr) == sorted(
            [
                ("not_json", None),
                ("event_too_large", None),
                ("unfit_event", "data__seconds"),
                ("unfit_event", "data__seconds"),
                ("invalid_input", "time"),
                ("time_in_the_future", "time"),
                ("conflicting_event", "id"),
                ("unknown_organization", "subject"),
            ],
            key=repr,
        )
        await running.send(topics.CUSTOMERS, "nobody", customer("nobody"))
        await running.until(lambda: running.used("nobody") == {"compute": (1_250, 0, 1_250)})


async def test_a_crash_between_commit_and_publishing_is_healed_by_the_redelivery(settings):
    failures = [PublishFailed("the broker went away")]

    def fail_once(service: Any) -> None:
        publisher = next(part for part in service.components if isinstance(part, KafkaPublisher))
        publish_all = publisher.publish_all

        async def publish_or_fail(messages: Any) -> None:
            if failures and any(message.topic == topics.PERIOD_USAGE.name for message in messages):
                raise failures.pop()
            await publish_all(messages)

        publisher.publish_all = publish_or_fail

    async with run(settings, fail_once) as running:
        await known(running)
        await running.events(call("0"), call("1"))

        async def kept() -> bool:
            return len((await running.get("/v1/meter-events", organization_id="acme")).json()["results"]) == 2

        await running.until(kept)
        # A type no meter knew is counted when one comes.
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        await running.until(lambda: running.used() == {"compute": (2_500, 0, 2_500)})
        assert failures == []


async def test_over_http_each_event_is_answered_and_durable(settings):
    async with run(settings) as running:
        await known(running)
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        await running.events(call("0", seconds=0))
        await running.until(lambda: running.used() == {"compute": (0, 0, 0)})
        one = await running.post(call("1"), media="application/cloudevents+json; charset=utf-8")
        assert (one.status_code, one.json()["outcomes"]) == (200, {"accepted": 1, "duplicate": 0, "refused": 0})
        batch = [
            call("1"),
            call("2", seconds=2),
            call("1", seconds=9),
            call("3", seconds="x"),
            {**call("4"), "type": ""},
            call("5", "nobody"),
            7,
        ]
        answer = (await running.post(batch, media="application/cloudevents-batch+json")).json()
        assert answer["outcomes"] == {"accepted": 1, "duplicate": 1, "refused": 5}
        assert [(each["outcome"], each.get("code"), each.get("attr")) for each in answer["results"]] == [
            ("duplicate", None, None),
            ("accepted", None, None),
            ("refused", "conflicting_event", "id"),
            ("refused", "unfit_event", "data__seconds"),
            ("refused", "invalid_input", "type"),
            ("refused", "unknown_organization", "subject"),
            ("refused", "invalid_input", None),
        ]
        assert "send it again" in answer["results"][5]["detail"]
        await running.until(lambda: running.used() == {"compute": (3_250, 0, 3_250)})
        plain = (await running.post([call("2", seconds=2)])).json()
        assert plain["outcomes"]["duplicate"] == 1
        assert (await running.post([])).json()["results"] == []

        broken = await running.post(b"{")
        assert (broken.status_code, broken.json()["code"], broken.json()["attr"]) == (400, "not_json", None)
        refused = await running.post(call("9", seconds=-1))
        assert (refused.status_code, refused.json()["code"], refused.json()["attr"]) == (
            400,
            "unfit_event",
            "data__seconds",
        )
        for body, media, status, code in (
            (b"{", "application/json", 400, "not_json"),
            (b"{}", "application/cloudevents-batch+json", 400, "not_json"),
            ([{}] * 1_001, "application/json", 400, "batch_too_large"),
            (call("1"), "text/plain", 415, "unsupported_media_type"),
        ):
            wrong = await running.post(body, media=media)
            assert (wrong.status_code, wrong.json()["code"]) == (status, code)
        assert (await running.post([call("1")], headers={})).status_code == 401
        assert await running.letters() == []


async def test_a_license_sends_for_its_own_organization_and_no_other(settings):
    async with run(settings) as running:
        await known(running, further_license_ids=["further"])
        await known(running, "globex")
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        mine = token()
        answer = (await running.post([call("1"), call("2", "globex"), call("3", "nobody")], headers=mine)).json()
        assert [each["outcome"] for each in answer["results"]] == ["accepted", "refused", "refused"]
        assert {each.get("code") for each in answer["results"]} == {None, "permission_denied"}
        foreign = await running.post(call("4", "globex"), headers=mine)
        assert (foreign.status_code, foreign.json()["attr"]) == (403, "subject")
        stolen = await running.post(call("4", "globex"), headers=token("license-of-acme", "globex"))
        assert stolen.status_code == 403
        # A further license reports on the account that names it (O3), under whatever organization its token names.
        instance = await running.post(call("5", "instance"), headers=token("further", "instance"))
        assert instance.status_code == 200
        await running.until(lambda: running.used() == {"compute": (2_500, 0, 2_500)})
        assert running.used("globex") == {}
        assert (await running.get("/v1/meter-events", mine, organization_id="globex")).status_code == 403
        shown = (await running.get("/v1/meter-events", mine, organization_id="acme")).json()["results"]
        assert sorted(each["id"] for each in shown) == ["1", "5"]


async def test_kept_events_are_paged_through_by_type_and_time(settings):
    async with run(settings) as running:
        await known(running)
        hours = [YESTERDAY + timedelta(hours=n) for n in range(5)]
        await running.post([call(str(n), at=at, exact=0.1) for n, at in enumerate(hours)])
        await running.post({**call("x"), "type": "other"})
        seen: list[str] = []
        query: dict[str, Any] = {"organization_id": "acme", "type": "call", "limit": 2}
        while True:
            page = (await running.get("/v1/meter-events", **query)).json()
            seen += [each["id"] for each in page["results"]]
            if page["next"] is None:
                break
            query["after"] = page["next"]
        assert seen == ["0", "1", "2", "3", "4"]
        span = {"from": hours[1].isoformat(), "to": hours[3].isoformat()}
        some = (await running.get("/v1/meter-events", organization_id="acme", **span)).json()["results"]
        assert [each["id"] for each in some] == ["1", "2"]
        for wrong in ({"after": "x"}, {"from": "0001-01-01T00:00:00Z"}, {"limit": 501}, {"type": ""}):
            refused = await running.get("/v1/meter-events", organization_id="acme", **wrong)
            assert (refused.status_code, refused.json()["attr"]) == (400, next(iter(wrong)))
        assert (await running.get("/v1/meter-events", organization_id="nobody")).status_code == 404


async def test_a_changed_schedule_moves_event_usage_in_the_snapshot(settings):
    async with run(settings) as running:
        await known(running)
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        await running.events(call("1", at=TODAY - timedelta(days=9)), call("2", seconds=2))
        await running.until(lambda: running.used() == {"compute": (3_250, 0, 3_250)})
        anchor = (TODAY - timedelta(days=4)).isoformat()
        schedule = {"anchor": anchor, "interval": "month"}
        await running.send(topics.CUSTOMERS, "acme", customer(revision=2, schedule=schedule))
        await running.until(lambda: running.used() == {"compute": (2_000, 0, 2_000)})
        periods = running.snapshots["acme"][-1].periods
        assert [period.meters["compute"].complete for period in periods] == [1_250, 2_000]


async def test_a_meter_defined_otherwise_is_counted_anew_and_the_old_numbers_are_removed(settings):
    async with run(settings) as running:
        await known(running)
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        await running.events(call("1"), call("2", seconds=2), call("3", at=YESTERDAY - timedelta(days=3)))
        await running.until(lambda: running.used() == {"compute": (4_500, 0, 4_500)})
        dated = product("compute", revision=2, counts_from=YESTERDAY, **COMPUTE)
        await running.send(topics.CATALOG, "compute", dated)
        await running.until(lambda: running.used() == {"compute": (3_250, 0, 3_250)})
        counted = {"event_meter": {"type": "call", "aggregation": "count"}}
        await running.send(topics.CATALOG, "compute", product("compute", revision=3, **counted))
        await running.until(lambda: running.used() == {"compute": (3, 0, 3)})


async def test_the_number_of_an_event_meter_is_explained_shown_by_group_and_over_time(settings):
    async with run(settings) as running:
        await known(running)
        await running.send(topics.CATALOG, "compute", product("compute", **COMPUTE))
        await running.send(topics.CATALOG, "users", product("users", **USERS))
        before, hour = YESTERDAY - timedelta(days=1), YESTERDAY + timedelta(hours=3)
        await running.events(
            call("1", at=before, seconds=1, user="ada"),
            call("2", at=hour, seconds=2, user="ada"),
            call("3", at=hour + timedelta(minutes=5), seconds=4, user="bob", model="small"),
            call("4", at=hour + timedelta(minutes=9), seconds=8, user="bob", model=None),
        )
        await running.until(lambda: running.used() == {"compute": (15_000, 0, 15_000), "users": (2, 0, 2)})

        explained = (await running.get("/v1/usage/acme/explain", meter="compute")).json()
        assert (explained["usage"]["to_date"], explained["is_equal"], explained["events"]) == (15_000, True, 4)
        assert [(window["quantity"], window["events"]) for window in explained["windows"]] == [(1_000, 1), (14_000, 3)]
        assert explained["windows"][1]["first"] == {"id": "2", "source": "gateway", "time": hour.isoformat()}
        assert explained["windows"][1]["last"]["id"] == "4"
        groups = {group["dimensions"]["model"]: group["quantity"] for group in explained["windows"][1]["groups"]}
        assert groups == {"large": 2_000, "small": 4_000, None: 8_000}
        assert "15,000 compute" in explained["sentence"]
        assert "the sum of seconds of 4 call events in 2 hours, in units of 10^-3" in explained["sentence"]
        early = (await running.get("/v1/usage/acme/explain", meter="compute", at=before.isoformat())).json()
        assert early["known_at"]["to_date"] == 0

        shown = (await running.get("/v1/usage/acme", meter="users", by="model", interval="week")).json()
        assert shown["periods"][0]["meters"] == {"users": {"complete": 2, "partial": 0, "maximum": 2}}
        assert (shown["aggregation"], shown["group_by"]) == ("unique_count", ["model"])
        by_model = {line["key"]: line["total"] for line in shown["series"]["series"]}
        assert by_model == {None: 1, "large": 1, "small": 1}
        daily = (await running.get("/v1/usage/acme", meter="users", interval="day")).json()["series"]["series"]
        assert [line["total"] for line in daily] == [2]
        points = {point["start"]: point["quantity"] for point in daily[0]["points"] if point["quantity"]}
        assert points == {before.date().isoformat(): 1, YESTERDAY.date().isoformat(): 2}
        wrong = await running.get("/v1/usage/acme", meter="users", by="team")
        assert (wrong.status_code, wrong.json()["attr"]) == (400, "by")
        assert "model" in wrong.json()["detail"]

        now = datetime.now(UTC).isoformat()
        known_now = (await running.get("/v1/usage/acme/as-of", at=now)).json()["meters"]
        assert {meter: held["to_date"] for meter, held in known_now.items()} == {"compute": 15_000, "users": 2}
        repaired = (await running.client.post("/v1/usage/acme/recompute", headers=OPERATOR)).json()
        assert repaired["repaired_periods"] == []

        body = orjson.dumps({"organization_id": "acme", "date": YESTERDAY.date().isoformat()})
        answer = await running.client.post("/api/usage", content=body, headers=token())
        summary = answer.json()["customer"]["usage_summary"]
        assert (summary["compute"]["usage"], summary["users"]["usage"]) == (15_000, 2)
