"""The whole service on real Kafka, Postgres and Redis: usage in, limit visible, limit raised, released (L9)."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime

import httpx
import pytest
import redis.asyncio as redis
from quill_contracts import topics
from quill_quota_limiter.app import build
from quill_quota_limiter.settings import QuotaLimiterSettings
from quill_runtime.publisher import KafkaPublisher, Outgoing

pytestmark = pytest.mark.integration

TOKEN = "operator-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def settings(migrated_url, kafka, redis_url, monkeypatch):
    ours = (
        topics.CUSTOMERS,
        topics.PERIOD_USAGE,
        topics.TEAM_USAGE,
        topics.CREDITS,
        topics.LICENSES,
        topics.LIMIT_STATES,
        topics.LIMIT_TRANSITIONS,
        topics.LIMIT_THRESHOLDS,
    )
    kafka.create_topics({topic.name: 1 for topic in ours} | {topic.dead: 1 for topic in ours})
    return QuotaLimiterSettings(
        database_url=migrated_url,
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        redis_url=redis_url,
        quill_sealing_keys="k1:" + "A" * 43,
        quill_api_tokens=f"ops:operator:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
        quill_kafka_group_prefix="test-",
    )


async def wait_until(look, *, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.05)
    return found


async def test_usage_above_the_quota_limits_and_a_raised_limit_releases_at_once(
    settings, customer_snapshot, usage_snapshot, team_usage_snapshot
):
    service = build(settings)
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers)
    store = redis.Redis.from_url(settings.redis_url, decode_responses=True)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://test", headers=HEADERS)
    now = datetime.now(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)

    async def send(topic, message):
        key = message.key if topic is topics.TEAM_USAGE else message.organization_id
        await publisher.publish_all([Outgoing(topic.name, key, message.to_bytes())])

    async def answer():
        return (await client.get("/v1/quota/acme/events")).json()

    async def answered(**expected):
        found = await answer()
        return found if all(found.get(name) == value for name, value in expected.items()) else None

    async with service.running():
        await send(topics.PERIOD_USAGE, usage_snapshot(start=start, end=end, events=1_000))
        await send(topics.CUSTOMERS, customer_snapshot(events=1_000, tokens=("phc_1", "phc_2"), anchor=start))
        limited = await wait_until(lambda: answered(allowed=False))
        assert limited["state"] == "limited"
        assert datetime.fromisoformat(limited["limited_until"]) == end
        members = await store.zrangebyscore(
            "@posthog/quota-limits/events", int(now.timestamp()), "+inf", withscores=True
        )
        assert dict(members) == {"phc_1": int(end.timestamp()), "phc_2": int(end.timestamp())}

        await send(topics.CUSTOMERS, customer_snapshot(revision=2, events=5_000, tokens=("phc_1",), anchor=start))
        released = await wait_until(lambda: answered(allowed=True))
        assert (released["state"], released["quota"]) == ("within", 5_000)
        assert await store.zcard("@posthog/quota-limits/events") == 0

        explained = (await client.get("/v1/limits/acme/explain", params={"meter": "events"})).json()
        assert explained["transition"]["from_state"] == "limited"
        assert explained["transition"]["evidence"]["customer_revision"] == 2
        then = explained["since"]
        history = (await client.get("/v1/limits/acme/history", params={"meter": "events"})).json()["transitions"]
        assert history[-1]["at"] == then
        before = (
            await client.get("/v1/limits/acme/explain", params={"meter": "events", "at": history[-2]["at"]})
        ).json()
        assert before["state"] == "limited"
        assert "1,000 of 1,000" in before["sentence"]
        states = (await client.get("/v1/limits/acme/")).json()
        assert states["states"]["events"]["state"] == "within"

        # A limit of the team alone, on what its topic says; the organization goes on.
        team = {"id": "team:0", "kind": "team", "limits": {"events": {"units": 700}}}
        asked = {"revision": 0, "scopes": [team], "actor": "ada@example.org", "reason": "a runaway loop"}
        assert (await client.put("/v1/limits/acme/scopes", json=asked)).status_code == 200
        await send(topics.TEAM_USAGE, team_usage_snapshot("0", start=start, end=end, events=700))

        async def team_limited():
            found = (await client.get("/v1/quota/phc_1/events?by=token")).json()
            return found if found.get("scope") == "team:0" and not found["allowed"] else None

        of_team = await wait_until(team_limited)
        marks = await store.zrange("@posthog/quota-limits/events", 0, -1, withscores=True)
        assert dict(marks) == {"phc_1": int(end.timestamp())}
        released = await wait_until(lambda: answered(allowed=True))
        assert "scope" not in released

        await store.flushdb()
        assert (await answer()) == released
        assert (await client.get("/v1/quota/phc_1/events?by=token")).json() == of_team
        assert (await client.post("/v1/limits/rebuild")).json()["is_complete"]
        assert (await answer()) == released
        assert (await client.get("/v1/quota/phc_1/events?by=token")).json() == of_team
        assert dict(await store.zrange("@posthog/quota-limits/events", 0, -1, withscores=True)) == dict(marks)
    await client.aclose()
    await store.aclose()
    await publisher.stop()
