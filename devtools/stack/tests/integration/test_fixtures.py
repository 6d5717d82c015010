"""What other packages' integration tests rely on."""

import asyncpg
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from quill_stack.pytest_plugin import KafkaForTest

pytestmark = pytest.mark.integration


async def test_each_test_gets_an_empty_database(database_url: str):
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
    await connection.execute("create table once (id int)")
    await connection.close()


async def test_a_second_test_does_not_see_the_first_ones_table(database_url: str):
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
    await connection.execute("create table once (id int)")
    await connection.close()


async def test_a_template_brings_its_tables_along(create_database):
    template = create_database("template_of_fixtures_test")
    connection = await asyncpg.connect(template)
    await connection.execute("create table kept (id int)")
    await connection.close()
    copy = await asyncpg.connect(create_database(template="template_of_fixtures_test"))
    assert await copy.fetchval("select count(*) from kept") == 0
    await copy.close()


def test_redis_is_empty_at_first(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_again_after_a_test_that_wrote(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_topic_made_again_under_the_same_name_starts_empty(kafka: KafkaForTest, attempt: int):
    kafka.create_topics({"fixtures.again.v1": 2}, {"fixtures.again.v1": {"cleanup.policy": "compact"}})
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    sent = await producer.send_and_wait("fixtures.again.v1", b"value", key=b"key", partition=1)
    await producer.stop()
    assert sent.offset == 0
    consumer = AIOKafkaConsumer(
        "fixtures.again.v1",
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=f"again-{attempt}",
        auto_offset_reset="earliest",
    )
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()
    assert record.value == b"value"
