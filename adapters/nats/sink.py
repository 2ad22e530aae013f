"""Publishes the agent's documents to JetStream, with each frame's answers once."""

import asyncio
import hashlib
import math
import re
import threading
import time
from collections import deque
from concurrent.futures import Future, wait
from typing import Any

from pydantic import Field

from ...agent.types import get_logger
from ..answers import Confirmations, Subjects
from ..codecs import Serializer, to_json, to_plain_msgpack
from ..partition import partition_of
from .endpoint import CALL_S, Link, NATSEndpoint

log = get_logger()

_WRONG_LAST_SEQUENCE = (10071, 10164)
"""Codes with which JetStream refuses a message whose subject already has one."""
_FULL = (10023, 10047, 10077, 10122)
"""Codes with which it refuses a message for lack of space, and may accept it later."""
_UNAVAILABLE = 503
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_RETRY_S = 0.2
_OPEN_EVENTS = 256
"""Number of Events sent before the server has confirmed the first of them."""


class NATSDestination(NATSEndpoint):
    """The stream that receives documents."""

    serializer: Serializer = Field(default="msgpack")
    """``msgpack`` with arrays as lists, as in bluesky-nats, or ``json``."""


class NATSSink:
    """Publishes documents; a call waits for the server's confirmation, for Events that of earlier calls. Thread-safe.

    The subject of a document is ``SUBJECT.RUN.NAME``, with the partition before RUN if there are several. For the
    agent's own runs, RUN is the watched run, and the documents of a frame have ``SUBJECT.RUN.FRAME.STREAM.event``:
    the server accepts one message for each such subject, so that a second agent that answers the frame adds nothing.
    Refused messages are counted in ``repeated``. As in bluesky-nats, each message has the header ``run_id``.

    Parameters
    ----------
    endpoint : NATSDestination
    """

    def __init__(self, endpoint: NATSDestination) -> None:
        self.endpoint = endpoint
        self.repeated = 0
        """Number of documents that the stream already had."""
        self.refused = 0
        """Number of documents that are too large for the server."""
        self.confirmations = Confirmations()
        self._link: Link | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._subjects = Subjects()
        self._open: deque[Future[None]] = deque()
        """Documents that the server has not confirmed."""
        self._give_up_at = math.inf
        """``time.monotonic()`` after which no further attempt is made."""
        self._troubled = False
        """Whether the server refuses documents at present."""

    def connect(self) -> None:
        """Connect, and look for the stream.

        Raises
        ------
        EndpointUnreachable
            The server does not answer in time, or has no such stream.
        InputError
            nats-py is not installed.
        """
        if self._link is not None:
            return
        link = Link(self.endpoint)
        try:
            link.call(link.stream())
        except BaseException:
            link.close()
            raise
        self._link = link
        log.info("publishing", endpoint=self.endpoint.address)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Publish a document; connect first unless connected.

        Raises
        ------
        TypeError
            The serializer cannot represent a value of the document.
        ValueError
            The sink is closed.
        nats.errors.Error, TimeoutError
            The server refused it or an earlier Event, or had not accepted it when the sink was closed.
        """
        if self._closed.is_set():
            raise ValueError(f"{self.endpoint.address}: the sink is closed")
        payload = to_json(doc).encode() if self.endpoint.serializer == "json" else to_plain_msgpack(doc)
        with self._lock:
            if self._link is None:
                self.connect()
            run, answer = self._subjects(name, doc)
            headers = {"run_id": run, "Nats-Msg-Id": str(doc.get("uid", ""))} if "uid" in doc else {"run_id": run}
            if answer:
                headers[_EXPECTED] = "0"
            self._send(name, self._subject(run, answer, name), payload, headers)

    def know(self, name: str, doc: dict[str, Any]) -> None:
        """Record a RunStart or Descriptor that an earlier process published."""
        with self._lock:
            self._subjects(name, doc)

    def close(self) -> None:
        """Wait a while until the server has accepted the published documents, and close."""
        self._give_up_at = time.monotonic() + CALL_S
        self._closed.set()
        with self._lock:
            if self._link is not None:
                wait(self._open, 2 * CALL_S)
                failed = sum(not future.done() or future.exception() is not None for future in self._open)
                self._open.clear()
                if failed:
                    log.error("documents not taken", endpoint=self.endpoint.address, documents=failed)
                self._link.close()
                self._link = None

    def _subject(self, run: str, answer: str, name: str) -> str:
        """Return the subject of a document."""
        endpoint = self.endpoint
        parts = [endpoint.subject, _token(run or "none"), *map(_token, filter(None, answer.rsplit(".", 1))), name]
        if endpoint.partitions > 1:
            parts.insert(1, str(partition_of(run, endpoint.partitions)))
        return ".".join(parts)

    def _send(self, name: str, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        """Begin to publish; wait until at most ``_OPEN_EVENTS`` Events, or no other documents, are unconfirmed."""
        assert self._link is not None
        if len(payload) > (most := self._link.client.max_payload):
            self.refused += 1
            detail = f"{len(payload)} bytes, the server takes {most} (its max_payload); raise it there"
            log.error("document too large, not published", subject=subject, detail=detail)
            return
        is_event = name in ("event", "event_page")
        self._wait(_OPEN_EVENTS if is_event else 0)
        number = self.confirmations.send()
        self._open.append(self._link.begin(self._publish(self._link, subject, payload, headers, number)))
        if not is_event:
            self._wait(0)

    def _wait(self, most: int) -> None:
        """Wait until at most ``most`` documents are unconfirmed; raise the error of one that was not accepted."""
        while len(self._open) > most:
            if not wait([self._open[0]], _RETRY_S).done:
                if self._closed.is_set():
                    raise TimeoutError(f"{self.endpoint.address}: closed before the server took all documents")
                continue
            self._open.popleft().result()

    async def _publish(self, link: Link, subject: str, payload: bytes, headers: dict[str, str], number: int) -> None:
        import nats.errors
        import nats.js.errors

        while True:
            try:
                await link.jetstream.publish(subject, payload, timeout=CALL_S, headers=headers)
                break
            except nats.js.errors.APIError as error:
                if error.err_code in _WRONG_LAST_SEQUENCE and _EXPECTED in headers:
                    self.repeated += 1
                    break
                if error.err_code not in _FULL and error.code != _UNAVAILABLE:
                    raise
                self._say(error)
            except (nats.errors.Error, OSError, TimeoutError) as error:  # the server may restart
                self._say(error)
            if time.monotonic() > self._give_up_at:
                raise TimeoutError(f"{subject}: not taken")
            await asyncio.sleep(_RETRY_S)
        self.confirmations.confirm(number)
        if self._troubled:
            self._troubled = False
            log.warning("documents are taken again", endpoint=self.endpoint.address)

    def _say(self, error: Exception) -> None:
        """Log, once for all documents, that the server refuses them."""
        if not self._troubled:
            self._troubled = True
            reason = f"{type(error).__name__}: {getattr(error, 'description', None) or error}".rstrip(": ")
            detail = "they wait here; nothing that they answer is acknowledged meanwhile"
            log.warning("documents not taken", endpoint=self.endpoint.address, reason=reason, detail=detail)


def _token(text: str) -> str:
    """Return a text as a token of a subject.

    >>> _token("3a6b-1"), _token("a.b")
    ('3a6b-1', '69f6642c9d71b463485b4faf4e989dc3fe77a8c6')
    """
    return text if _TOKEN.fullmatch(text) else hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
