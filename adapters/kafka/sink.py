"""Publishes the agent's documents to Kafka."""

import threading
import time
from collections.abc import Callable
from typing import Any

from ...agent.types import get_logger
from ..answers import Confirmations, Subjects, is_of_agent
from ..codecs import to_msgpack
from ..errors import EndpointUnreachable
from .answered import Answered
from .endpoint import CALL_S, KafkaEndpoint

log = get_logger()

_POLL_S = 0.1
_RETRY_S = 1.0


class KafkaDestination(KafkaEndpoint):
    """The Kafka topic that receives documents."""


class KafkaSink:
    """Publishes documents in the format of bluesky-kafka: msgpack of ``[name, doc]``. Any thread may call it.

    The key is the uid of the run (for the agent's own runs, of the watched run), so that one partition holds all
    documents about a run, in order. When a run of the agent begins, the sink reads the topic's answers to the watched
    run: answered frames are not published again, and are counted in ``repeated``. Answers to runs in partitions that
    this agent has given up are left to the next agent.

    Parameters
    ----------
    endpoint : KafkaDestination
    """

    def __init__(self, endpoint: KafkaDestination) -> None:
        self.endpoint = endpoint
        self.repeated = 0
        """Number of documents that the topic already had."""
        self.refused = 0
        """Number of documents that were too large."""
        self.takeovers: Callable[[], int] = lambda: 0
        """Returns how often runs came from other agents; their answers are then read."""
        self.holds: Callable[[str], bool] = lambda run: True
        """Returns whether this agent, and not another one, answers a run."""
        self.left = 0
        """Number of documents on frames that were left to another agent."""
        self.confirmations = Confirmations()
        self._takeovers = 0
        self._producer: Any = None
        self._answered: Answered | None = None
        self._failed: list[str] = []
        self._closed = False
        self._lock = threading.Lock()
        self._subjects = Subjects()

    def connect(self) -> None:
        """Connect, and look for the topic.

        Raises
        ------
        EndpointUnreachable
            No broker answers in time, or the topic does not exist.
        InputError
            confluent-kafka is not installed.
        """
        if self._producer is not None:
            return
        self.endpoint.require_client()
        from confluent_kafka import Producer

        options = {"enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 2}
        producer = Producer({**self.endpoint.options(), **options})
        self.endpoint.find_topic(producer)
        self._producer = producer
        threading.Thread(target=self._poll, args=(producer,), name="kafka", daemon=True).start()
        log.info("publishing", endpoint=self.endpoint.address)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Publish a document; connect first unless connected. While no broker answers, documents wait here.

        Raises
        ------
        TypeError
            msgpack cannot represent a value of the document.
        ValueError
            The sink is closed.
        EndpointUnreachable
            The brokers refused documents.
        """
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.endpoint.address}: the sink is closed")
            if self._producer is None:
                self.connect()
            run, answer = self._subjects(name, doc)
            came = answer and self._answered is not None and self.takeovers() != self._takeovers
            if came or (name == "start" and is_of_agent(doc)):
                self._read_answers()
            if answer and not self.holds(run):
                self.left += 1
                return
            if answer and self._answered is not None and not self._answered.add(run, answer):
                self.repeated += 1
                return
            self._produce(run, to_msgpack([name, doc]), [("frame", answer.encode())] if answer else None)
            if self._failed:
                failed, self._failed = self._failed, []
                raise EndpointUnreachable(self.endpoint.address, f"{len(failed)} documents not taken: {failed[0]}")

    def know(self, name: str, doc: dict[str, Any]) -> None:
        """Record a RunStart or Descriptor that an earlier process published."""
        with self._lock:
            self._subjects(name, doc)
            if name == "start" and is_of_agent(doc):
                self._read_answers()

    def hand_over(self) -> None:
        """Wait until the brokers have all published documents, so that another agent finds them."""
        if not self._lock.acquire(timeout=CALL_S):
            return  # the next agent reads others' answers, and calls ``holds`` afterwards
        try:
            if self._producer is not None and (left := self._producer.flush(CALL_S)):
                log.warning("another agent may answer frames again", topic=self.endpoint.topic, documents_wait=left)
        finally:
            self._lock.release()

    def _read_answers(self) -> None:
        """Read the answers of other agents; try again while no broker answers."""
        from confluent_kafka import KafkaException

        while not self._closed:
            takeovers = self.takeovers()
            try:
                self._answered = self._answered or Answered(self.endpoint)
                if self._answered.read():
                    self._takeovers = takeovers
                    return
                reason = "not read in time"
            except (KafkaException, EndpointUnreachable) as error:
                reason = str(error)
            log.warning("answers of other agents not read, tried again", topic=self.endpoint.topic, reason=reason)
            time.sleep(_RETRY_S)
        raise ValueError(f"{self.endpoint.address}: the sink is closed")

    def close(self) -> None:
        """Wait a while for the delivery of published documents, and close."""
        self._closed = True
        with self._lock:
            if self._producer is not None:
                self._flush()
                self._producer = None
            if self._answered is not None:
                self._answered.close()
                self._answered = None
        if self._failed:
            log.error("documents not taken", endpoint=self.endpoint.address, documents=len(self._failed))

    def _poll(self, producer: Any) -> None:
        """Record deliveries, even while no document arrives."""
        while not self._closed:
            producer.poll(_POLL_S)

    def _produce(self, key: str, value: bytes, headers: Any) -> None:
        from confluent_kafka import KafkaError, KafkaException

        number = self.confirmations.send()

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                self._failed.append(error.str())
            else:
                self.confirmations.confirm(number)

        while True:
            try:
                self._producer.produce(self.endpoint.topic, value, key=key, headers=headers, on_delivery=delivered)
                return
            except BufferError:  # the queue is full
                if self._closed:
                    raise
                self._producer.poll(_POLL_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                self.refused += 1
                self.confirmations.confirm(number)
                detail = f"{len(value)} bytes; raise message.max.bytes in security, and that of the topic"
                log.error("document too large, not published", topic=self.endpoint.topic, detail=detail)
                return

    def _flush(self) -> None:
        if left := self._producer.flush(CALL_S):
            self._failed.append(f"{left} documents wait")
