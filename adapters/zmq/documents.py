"""Documents over ZMQ, as ``bluesky.callbacks.zmq`` sends them.

One message is ``prefix + b" " + name + b" " + payload``; the peers are bluesky's ``Publisher``, ``Proxy`` and
``RemoteDispatcher``, or the sink and source of this module joined directly.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import event_model
import zmq
from pydantic import Field, field_validator, model_validator

from ...agent.types import Document, get_logger
from ..codecs import DecodeError, Serializer, decode, encode
from ..errors import EndpointUnreachable
from .socket import POLL_MS, Endpoint, EndpointSocket, wait

log = get_logger()

LINGER_MS = 2000
"""How long a closing sink waits for its last documents to leave."""

_NAMES = {name.encode(): name for name in event_model.DocumentNames.__members__}


class ZMQEndpoint(Endpoint):
    """A ZMQ address that documents come from or go to."""

    prefix: str = ""
    """Distinguishes several publishers behind one proxy; a source without a prefix takes all."""
    serializer: Serializer = "msgpack"
    """``msgpack`` (with msgpack_numpy), ``json``, or ``pickle`` where ``allow_pickle`` is set."""
    allow_pickle: bool = False
    """Whether to accept pickled documents. Unpickling runs code that the sender chose: only for a network in which
    everybody may run code here anyway."""
    max_message_mb: float = Field(default=256.0, gt=0)
    """Largest message, MB; a larger one counts as malformed and is not decoded."""

    @field_validator("prefix")
    @classmethod
    def _one_word(cls, prefix: str) -> str:
        if " " in prefix:
            raise ValueError(f"found {prefix!r}, expected no space, which ends a prefix on the wire")
        return prefix

    @model_validator(mode="after")
    def _pickle_is_allowed(self) -> Self:
        if self.serializer == "pickle" and not self.allow_pickle:
            raise ValueError("serializer: pickle needs allow_pickle: true on the same endpoint")
        return self


class ZMQSource:
    """Documents from a proxy's out-port, or from a sink that binds.

    Iterate in one thread; ``close`` may be called from any and ends the iteration within 0.1 s. A message
    that is not a document is skipped and counted in ``malformed``. ZMQ itself reconnects when the peer
    comes back.
    """

    def __init__(self, endpoint: ZMQEndpoint) -> None:
        self.endpoint = endpoint
        self.malformed_by_reason: Counter[str] = Counter()
        self._link: EndpointSocket | None = None
        self._address = endpoint.zmq_address
        self._closing = threading.Event()
        self._iterating = False
        self._lock = threading.Lock()
        self._max_bytes = endpoint.max_message_mb * 1e6

    @property
    def malformed(self) -> int:
        """How many messages were skipped."""
        return self.malformed_by_reason.total()

    @property
    def address(self) -> str:
        """Where it listens; after ``connect`` with the port that port 0 became."""
        return self._address

    def connect(self) -> None:
        """Subscribe, and wait until the publisher's side answers; when binding, do not wait.

        Raises:
            EndpointUnreachable: nothing answers within ``connect_timeout_s``, or it cannot be bound.
            InputError: a CURVE certificate cannot be used.
        """
        if self._link is not None:
            return
        link = EndpointSocket(self.endpoint, zmq.SUB)
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
        """Yield documents until ``close``; connects first where ``connect`` was not called."""
        if not self._closing.is_set():
            self.connect()
        with self._lock:
            if self._closing.is_set() or self._link is None:
                self._release()
                return
            self._iterating = True
            receive, closing = self._link.socket.recv, self._closing.is_set
        try:
            while not closing():
                try:
                    message = receive()
                except zmq.Again:
                    continue
                document = self._document(message)
                if document is not None:
                    yield document
        finally:
            with self._lock:
                self._iterating = False
                self._release()

    def close(self) -> None:
        self._closing.set()
        # A ZMQ socket belongs to the thread that uses it: while one iterates, that one closes it.
        with self._lock:
            if not self._iterating:
                self._release()

    def _release(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

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
        # One publisher that is wrong is wrong thousands of times.
        say = log.warning if self.malformed_by_reason[error.reason] == 1 else log.debug
        say("message skipped", endpoint=self._address, reason=error.reason, detail=error.detail)


class ZMQSink:
    """Documents to a proxy's in-port, or to whoever subscribes where it binds.

    May be called from any thread. An XPUB socket, which plain subscribers and proxies take for PUB, but which
    learns of their subscriptions: so the first document waits for a reader, and one sent when nobody reads is
    counted in ``unheard`` instead of vanishing.
    """

    def __init__(self, endpoint: ZMQEndpoint) -> None:
        self.endpoint = endpoint
        self.unheard = 0
        """Documents sent while nobody was subscribed."""
        self._link: EndpointSocket | None = None
        self._address = endpoint.zmq_address
        self._topics: set[bytes] = set()
        self._closing = threading.Event()
        self._lock = threading.RLock()
        self._outage = False

    @property
    def address(self) -> str:
        """Where it sends; after ``connect`` with the port that port 0 became."""
        return self._address

    def connect(self) -> None:
        """Bind; or connect, and wait until the proxy there has subscribed.

        Raises:
            EndpointUnreachable: nobody subscribes within ``connect_timeout_s``, or it cannot be bound.
            InputError: a CURVE certificate cannot be used.
        """
        timeout = self.endpoint.connect_timeout_s
        with self._lock:
            if self._link is not None:
                return
            self._link = EndpointSocket(self.endpoint, zmq.XPUB)
            try:
                self._address = self._link.attach()
                if not self.endpoint.bind and not self.wait_for_subscriber(timeout or None):
                    why = f"no proxy's in-port subscribed there within {timeout:g} s"
                    raise EndpointUnreachable(self.endpoint.address, why)
            except BaseException:
                self._release(linger_ms=0)
                raise
        log.info("publishing", endpoint=self._address, prefix=self.endpoint.prefix)

    def wait_for_subscriber(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody has subscribed to what this sink sends; None waits until ``close``.

        Returns whether one has.
        """

        def subscribed(poll_ms: int) -> bool:
            with self._lock:
                if self._link is None:
                    return False
                self._link.socket.poll(poll_ms)
                return self._heard()

        return self._link is not None and wait(subscribed, timeout_s, self._closing, self._address)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Send one document; connects first where ``connect`` was not called.

        Raises:
            TypeError: something in the document has no form in this serializer.
            ValueError: the sink is closed.
            EndpointUnreachable: as ``connect``.
        """
        if self._closing.is_set():
            raise ValueError(f"{self.endpoint.address}: the sink is closed")
        payload = encode(doc, self.endpoint.serializer)
        with self._lock:
            if self._link is None:
                self.connect()
            assert self._link is not None
            if not self._heard():
                self._count_unheard()
            else:
                self._outage = False
            self._link.socket.send(b" ".join((self.endpoint.prefix.encode(), name.encode(), payload)))

    def close(self) -> None:
        """Close, giving documents still on their way ``LINGER_MS``."""
        self._closing.set()
        with self._lock:
            self._release(LINGER_MS)

    def _release(self, linger_ms: int) -> None:
        if self._link is not None:
            self._link.close(linger_ms)
            self._link = None
            self._topics.clear()

    def _heard(self) -> bool:
        """Whether a subscription at this moment matches what this sink sends."""
        assert self._link is not None
        socket = self._link.socket
        while int(socket.get(zmq.EVENTS)) & zmq.POLLIN:  # a tenth of what poll(0) takes
            message = socket.recv()
            if message[:1] == b"\x01":
                self._topics.add(message[1:])
            elif message[:1] == b"\x00":
                self._topics.discard(message[1:])
        start = f"{self.endpoint.prefix} ".encode()
        return any(start.startswith(topic) for topic in self._topics)

    def _count_unheard(self) -> None:
        self.unheard += 1
        if not self._outage:
            self._outage = True
            log.warning("nobody is subscribed: documents go unheard", endpoint=self._address)
