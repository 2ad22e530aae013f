"""Reads documents from JetStream by durable consumers, in partitions that several agents share."""

import asyncio
import queue
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...agent.types import DOCUMENT_NAMES, Document, get_logger
from ..codecs import DecodeError, Serializer, decode
from ..partition import RELEASE_S, Partition, settle
from .endpoint import Link, NATSEndpoint
from .leases import Leases, together
from .pull import closing_pull

if TYPE_CHECKING:
    from nats.aio.msg import Msg

log = get_logger()

_POLL_S = 0.1
_QUEUE = 1000
"""Number of documents waiting to be yielded at which no more are requested."""
_WRITE_S = 0.5
"""Longest time between an acknowledgement and its message to the server, s."""
_MAX_PENDING = 200_000
"""Number of documents that the server sends before one of them must be acknowledged."""
_ACK_WAIT_S = 3600.0
"""Time after which the server sends a document again, s. The documents of a killed agent do not wait for it, since
the next agent has its own consumer."""


class NATSShared(NATSEndpoint):
    """A JetStream stream of documents that agents share."""

    group: str = Field(default="xas-agent", pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the group of agents that share the runs; each run goes to one of them. Agents of another group also
    receive all runs."""
    begin: Literal["new", "all"] = "new"
    """Where a new group begins: with future documents (``new``), or with all in the stream."""
    lease_s: float = Field(default=10.0, ge=1)
    """Time after which the runs of a killed agent go to others, s."""
    serializer: Serializer = "msgpack"
    """``msgpack``, as in bluesky-nats, or ``json``."""

    @property
    def shared_name(self) -> str:
        """Name of the group's data on the server.

        >>> NATSShared(address="nats://localhost/bmm.docs", partitions=8).shared_name
        'xas-agent-bmm_docs-8'
        """
        return f"{self.group}-{re.sub('[^A-Za-z0-9_-]', '_', self.subject)}-{self.partitions}"


class NATSSource:
    """The documents of the partitions that this agent holds.

    One thread iterates; any thread may call the other methods. Each partition has a durable pull consumer. An agent
    that takes a partition over replaces its consumer by a new one, which begins at the start of the oldest run in
    progress. The documents thus arrive in order, and the previous agent, if alive, receives no more of them. A
    message that is not a document is skipped and counted in ``malformed``.

    Parameters
    ----------
    endpoint : NATSShared
    """

    def __init__(self, endpoint: NATSShared) -> None:
        self.endpoint = endpoint
        self.malformed = 0
        """Number of skipped messages."""
        self.position: dict[str, int] = {}
        """Partition and number of the latest document."""
        self.age_s = 0.0
        """Time that the latest document waited, s, plus ``REPLAYED_S`` if another agent has acknowledged it."""
        self.agent = uuid.uuid4().hex
        """Name of this agent in its group."""
        self.partitions: dict[int, Partition] = {}
        """Partitions that this agent holds, by number; each change replaces the mapping."""
        self.takeovers = 0
        """Number of occasions on which runs may have come from another agent."""
        self.handing_over: Callable[[], None] = lambda: None
        """Not called, since the server accepts only one answer to a frame."""
        self._link: Link | None = None
        self._leases: Leases
        self._stream = ""
        self._documents: queue.SimpleQueue[tuple[int, Partition, Msg]] = queue.SimpleQueue()
        self._replies: dict[int, deque[tuple[int, str]]] = {}
        """Number and reply subject of each unacknowledged document, by partition."""
        self._changed: set[int] = set()
        """Partitions whose place must be written."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._releasing = False
        self._outside = False
        """Whether documents outside all partitions were found."""

    @property
    def connected(self) -> bool:
        """Whether the server is connected."""
        return self._link is not None and self._link.connected

    def connect(self) -> None:
        """Connect, look for the stream, and begin to claim partitions.

        Raises
        ------
        EndpointUnreachable
            The server does not answer in time, or has no such stream.
        InputError
            nats-py is not installed.
        """
        if self._link is not None:
            return
        link, endpoint = Link(self.endpoint), self.endpoint
        try:
            self._stream = link.call(link.stream())
            self._leases = Leases(
                link.jetstream, endpoint.shared_name, self.agent, endpoint.partitions, endpoint.lease_s
            )
            link.call(self._leases.open())
        except BaseException:
            link.close()
            raise
        self._link = link
        link.begin(self._hold(link))
        log.info("listening", endpoint=endpoint.address, stream=self._stream, group=endpoint.group)

    def resume(self, position: Mapping[str, Any]) -> None:
        """Continue: the server knows the place, and the journal the documents that arrive again."""

    def __iter__(self) -> Iterator[Document]:
        """Yield documents until ``close``; connect first unless connected."""
        self.connect()
        while not self._closing.is_set():
            try:
                number, partition, message = self._documents.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if (document := self._take(number, partition, message)) is not None:
                yield document

    def _take(self, number: int, partition: Partition, message: "Msg") -> Document | None:
        if partition.lost:
            return None
        meta = message.metadata
        place, at = meta.sequence.stream, meta.timestamp.timestamp()
        with self._lock:
            self._replies.setdefault(number, deque()).append((place, message.reply))
        name = message.subject.rsplit(".", 1)[-1]
        try:
            if name not in DOCUMENT_NAMES:
                raise DecodeError("unknown document name", message.subject)
            doc = decode(message.data, self.endpoint.serializer)
        except DecodeError as error:
            partition.pass_over(place)
            self.malformed += 1
            write = log.warning if self.malformed == 1 else log.debug
            write("message skipped", endpoint=self.endpoint.address, reason=error.reason, detail=error.detail)
            return None
        more_s = partition.take(place, name, doc, at)
        if more_s is None:
            return None
        self.age_s = max(0.0, time.time() - at) + more_s
        self.position = {f"partition {number}": place}
        return name, doc

    def holds(self, run: str) -> bool:
        """Return True, since the server accepts one answer to a frame, whoever gives it."""
        return True

    def is_current(self, position: Mapping[str, Any]) -> bool:
        """Return True, for the same reason."""
        return True

    def take_given_up(self) -> list[str]:
        """Return no runs, for the same reason."""
        return []

    def acknowledge(self, position: Mapping[str, Any], ended: Collection[str]) -> None:
        """Acknowledge documents up to ``position``, and mark the runs in ``ended`` as not to be read again."""
        for number, partition in self.partitions.items():
            place = position.get(f"partition {number}", 0)
            if partition.acknowledge(place, ended):
                with self._lock:
                    self._changed.add(number)

    def close(self) -> None:
        """End the iteration; the partitions are held until ``release``."""
        self._closing.set()

    def release(self) -> None:
        """Release the partitions to other agents, and close the connection."""
        self._closing.set()
        link, self._link = self._link, None
        if link is None:
            return
        settle(self.partitions.values(), RELEASE_S)
        self._releasing = True
        try:
            link.call(self._leave(link))
        except Exception as error:
            log.warning(
                "partitions not given up; others get them later", error=str(error), after_s=self.endpoint.lease_s
            )
        link.close()

    async def _hold(self, link: Link) -> None:
        """Renew the leases and write acknowledgements, until ``release``."""
        renew_at, troubled = 0.0, False
        while not self._releasing:
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + self._leases.lease_s / 3
                    await self._renew(link)
                    troubled = False
                    await self._check_partition(link)
                await self._write(link)
            except Exception as error:  # the server may restart
                trouble = {"endpoint": self.endpoint.server, "error": f"{type(error).__name__}: {error}"}
                log.debug("leases not renewed", **trouble)
                if self._leases.expired:
                    if not troubled:
                        log.warning("leases have ended: nothing is read until the server renews them", **trouble)
                    troubled = True
                    self._leases.held.clear()
                    for number in list(self.partitions):
                        self._drop(number)
            await asyncio.sleep(_WRITE_S / 5)

    async def _check_partition(self, link: Link) -> None:
        """Log if the newest document is in no partition of this group, so that no agent of it would read it."""
        import nats.errors
        import nats.js.errors

        endpoint = self.endpoint
        if endpoint.partitions == 1 or self._outside:
            return
        try:
            asked = link.jetstream.get_last_msg(self._stream, f"{endpoint.subject}.>")
            newest = await asyncio.wait_for(asked, self._leases.lease_s / 3)  # no longer, for the leases' sake
        except nats.js.errors.NotFoundError:
            return
        except (nats.errors.Error, TimeoutError) as error:  # the user may lack the right to read single messages
            log.debug("newest document not read", endpoint=endpoint.server, error=f"{type(error).__name__}: {error}")
            return
        number = (newest.subject or "").removeprefix(f"{endpoint.subject}.").partition(".")[0]
        if not number.isdecimal() or int(number) >= endpoint.partitions:
            self._outside = True
            expected = f"{endpoint.subject}.K.… with K from 0 to {endpoint.partitions - 1}"
            log.error(
                "documents are in no partition, so that nobody reads them: give publisher and agents one number",
                found=newest.subject, expected=expected, partitions=endpoint.partitions,
            )  # fmt: skip

    async def _renew(self, link: Link) -> None:
        busy = {number for number, partition in self.partitions.items() if partition.busy}
        lost, surplus, free = await self._leases.renew(busy)
        for number in lost:
            log.warning("partition lost to another agent", partition=number, endpoint=self.endpoint.address)
            self._drop(number)
        if surplus:
            await self._write(link)
            for number in surplus:
                self._drop(number)
            await together(map(self._leases.give_up, surplus))
        if not self._closing.is_set():
            await together(map(self._leases.claim, free))
            new = self._leases.held.keys() - self.partitions.keys()
            await together(self._begin(link, number) for number in new)

    def _drop(self, number: int) -> None:
        """Stop reading a partition."""
        with self._lock:
            self._replies.pop(number, None)
            self._changed.discard(number)
        if number in self.partitions:
            self.partitions[number].lost = True
            self.partitions = {n: p for n, p in self.partitions.items() if n != number}

    async def _begin(self, link: Link, number: int) -> None:
        """Read a partition from the place at which the previous agent ended."""
        state = await self._leases.place(number)
        if state is None:
            info = await link.jetstream.stream_info(self._stream)
            state = Partition.new(info.state.last_seq if self.endpoint.begin == "new" else 0)
        partition = Partition(state)
        if not await self._leases.write_place(number, state):
            await self._leases.give_up(number)
            return
        self.partitions = {**self.partitions, number: partition}
        self.takeovers += 1
        log.info("partition taken", partition=number, runs_in_progress=len(state["open"]))
        link.begin(self._read(link, number, partition))

    async def _read(self, link: Link, number: int, partition: Partition) -> None:
        """Queue the messages of a partition until it is lost."""
        read = partition.begin - 1
        while not (partition.lost or self._closing.is_set()):
            try:
                async with closing_pull(link, self._stream, await self._consumer(link, number, read + 1)) as pull:
                    async for message in pull.messages(lambda: partition.lost or self._closing.is_set()):
                        read = message.metadata.sequence.stream
                        self._documents.put((number, partition, message))
                        while self._documents.qsize() > _QUEUE and not self._closing.is_set():
                            await asyncio.sleep(_POLL_S / 10)
            except Exception as error:  # a lost connection, or a consumer that another agent deleted
                log.debug("partition read anew", partition=number, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(_POLL_S)
                while self._leases.expired and not (partition.lost or self._closing.is_set()):
                    await asyncio.sleep(_POLL_S)

    async def _consumer(self, link: Link, number: int, first: int) -> str:
        """Create the durable consumer of a partition anew, from a given message on; return its name."""
        import nats.js.errors
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        name = f"{self.endpoint.shared_name}-{number}"
        with suppress(nats.js.errors.NotFoundError):
            await link.jetstream.delete_consumer(self._stream, name)
        config = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=self.endpoint.filter(number),
            ack_policy=AckPolicy.ALL,
            ack_wait=_ACK_WAIT_S,
            max_ack_pending=_MAX_PENDING,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=max(1, first),
        )
        await link.jetstream.add_consumer(self._stream, config)
        return name

    async def _write(self, link: Link) -> None:
        """Write the places, then send the acknowledgements."""
        with self._lock:
            changed = list(self._changed)
        await together(self._write_partition(link, number) for number in changed)

    async def _write_partition(self, link: Link, number: int) -> None:
        with self._lock:
            self._changed.discard(number)
        partition = self.partitions.get(number)
        if partition is None:
            return
        try:
            written = await self._leases.write_place(number, partition.state)
        except Exception:
            with self._lock:
                self._changed.add(number)
            raise
        if not written:
            self._drop(number)
        elif (reply := self._reply(number, partition.acknowledged)) is not None:
            await link.client.publish(reply, b"+ACK")

    def _reply(self, number: int, acknowledged: int) -> str | None:
        """Return the reply subject of the latest acknowledged document; None if the acknowledgement was sent."""
        reply = None
        with self._lock:
            replies = self._replies.get(number, deque())
            while replies and replies[0][0] <= acknowledged:
                _, reply = replies.popleft()
        return reply

    async def _leave(self, link: Link) -> None:
        await self._write(link)
        for number in list(self.partitions):
            self._drop(number)
        await self._leases.leave()
