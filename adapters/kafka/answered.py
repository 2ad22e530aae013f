"""The frames that agents have answered in a Kafka topic."""

import time
from typing import Any

from ..answers import Answers
from .endpoint import CALL_S, KafkaEndpoint

_LOOK_BACK = 200_000
"""Number of messages before the end of a partition that this process reads at first."""


class Answered:
    """Reads the new keys and headers of a topic, and remembers the answered frames of runs.

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
        self._answers = Answers()
        """Includes answers to runs of other agents, which may move to this one."""
        self._partitions = endpoint.find_topic(self._consumer)

    def add(self, run: str, answer: str) -> bool:
        """Record an answer; return whether it is new."""
        return self._answers.add(run, answer)

    def read(self) -> bool:
        """Read the present contents of the topic; return whether all of it arrived in time."""
        from confluent_kafka import TopicPartition

        ends: dict[int, int] = {}
        begins: list[Any] = []
        for number in range(self._partitions):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=CALL_S)
            begin = max(low, self._next.get(number, high - _LOOK_BACK))
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
                self.add((message.key() or b"").decode(), value.decode())

    def close(self) -> None:
        self._consumer.close()
