"""librdkafka's in-memory broker, for the demo alone, where no Kafka jars can be had.

It keeps about 5 MB per partition, forgets everything when it closes, has no admin requests (topics appear when first
used) and cannot hold a group of two aiokafka consumers: one consumer per group only.
"""

from typing import Final

from confluent_kafka.admin import AdminClient

ASK_SECONDS: Final = 10.0


class MockKafka:
    """Lives inside this process until ``close``."""

    def __init__(self) -> None:
        self._client: AdminClient | None = AdminClient(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "group.id": "quill-stack-mock"}
        )
        brokers = self._client.list_topics(timeout=ASK_SECONDS).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def close(self) -> None:
        """End the broker; its records are gone."""
        self._client = None
