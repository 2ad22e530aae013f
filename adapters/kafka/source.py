"""Reads documents from Kafka in a consumer group whose members share the partitions."""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgpack
from pydantic import Field

from ...agent.types import DOCUMENT_NAMES, Document, get_logger
from ..codecs import DecodeError, from_msgpack
from ..errors import EndpointUnreachable
from ..partition import RELEASE_S, Partition, settle
from .endpoint import CALL_S, KafkaEndpoint

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition

log = get_logger()

_POLL_S = 0.1
_WRITE_S = 0.5
"""Interval at which acknowledgements are committed, s."""


class KafkaShared(KafkaEndpoint):
    """A Kafka topic of documents that agents share."""

    group: str = "xas-agent"
    """Consumer group of the agents that share the runs; each run goes to one of them. Agents of another group also
    receive all runs."""
    begin: Literal["new", "all"] = "new"
    """Where a new group begins: with future documents (``new``), or with all in the topic."""
    lease_s: float = Field(default=10.0, ge=1)
    """Time after which the runs of a killed agent go to others, s (``session.timeout.ms``)."""


class KafkaSource:
    """The documents of the partitions that Kafka assigns to this agent.

    The key of a message must be equal for all documents of a run, for example its uid, so that one partition holds
    the run, in order. One thread iterates; any thread may call the other methods. The group commits the offset of the
    oldest run in progress; later acknowledgements are stored in the commit's metadata. A message that is not a
    document is skipped and counted in ``malformed``.

    Parameters
    ----------
    endpoint : KafkaShared
    """

    def __init__(self, endpoint: KafkaShared) -> None:
        self.endpoint = endpoint
        self.malformed = 0
        """Number of skipped messages."""
        self.position: dict[str, list[int]] = {}
        """Partition, number of the take-over since which it is held, and offset of the latest document."""
        self.age_s = 0.0
        """Time that the latest document waited, s, plus ``REPLAYED_S`` if another agent has acknowledged it."""
        self.partitions: dict[int, Partition] = {}
        """Partitions that this agent holds, by number."""
        self.takeovers = 0
        """Number of occasions on which runs may have come from another agent."""
        self.handing_over: Callable[[], None] = lambda: None
        """Called before another agent receives partitions, once :meth:`holds` denies their runs; returns when the
        broker has everything published about them."""
        self._given_up: list[str] = []
        """Runs in progress, since last taken, of partitions that were given up or lost."""
        self._first: dict[int, int] = {}
        """Offset at which a new group begins, by partition."""
        self._consumer: Consumer | None = None
        self._changed: set[int] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._releasing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._written_at = 0.0
        self.connected = False
        """Whether a broker answered the last request."""

    def connect(self) -> None:
        """Look for the topic; the iteration joins the group, since a member that does not poll would hold it up.

        Raises
        ------
        EndpointUnreachable
            No broker answers in time, or the topic does not exist.
        InputError
            confluent-kafka is not installed.
        """
        if self._consumer is not None:
            return
        endpoint = self.endpoint
        endpoint.require_client()
        from confluent_kafka import Consumer

        consumer = Consumer(
            {
                **endpoint.options(),
                "group.id": endpoint.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # if the topic no longer holds the committed place
                "session.timeout.ms": round(endpoint.lease_s * 1000),
                "heartbeat.interval.ms": round(endpoint.lease_s * 1000 / 4),
                "partition.assignment.strategy": "cooperative-sticky",
                "error_cb": self._failed,
            }
        )
        try:
            for number in range(endpoint.find_topic(consumer)):
                low, high = self._ends(consumer, number)
                self._first[number] = high if endpoint.begin == "new" else low
        except BaseException:
            consumer.close()
            raise
        self._consumer, self.connected = consumer, True
        log.info("listening", endpoint=endpoint.address, group=endpoint.group)

    def resume(self, position: Mapping[str, Any]) -> None:
        """Continue: the brokers know the place, and the journal the documents that arrive again."""

    def __iter__(self) -> Iterator[Document]:
        """Yield documents until ``close``; connect first unless connected."""
        self.connect()
        consumer = self._consumer
        assert consumer is not None
        topic = self.endpoint.topic
        consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        while not self._closing.is_set():
            message = consumer.poll(_POLL_S)
            self._write(consumer)
            if message is None:
                continue
            if message.error() is not None:
                log.debug("Kafka", endpoint=self.endpoint.address, error=str(message.error()))
                continue
            self.connected = True
            if (document := self._take(message)) is not None:
                yield document
        self._keeper = threading.Thread(target=self._keep, args=(consumer,), name="kafka group", daemon=True)
        self._keeper.start()

    def _keep(self, consumer: "Consumer") -> None:
        """Stay a member of the group after ``close``, while the agent answers; otherwise the group would take the
        partitions without its knowledge."""
        while not self._releasing.is_set():
            consumer.poll(_POLL_S)  # new messages are for the next agent
            self._write(consumer)

    def _take(self, message: "Message") -> Document | None:
        number, place = message.partition(), message.offset()
        partition = None if number is None else self.partitions.get(number)
        if partition is None or place is None:
            return None
        try:
            name, doc = _decoded(message.value())
        except DecodeError as error:
            partition.pass_over(place)
            self.malformed += 1
            write = log.warning if self.malformed == 1 else log.debug
            write("message skipped", endpoint=self.endpoint.address, reason=error.reason, detail=error.detail)
            return None
        kind, ms = message.timestamp()
        at = ms / 1000 if kind else time.time()  # a message of kind 0 has no time
        more_s = partition.take(place, name, doc, at)
        if more_s is None:
            return None
        self.age_s = max(0.0, time.time() - at) + more_s
        self.position = {f"partition {number}": [partition.term, place]}
        return name, doc

    def holds(self, run: str) -> bool:
        """Return whether this agent reads a run; may be called from any thread."""
        return any(partition.knows(run) for partition in list(self.partitions.values()) if not partition.lost)

    def is_current(self, position: Mapping[str, Any]) -> bool:
        """Return whether the partition of a document with this position has been held since the document was read."""
        held = {f"partition {n}": p.term for n, p in list(self.partitions.items()) if not p.lost}
        return all(held.get(key) == term for key, (term, _) in position.items())

    def take_given_up(self) -> list[str]:
        """Return the runs, since the last call, that another agent may read from their starts."""
        with self._lock:
            taken, self._given_up = self._given_up, []
        return taken

    def acknowledge(self, position: Mapping[str, Any], ended: Collection[str]) -> None:
        """Acknowledge documents up to ``position``, and mark the runs in ``ended`` as not to be read again."""
        with self._lock:
            ended = set(ended).difference(self._given_up)
        for number, partition in list(self.partitions.items()):
            term, place = position.get(f"partition {number}", (-1, -1))
            if not partition.lost and partition.acknowledge(place if term == partition.term else -1, ended):
                with self._lock:
                    self._changed.add(number)

    def close(self) -> None:
        """End the iteration; the partitions are held until ``release``."""
        self._closing.set()

    def release(self) -> None:
        """Release the partitions to other agents, and close the connection."""
        self._closing.set()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            settle(list(self.partitions.values()), RELEASE_S)
            self._releasing.set()
            if self._keeper is not None:
                self._keeper.join()
            self._written_at = 0.0
            self._write(consumer, wait=True)
            consumer.close()

    def _ends(self, consumer: "Consumer", number: int) -> tuple[int, int]:
        """Return the oldest offset of a partition, and the offset after the newest."""
        from confluent_kafka import KafkaException, TopicPartition

        try:
            ends = consumer.get_watermark_offsets(TopicPartition(self.endpoint.topic, number), timeout=CALL_S)
        except KafkaException as error:
            raise EndpointUnreachable(self.endpoint.address, f"partition {number}: {error.args[0].str()}") from None
        if ends is None:
            raise EndpointUnreachable(self.endpoint.address, f"partition {number}: no answer within {CALL_S:g} s")
        return ends

    def _failed(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.code() == KafkaError._ALL_BROKERS_DOWN and self.connected:
            self.connected = False
            log.warning("connection lost", endpoint=self.endpoint.address)

    def _assigned(self, consumer: "Consumer", assigned: "list[TopicPartition]") -> None:
        from confluent_kafka import KafkaException, TopicPartition

        while not self._closing.is_set():  # partitions assigned later are for the next agent
            try:
                places = consumer.committed(assigned, timeout=CALL_S)
                states = [self._state(consumer, found) for found in places]
                break
            except (KafkaException, EndpointUnreachable) as error:
                reason = f"{type(error).__name__}: {error}"
                log.warning("places not read, tried again", endpoint=self.endpoint.address, reason=reason)
                self._closing.wait(_WRITE_S)
        else:
            return
        self.takeovers += 1
        begin: list[TopicPartition] = []
        for found, state in zip(places, states, strict=True):
            partition = Partition(state)
            partition.term = self.takeovers
            self.partitions[found.partition] = partition
            begin.append(TopicPartition(found.topic, found.partition, partition.begin))
            log.info("partition taken", partition=found.partition, runs_in_progress=len(state["open"]))
            with self._lock:
                self._changed.add(found.partition)
        consumer.incremental_assign(begin)

    def _state(self, consumer: "Consumer", found: "TopicPartition") -> dict[str, Any]:
        """Return the state at which the reading of a partition begins."""
        if found.offset >= 0:
            return json.loads(found.metadata) if found.metadata else Partition.new(found.offset - 1)
        first = self._first.get(found.partition)  # unknown if the topic has grown since
        return Partition.new((self._ends(consumer, found.partition)[0] if first is None else first) - 1)

    def _revoked(self, consumer: "Consumer", revoked: "list[TopicPartition]") -> None:
        for found in revoked:
            if (partition := self.partitions.get(found.partition)) is not None:
                partition.lost = True
        self.handing_over()
        self._written_at = 0.0
        self._write(consumer, wait=True)
        self._give_up(revoked)

    def _lost(self, _: "Consumer", lost: "list[TopicPartition]") -> None:
        numbers = sorted(found.partition for found in lost)
        detail = "the agent did not answer the group in time; what it has not published is left to others"
        log.warning("partitions lost to other agents", partitions=numbers, detail=detail)
        self._give_up(lost)

    def _give_up(self, partitions: "list[TopicPartition]") -> None:
        for found in partitions:
            partition = self.partitions.get(found.partition)
            if partition is None:
                continue
            partition.lost = True
            if not (self._closing.is_set() and partition.settled):  # otherwise everything read is answered
                with self._lock:
                    self._given_up += partition.runs_in_progress
            del self.partitions[found.partition]

    def _write(self, consumer: "Consumer", *, wait: bool = False) -> None:
        """Commit the places of partitions that have changed."""
        from confluent_kafka import KafkaException, TopicPartition

        if time.monotonic() - self._written_at < _WRITE_S:
            return
        self._written_at = time.monotonic()
        with self._lock:
            changed, self._changed = self._changed, set()
        places = [
            TopicPartition(self.endpoint.topic, number, partition.begin, metadata=json.dumps(partition.state))
            for number in changed
            if (partition := self.partitions.get(number)) is not None
        ]
        if not places:
            return
        try:
            consumer.commit(offsets=places, asynchronous=not wait)
        except KafkaException as error:  # a rebalance, or an unavailable broker
            log.debug("places not written", endpoint=self.endpoint.address, error=str(error))
            with self._lock:
                self._changed |= changed


def _decoded(value: bytes | None) -> Document:
    """Return the document of a message; raise DecodeError for anything else."""
    if value is None:
        raise DecodeError("no value")
    try:
        message = from_msgpack(value)
    except DecodeError:
        raise
    except (msgpack.UnpackException, ValueError, TypeError, KeyError) as error:
        raise DecodeError("undecodable", f"{type(error).__name__}: {error}"[:300]) from error
    match message:
        case [str(name), dict(doc)] if name in DOCUMENT_NAMES:
            return name, doc
    raise DecodeError("not name and document", repr(message)[:80])
