"""librdkafka's own mock cluster, which speaks Kafka's protocol, in this process."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_PRODUCER = 0
_PRODUCE, _TIMED_OUT = 0, 7
"""Kafka's numbers of a request and of an error after which a producer tries again."""


@cache
def _librdkafka() -> ctypes.CDLL:
    """The library that confluent-kafka brings; Python reaches its mock cluster only so."""
    import confluent_kafka

    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    for name, types in (("rd_kafka_new", "ippi"), ("rd_kafka_mock_cluster_new", "pi")):
        function = getattr(library, name)
        function.restype = ctypes.c_void_p
        function.argtypes = [{"i": ctypes.c_int, "p": ctypes.c_void_p}[kind] for kind in types]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    for name in ("rd_kafka_mock_broker_set_down", "rd_kafka_mock_broker_set_up"):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)),
    ]
    library.rd_kafka_mock_clear_request_errors.argtypes = [ctypes.c_void_p, ctypes.c_int16]
    library.rd_kafka_mock_broker_set_rtt.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]
    return library


class Cluster:
    """Brokers on ports of 127.0.0.1; they last as long as the process."""

    def __init__(self, brokers: int = 3) -> None:
        pytest.importorskip("confluent_kafka", reason="no confluent-kafka: pip install 'xas-agent[kafka]'")
        from confluent_kafka import Producer

        library = _librdkafka()
        client = library.rd_kafka_new(_PRODUCER, None, None, 0)
        self._numbers = range(1, brokers + 1)
        self._cluster = library.rd_kafka_mock_cluster_new(client, brokers)
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 100)  # by default 3 s for each group
        self.brokers: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self.producer: Any = Producer({"bootstrap.servers": self.brokers})

    def make_topic(self, name: str, partitions: int = 4) -> str:
        """Make a topic; return its address."""
        failed = _librdkafka().rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        assert not failed
        return f"kafka://{self.brokers}/{name}"

    def send(self, topic: str, key: str, value: bytes) -> None:
        """Send a message, and wait until it is delivered."""
        self.producer.produce(topic, value, key=key)
        self.producer.flush(10)

    def deleted(self, topic: str, partitions: int) -> int:
        """Return the number of messages that a topic does not have any more: each partition keeps some 5 MB."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "deleted"})
        numbers = range(partitions)
        lows = [consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[0] for n in numbers]
        consumer.close()
        return sum(lows)

    def delay(self, seconds: float) -> None:
        """Let all brokers answer each request after a while."""
        for number in self._numbers:
            _librdkafka().rd_kafka_mock_broker_set_rtt(self._cluster, number, round(1000 * seconds))

    def confirm(self, confirming: bool) -> None:
        """Let the brokers take messages again, or refuse the next 1000 requests, after which producers try again."""
        if confirming:
            _librdkafka().rd_kafka_mock_clear_request_errors(self._cluster, _PRODUCE)
            return
        errors = (ctypes.c_int * 1000)(*[_TIMED_OUT] * 1000)
        _librdkafka().rd_kafka_mock_push_request_errors_array(self._cluster, _PRODUCE, len(errors), errors)

    def stop(self) -> None:
        """Close the ports of all brokers; their topics remain."""
        for number in self._numbers:
            _librdkafka().rd_kafka_mock_broker_set_down(self._cluster, number)

    def start(self) -> None:
        """Open the ports again."""
        for number in self._numbers:
            _librdkafka().rd_kafka_mock_broker_set_up(self._cluster, number)
