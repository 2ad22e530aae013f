"""Documents over Kafka, as bluesky-kafka publishes them."""

from .endpoint import SCHEMES, KafkaEndpoint
from .sink import KafkaDestination, KafkaSink
from .source import KafkaShared, KafkaSource

__all__ = ["SCHEMES", "KafkaDestination", "KafkaEndpoint", "KafkaShared", "KafkaSink", "KafkaSource"]
