"""Where logs end, as far as there is anything left to read."""

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from quill_runtime.log_ends import read_log_ends
from quill_runtime.positions import Partition

pytestmark = pytest.mark.integration


async def test_partitions_with_records_have_an_end_and_what_retention_took_is_not_waited_for(kafka):
    one, two = kafka.fresh_topic(partitions=2), kafka.fresh_topic()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    for _ in range(3):
        await producer.send_and_wait(one, b"x", partition=1)
    await producer.send_and_wait(two, b"x", partition=0)
    await producer.stop()
    ends = await read_log_ends([one, two], bootstrap_servers=kafka.bootstrap_servers)
    assert ends == {Partition(one, 1): 3, Partition(two, 0): 1}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_records({TopicPartition(two, 0): RecordsToDelete(before_offset=1)})
    await admin.close()
    assert await read_log_ends([one, two], bootstrap_servers=kafka.bootstrap_servers) == {Partition(one, 1): 3}
