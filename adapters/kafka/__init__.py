"""Documents over Kafka, in the format of bluesky-kafka."""

from .endpoint import SCHEMES, KafkaEndpoint
from .sink import KafkaDestination, KafkaSink
from .source import KafkaShared, KafkaSource

__all__ = ["SCHEMES", "KafkaDestination", "KafkaEndpoint", "KafkaShared", "KafkaSink", "KafkaSource"]
