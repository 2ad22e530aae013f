"""The frames that agents have answered in a Kafka topic."""

import time
from collections import defaultdict
from typing import Any

from .endpoint import CALL_S, KafkaEndpoint

_LOOK_BACK = 200_000
"""Number of messages before the end of a partition that are read when this process first looks."""


class Answered:
    """Reads the keys and headers of a topic, as far as they are news, and remembers the frames of runs asked for.

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
        self._frames: dict[str, set[str]] = defaultdict(set)
        self._partitions = endpoint.find_topic(self._consumer)

    def of(self, run: str) -> set[str]:
        """Return the answered frames of a run that :meth:`read` read."""
        return self._frames.get(run, set())

    def read(self, run: str) -> None:
        """Read what is in the topic by now."""
        from confluent_kafka import TopicPartition

        self._frames[run]  # also those of other agents' runs are kept until they are forgotten
        ends: dict[int, int] = {}
        begins: list[Any] = []
        for number in range(self._partitions):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=CALL_S)
            begin = self._next.get(number, max(low, high - _LOOK_BACK))
            if begin < high:
                ends[number] = high
                begins.append(TopicPartition(self._topic, number, begin))
        if not begins:
            return
        self._consumer.assign(begins)
        until = time.monotonic() + CALL_S
        while ends and time.monotonic() < until:
            for message in self._consumer.consume(1000, timeout=0.1):
                if message.error() is None:
                    self._note(message, ends)
        self._consumer.unassign()

    def _note(self, message: Any, ends: dict[int, int]) -> None:
        number = message.partition()
        self._next[number] = message.offset() + 1
        if self._next[number] >= ends.get(number, 0):
            ends.pop(number, None)
        for name, value in message.headers() or ():
            if name == "frame":
                self._frames[(message.key() or b"").decode()].add(value.decode())

    def forget(self, run: str) -> None:
        """Forget the frames of a run that is over."""
        self._frames.pop(run, None)

    def close(self) -> None:
        self._consumer.close()


def frame_key(stream: str, data: dict[str, Any]) -> str:
    """Return what an answer of the agent is about; empty for what is no answer to a frame.

    >>> frame_key("spectra", {"frame_uid": "3a6b"}), frame_key("decisions", {"frame_uid": "3a6b"})
    ('3a6b spectra', '')
    """
    match stream:
        case "descriptors":
            return f"{data['uid']} {stream}"
        case "spectra" | "measured":
            return f"{data['frame_uid']} {stream}"
        case "quality" if data.get("frame_seq_num"):  # of other notes there may be several that are equal
            return f"{data['uid']} {data['reason']} {stream}"
    return ""
