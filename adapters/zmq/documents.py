"""Documents over ZMQ, as ``bluesky.callbacks.zmq`` sends them.

One message is ``prefix + b" " + name + b" " + payload``. The peers are bluesky's ``Publisher``, ``Proxy`` and
``RemoteDispatcher``, or a sink and a source of this module that are connected directly.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import zmq
from pydantic import Field, field_validator, model_validator

from ...agent.types import DOCUMENT_NAMES, Document, get_logger
from ..codecs import DecodeError, Serializer, decode, encode
from ..errors import EndpointUnreachable
from .owners import Owners
from .socket import POLL_MS, Endpoint, EndpointSocket, wait

log = get_logger()

LINGER_MS = 2000
"""Longest time that a closing sink waits until its last documents are sent, ms."""

RECONNECT_S = 2.0
"""Longest interruption for permitted subscribers after the key of another is revoked, s."""
_WATCH_S = 1.0
"""Interval at which a source checks whether its peer is connected, s."""

_MAX_TOGETHER, _MAX_TOGETHER_BYTES = 256, 4 * 2**20
"""Largest number and size, bytes, of waiting messages that a source takes from its socket at once."""

_NAMES = {name.encode(): name for name in DOCUMENT_NAMES}


class ZMQEndpoint(Endpoint):
    """A ZMQ address at which documents are received, or to which they are sent."""

    prefix: str = ""
    """Prefix that distinguishes publishers behind one proxy; a source without a prefix receives all."""
    serializer: Serializer = "msgpack"
    """``msgpack`` (with msgpack_numpy), ``json``, or ``pickle`` if ``allow_pickle`` is set."""
    allow_pickle: bool = False
    """Whether to accept pickled documents. Unpickling executes code that the sender chooses: allow it only in a
    network whose members may execute code on this machine anyway."""
    max_message_mb: float = Field(default=256.0, gt=0)
    """Largest size of a message, MB; a larger one counts as malformed and is not decoded."""

    @field_validator("prefix")
    @classmethod
    def _one_word(cls, prefix: str) -> str:
        if " " in prefix:
            raise ValueError(f"found {prefix!r}, expected no space: in a message a space ends the prefix")
        return prefix

    @model_validator(mode="after")
    def _pickle_is_allowed(self) -> Self:
        if self.serializer == "pickle" and not self.allow_pickle:
            raise ValueError("serializer: pickle needs allow_pickle: true on the same endpoint")
        return self


class ZMQSource:
    """Documents from a proxy's out-port, or from a sink that binds.

    One thread iterates; any thread may call ``close``, which ends the iteration within 0.1 s. A message that is not a
    document is skipped and counted in ``malformed``. ZMQ reconnects when the peer returns; the log says when the peer
    was lost and when it returned. What it sent meanwhile is lost, and shows as a gap in the documents. An endpoint
    that binds under CURVE accepts the documents of a run only from the client that opened it.

    Parameters
    ----------
    endpoint : ZMQEndpoint
    peer_ends : bool
        Whether the peer ends before this side, so that its loss is no cause for a warning.
    """

    def __init__(self, endpoint: ZMQEndpoint, *, peer_ends: bool = False) -> None:
        self.endpoint = endpoint
        self._peer_ends = peer_ends
        self.malformed_by_reason: Counter[str] = Counter()
        self._link: EndpointSocket | None = None
        self._address = endpoint.zmq_address
        self._closing = threading.Event()
        self._iterating = False
        self._lock = threading.Lock()
        self._owners = Owners()
        self._max_bytes = endpoint.max_message_mb * 1e6

    @property
    def malformed(self) -> int:
        """Number of skipped messages."""
        return self.malformed_by_reason.total()

    @property
    def address(self) -> str:
        """Address of the socket; after ``connect`` with the port that replaces port 0."""
        return self._address

    @property
    def connected(self) -> bool:
        """Whether a peer was connected within the last second; always True for an endpoint that binds under CURVE."""
        link = self._link
        return link is not None and link.connected

    def connect(self) -> None:
        """Subscribe, and wait until the peer answers; an endpoint that binds does not wait.

        Raises
        ------
        EndpointUnreachable
            Nothing answers within ``connect_timeout_s``, or the endpoint cannot be bound.
        InputError
            A CURVE certificate is invalid.
        """
        if self._link is not None:
            return
        link = EndpointSocket(self.endpoint, zmq.SUB, peer_ends=self._peer_ends)
        try:
            link.socket.subscribe(f"{self.endpoint.prefix} " if self.endpoint.prefix else "")
            link.socket.rcvtimeo = POLL_MS
            self._address = link.attach_and_wait(self._closing)
        except BaseException:
            link.close()
            raise
        with self._lock:
            self._link = link
            if self._closing.is_set():
                self._release()
                return
        log.info("listening", endpoint=self._address, prefix=self.endpoint.prefix)

    def __iter__(self) -> Iterator[Document]:
        """Yield documents until ``close``; connect first unless connected."""
        if not self._closing.is_set():
            self.connect()
        with self._lock:
            if self._closing.is_set() or self._link is None:
                self._release()
                return
            self._iterating = True
            link, closing = self._link, self._closing.is_set
        watched_at = -math.inf
        try:
            while not closing():
                if (now := time.monotonic()) - watched_at > _WATCH_S:
                    watched_at = now
                    link.watch_connection()
                for message in self._receive(link):
                    document = self._document_of(link, message)
                    if document is not None:
                        yield document
                    if closing():
                        return
        finally:
            with self._lock:
                self._iterating = False
                self._release()

    def close(self) -> None:
        self._closing.set()
        # Only the thread that uses a ZMQ socket may close it: during an iteration the iterating thread does.
        with self._lock:
            if not self._iterating:
                self._release()

    def _release(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _receive(self, link: EndpointSocket) -> list[bytes] | list[zmq.Frame]:
        """Wait for a message; return all that have arrived, up to a limit, in order.

        Each check of the socket lets other threads run, which costs more than to decode a small document.
        """
        copy, receive = link.guard is None, link.socket.recv
        messages: list[Any] = []
        size = 0
        try:
            messages.append(receive(copy=copy))
            while len(messages) < _MAX_TOGETHER and size < _MAX_TOGETHER_BYTES:
                size += len(messages[-1])
                messages.append(receive(zmq.NOBLOCK, copy))
        except zmq.Again:
            pass
        return messages

    def _document_of(self, link: EndpointSocket, message: bytes | zmq.Frame) -> Document | None:
        """Return the document of a message, if its sender is permitted to send it."""
        if isinstance(message, bytes):
            return self._document(message)
        assert link.guard is not None
        if (client := link.guard.sender(message)) is None:
            return None
        document = self._document(message.bytes)
        if document is None or self._owners.admits(client, *document):
            return document
        link.guard.refuse(client, "a document of another client's run")
        self.malformed_by_reason["another client's run"] += 1
        return None

    def _document(self, message: bytes) -> Document | None:
        try:
            if len(message) > self._max_bytes:
                raise DecodeError("too large", f"{len(message) / 1e6:.0f} MB")
            try:
                _, name, payload = message.split(b" ", 2)
            except ValueError:
                raise DecodeError("not prefix, name and payload", repr(message[:80])) from None
            if name not in _NAMES:
                raise DecodeError("unknown document name", repr(name[:80]))
            doc = decode(payload, self.endpoint.serializer, allow_pickle=self.endpoint.allow_pickle)
            return _NAMES[name], doc
        except DecodeError as error:
            self._count(error)
            return None

    def _count(self, error: DecodeError) -> None:
        self.malformed_by_reason[error.reason] += 1
        # A misconfigured publisher sends thousands of malformed messages.
        write = log.warning if self.malformed_by_reason[error.reason] == 1 else log.debug
        write("message skipped", endpoint=self._address, reason=error.reason, detail=error.detail)


class ZMQSink:
    """Sends documents to a proxy's in-port or, if it binds, to its subscribers; any thread may call it.

    The socket is of type XPUB. Subscribers and proxies use it like PUB, but it receives their subscriptions. The
    first document therefore waits for a subscriber, and documents that are sent without one are counted in
    ``unheard``.

    Parameters
    ----------
    endpoint : ZMQEndpoint
    """

    def __init__(self, endpoint: ZMQEndpoint) -> None:
        self.endpoint = endpoint
        self.unheard = 0
        """Number of documents sent without a subscriber."""
        self._link: EndpointSocket | None = None
        self._address = endpoint.zmq_address
        self._topics: dict[bytes, set[str]] = {}
        """Subscribed topics with the CURVE keys of their subscribers."""
        self._closing = threading.Event()
        self._lock = threading.RLock()
        self._outage = False

    @property
    def address(self) -> str:
        """Address of the socket; after ``connect`` with the port that replaces port 0."""
        return self._address

    def connect(self) -> None:
        """Bind, or connect and wait until the proxy subscribes.

        Raises
        ------
        EndpointUnreachable
            Nothing subscribes within ``connect_timeout_s``, or the endpoint cannot be bound.
        InputError
            A CURVE certificate is invalid.
        """
        timeout = self.endpoint.connect_timeout_s
        with self._lock:
            if self._link is not None:
                return
            self._link = EndpointSocket(self.endpoint, zmq.XPUB)
            self._link.socket.xpub_verbose = self._link.guard is not None  # each subscriber, not each topic
            try:
                self._address = self._link.attach()
                if not self.endpoint.bind and not self.wait_for_subscriber(timeout or None):
                    reason = f"no in-port of a proxy subscribed within {timeout:g} s"
                    raise EndpointUnreachable(self.endpoint.address, reason)
            except BaseException:
                self._release(linger_ms=0)
                raise
        log.info("publishing", endpoint=self._address, prefix=self.endpoint.prefix)

    def wait_for_subscriber(self, timeout_s: float | None = None) -> bool:
        """Wait until a client subscribes to this sink's prefix.

        Parameters
        ----------
        timeout_s : float or None
            Longest wait, s; None waits until ``close``.

        Returns
        -------
        bool
            Whether a client is subscribed.
        """

        def subscribed(poll_ms: int) -> bool:
            with self._lock:
                if self._link is None:
                    return False
                return self._heard(poll_ms)

        return self._link is not None and wait(subscribed, timeout_s, self._closing, self._address)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Send one document; connect first unless connected.

        Raises
        ------
        TypeError
            The serializer cannot represent a value of the document.
        ValueError
            The sink is closed.
        EndpointUnreachable
            As for ``connect``.
        """
        if self._closing.is_set():
            raise ValueError(f"{self.endpoint.address}: the sink is closed")
        payload = encode(doc, self.endpoint.serializer)
        with self._lock:
            if self._link is None:
                self.connect()
            self._drop_revoked()
            assert self._link is not None
            if not self._heard():
                self._count_unheard()
            else:
                self._outage = False
            self._link.socket.send(b" ".join((self.endpoint.prefix.encode(), name.encode(), payload)))

    def close(self) -> None:
        """Close; queued documents may still be sent for ``LINGER_MS``."""
        self._closing.set()
        with self._lock:
            self._release(LINGER_MS)

    def _release(self, linger_ms: int) -> None:
        if self._link is not None:
            self._link.close(linger_ms)
            self._link = None
            self._topics.clear()

    def _heard(self, poll_ms: int = 0) -> bool:
        """Return whether a current subscription matches the sink's prefix; wait up to ``poll_ms`` for another one."""
        assert self._link is not None
        socket = self._link.socket
        if poll_ms:
            socket.poll(poll_ms)
        while int(socket.get(zmq.EVENTS)) & zmq.POLLIN:  # ten times as fast as poll(0)
            frame = socket.recv(copy=False)
            message = frame.bytes
            if message[:1] == b"\x01":
                client = "" if self._link.guard is None else str(frame.get("User-Id"))
                self._topics.setdefault(message[1:], set()).add(client)
            elif message[:1] == b"\x00":
                self._topics.pop(message[1:], None)
        start = f"{self.endpoint.prefix} ".encode()
        return any(start.startswith(topic) for topic in self._topics)

    def _drop_revoked(self) -> None:
        """Bind anew if the key of a subscriber was revoked, because ZMQ cannot close a single connection."""
        assert self._link is not None
        guard = self._link.guard
        if guard is None:
            return
        self._heard()
        subscribers = self._subscribers()
        permitted = {client for client in subscribers if guard.permits(client)}
        if permitted == subscribers:
            return
        log.info("a key is revoked: the other subscribers reconnect", endpoint=self._address)
        self.endpoint = self.endpoint.model_copy(update={"address": self._address})
        self._release(LINGER_MS)
        self.connect()

        def back(poll_ms: int) -> bool:
            return self._heard(poll_ms) and permitted <= self._subscribers()

        if permitted:
            wait(back, RECONNECT_S, self._closing, self._address)

    def _subscribers(self) -> set[str]:
        return set().union(*self._topics.values())

    def _count_unheard(self) -> None:
        self.unheard += 1
        if not self._outage:
            self._outage = True
            log.warning("documents sent without a subscriber are lost", endpoint=self._address)
