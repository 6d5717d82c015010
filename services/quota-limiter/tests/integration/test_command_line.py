"""The process as an operator starts it: migrate, then rebuild without a running service (L8)."""

import asyncio
import os
import sys

import pytest
import redis.asyncio as redis
from quill_quota_limiter import wire
from quill_quota_limiter.store.postgres import PostgresLimits
from quill_quota_limiter.usecases import take_in_customers, take_in_usage
from quill_runtime.database import Database
from quill_runtime.outbox import Outbox

pytestmark = pytest.mark.integration


async def command(name: str, *flags: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "quill_quota_limiter",
        name,
        *flags,
        env={**os.environ, "QUILL_SEALING_KEYS": "k1:" + "A" * 43, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 180)
    return process.returncode or 0, output.decode()


async def test_migrate_then_rebuild_fills_an_empty_redis(database_url, redis_url, customer_snapshot, usage_snapshot):
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    assert await command("migrate", **settings) == (0, "")
    assert await command("migrate", **settings) == (0, "")
    database = Database(database_url)
    customer, usage = customer_snapshot(events=10), usage_snapshot(events=10)
    async with PostgresLimits(database, Outbox()).begin() as tx:
        now = customer.period.start
        await take_in_customers([wire.from_wire_customer(customer)], tx=tx, now=now)
        await take_in_usage([wire.from_wire_usage(usage)], tx=tx, now=now)
    await database.close()
    status, output = await command("rebuild", **settings)
    assert status == 0
    assert "organizations=1" in output
    async with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert await client.zrange("@posthog/quota-limits/events", 0, -1) == ["phc_1"]
        status, output = await command("drift", **settings)
        assert (status, output.splitlines()[-1]) == (0, "1 organizations, 0 differences")
        await client.zadd("@posthog/quota-limits/events", {"phc_ghost": 1})
        status, output = await command("drift", "--json", **settings)
        assert status == 1
        assert '"counts":{"foreign_mark":1}' in output
        status, output = await command("drift", "--repair", **settings)
        assert status == 0
        assert "foreign_mark  phc_ghost" in output
        assert await client.zrange("@posthog/quota-limits/events", 0, -1) == ["phc_1"]
        status, output = await command("drift", "--really", **settings)
        assert status == 2
        assert "--really" in output


async def test_a_wrong_setting_stops_the_start_with_its_name(database_url):
    status, output = await command(
        "serve", DATABASE_URL=database_url, REDIS_URL="http://nowhere", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"
    )
    assert status == 78
    assert "REDIS_URL" in output
