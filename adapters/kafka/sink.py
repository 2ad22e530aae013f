"""The agent's documents in Kafka."""

import threading
from collections import Counter
from typing import Any

from ...agent.types import get_logger
from ..codecs import to_msgpack
from ..errors import EndpointUnreachable
from .answered import Answered, frame_key
from .endpoint import CALL_S, KafkaEndpoint

log = get_logger()


class KafkaDestination(KafkaEndpoint):
    """Topic to which documents are published."""


class KafkaSink:
    """Publishes documents as bluesky-kafka does: msgpack of ``[name, doc]``. Any thread may call it.

    The key is the uid of the run, for the agent's own runs that of the watched run, so that the documents about a
    run are in one partition, in order. When a run of the agent begins, what the topic has of the watched run is read: frames
    that another agent has answered are not published again, and are counted in ``repeated``.

    Parameters
    ----------
    endpoint : KafkaDestination
    """

    def __init__(self, endpoint: KafkaDestination) -> None:
        self.endpoint = endpoint
        self.repeated = 0
        """Number of documents that the topic had already."""
        self._producer: Any = None
        self._answered: Answered | None = None
        self._failed: list[str] = []
        self._closed = False
        self._lock = threading.Lock()
        self._run_of: dict[str, str] = {}
        """Run that is the key, by the uid of a run."""
        self._streams: dict[str, tuple[str, str]] = {}
        """Run and stream, by the uid of a Descriptor or Resource."""
        self._runs = Counter[str]()
        """Number of the agent's runs that are open, by the watched run."""

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

        options = {"enable.idempotence": True, "message.timeout.ms": round(CALL_S * 1000), "linger.ms": 2}
        producer = Producer({**self.endpoint.options(), **options})
        self.endpoint.find_topic(producer)
        self._producer = producer
        log.info("publishing", endpoint=self.endpoint.address)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Publish a document; connect first unless connected. A RunStop waits until all before it are delivered.

        Raises
        ------
        TypeError
            msgpack cannot represent a value of the document.
        ValueError
            The sink is closed.
        EndpointUnreachable
            The brokers did not take documents in time.
        """
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.endpoint.address}: the sink is closed")
            if self._producer is None:
                self.connect()
            run, frame = self._key(name, doc)
            if frame and self._answered is not None and frame in self._answered.of(run):
                self.repeated += 1
                return
            value = to_msgpack([name, doc])
            headers = [("frame", frame.encode())] if frame else None
            self._produce(run, value, headers)
            if name == "stop":
                self._flush()
            if self._failed:
                failed, self._failed = self._failed, []
                raise EndpointUnreachable(self.endpoint.address, f"{len(failed)} documents not taken: {failed[0]}")

    def close(self) -> None:
        """Wait until what was published is delivered, and close."""
        with self._lock:
            self._closed = True
            if self._producer is not None:
                self._flush()
                self._producer = None
            if self._answered is not None:
                self._answered.close()
                self._answered = None
        if self._failed:
            log.error("documents not taken", endpoint=self.endpoint.address, documents=len(self._failed))

    def _key(self, name: str, doc: dict[str, Any]) -> tuple[str, str]:
        """Return the run of a document, and the frame if it is an answer to one."""
        frame = ""
        match name:
            case "start":
                own = bool(doc.get("xas_agent")) and "parent_uid" in doc
                run = str(doc["parent_uid"] if own else doc["uid"])
                self._run_of[str(doc["uid"])] = run
                if own:
                    self._runs[run] += 1
                    self._read_answered(run)
            case "descriptor" | "resource" | "stream_resource":
                run = self._run_of.get(str(doc.get("run_start")), str(doc.get("run_start")))
                self._streams[str(doc["uid"])] = run, str(doc.get("name", ""))
            case "stop":
                run = self._run_of.pop(str(doc["run_start"]), str(doc["run_start"]))
                self._end(run)
            case _:
                run, stream = self._streams.get(str(doc.get("descriptor", doc.get("resource"))), ("", ""))
                frame = frame_key(stream, doc["data"]) if name == "event" else ""
        return run, frame

    def _end(self, run: str) -> None:
        self._runs[run] -= 1
        if self._runs[run] <= 0:
            del self._runs[run]
            self._streams = {uid: known for uid, known in self._streams.items() if known[0] != run}
            if self._answered is not None:
                self._answered.forget(run)

    def _read_answered(self, run: str) -> None:
        if self._answered is None:
            self._answered = Answered(self.endpoint)
        self._answered.read(run)

    def _produce(self, key: str, value: bytes, headers: Any) -> None:
        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                self._failed.append(error.str())

        while True:
            try:
                self._producer.produce(self.endpoint.topic, value, key=key, headers=headers, on_delivery=delivered)
                self._producer.poll(0)
                return
            except BufferError:  # the queue is full
                self._producer.poll(0.1)

    def _flush(self) -> None:
        if left := self._producer.flush(CALL_S):
            self._failed.append(f"{left} documents wait")
