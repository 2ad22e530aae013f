"""The frames that agents have answered in a Kafka topic."""

import time
from typing import Any

from cachetools import FIFOCache

from .endpoint import CALL_S, KafkaEndpoint

_LOOK_BACK = 200_000
"""Number of messages before the end of a partition that are read when this process first looks."""
_MAX_RUNS = 2000
"""Number of the latest runs of which the answered frames are remembered."""


class Answered:
    """Reads the keys and headers of a topic, as far as they are news, and remembers the answered frames of runs.

    Parameters
    ----------
    endpoint : KafkaEndpoint
    """

    def __init__(self, endpoint: KafkaEndpoint) -> None:
        from confluent_kafka import Consumer

        self._topic = endpoint.topic
        self._consumer = Consumer(
            {**endpoint.options(), "group.id": "xas-agent-answers", "enable.auto.commit": False}
        )
        self._next: dict[int, int] = {}
        """Offset of the next message, by partition."""
        self._frames: FIFOCache[str, set[str]] = FIFOCache(_MAX_RUNS)
        """What is answered, by run; also of runs of other agents, which may come to this one."""
        self._partitions = endpoint.find_topic(self._consumer)

    def of(self, run: str) -> set[str]:
        """Return the answered frames of a run that :meth:`read` read."""
        return self._frames.get(run, set())

    def read(self) -> bool:
        """Read what is in the topic by now; return whether all of it came in time."""
        from confluent_kafka import TopicPartition

        ends: dict[int, int] = {}
        begins: list[Any] = []
        for number in range(self._partitions):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=CALL_S)
            begin = self._next.get(number, max(low, high - _LOOK_BACK))
            if begin < high:
                ends[number] = high
                begins.append(TopicPartition(self._topic, number, begin))
        if not begins:
            return True
        self._consumer.assign(begins)
        until = time.monotonic() + CALL_S
        while ends and time.monotonic() < until:
            for message in self._consumer.consume(1000, timeout=0.1):
                if message.error() is None:
                    self._note(message, ends)
        self._consumer.unassign()
        return not ends

    def _note(self, message: Any, ends: dict[int, int]) -> None:
        number = message.partition()
        self._next[number] = message.offset() + 1
        if self._next[number] >= ends.get(number, 0):
            ends.pop(number, None)
        for name, value in message.headers() or ():
            if name == "frame":
                self._frames.setdefault((message.key() or b"").decode(), set()).add(value.decode())

    def forget(self, run: str) -> None:
        """Forget the frames of a run that is over."""
        self._frames.pop(run, None)

    def close(self) -> None:
        self._consumer.close()
