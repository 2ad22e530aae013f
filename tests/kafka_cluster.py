"""librdkafka's own mock cluster, which speaks Kafka's protocol, in this process."""

from typing import Any

import pytest


class Cluster:
    """Brokers on ports of 127.0.0.1, with topics of four partitions."""

    def __init__(self, brokers: int = 3) -> None:
        pytest.importorskip("confluent_kafka", reason="no confluent-kafka: pip install 'xas-agent[kafka]'")
        from confluent_kafka import Producer

        self.producer: Any = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": brokers})
        found = self.producer.list_topics(timeout=10).brokers.values()
        self.brokers = ",".join(f"{broker.host}:{broker.port}" for broker in found)

    def make_topic(self, name: str) -> str:
        """Make a topic; return its address."""
        self.producer.list_topics(name, timeout=10)
        return f"kafka://{self.brokers}/{name}"

    def send(self, topic: str, key: str, value: bytes) -> None:
        """Send a message, and wait until it is delivered."""
        self.producer.produce(topic, value, key=key)
        self.producer.flush(10)
