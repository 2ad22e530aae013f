"""The agent's documents in JetStream, each frame's answers once."""

import hashlib
import re
import threading
import time
from typing import Any

from pydantic import Field

from ...agent.types import get_logger
from ..codecs import Serializer, to_json, to_plain_msgpack
from ..partition import partition_of
from .endpoint import CALL_S, Link, NATSEndpoint

log = get_logger()

_WRONG_LAST_SEQUENCE = (10071, 10164)
"""Codes with which JetStream refuses a message whose subject has one already."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RETRY_S = 0.2


class NATSDestination(NATSEndpoint):
    """Stream to which documents are published."""

    serializer: Serializer = Field(default="msgpack")
    """``msgpack`` with arrays as lists, as bluesky-nats writes it, or ``json``."""


class NATSSink:
    """Publishes documents and waits until the server has each. Any thread may call it.

    The subject of a document is ``SUBJECT.RUN.NAME``, with the partition before RUN if there are several. Of the agent's own
    runs, RUN is the watched run, and the documents of a frame are ``SUBJECT.RUN.FRAME.STREAM.event``: the server
    takes one message for each such subject, so that a second agent that answers the frame adds nothing. What it
    refuses is counted in ``repeated``. Like bluesky-nats, each message has the run in its header ``run_id``.

    Parameters
    ----------
    endpoint : NATSDestination
    """

    def __init__(self, endpoint: NATSDestination) -> None:
        self.endpoint = endpoint
        self.repeated = 0
        """Number of documents that the stream had already."""
        self._link: Link | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._run_of: dict[str, str] = {}
        """Run that subjects name, by the uid of a run."""
        self._streams: dict[str, tuple[str, str]] = {}
        """Run and stream, by the uid of a Descriptor or Resource."""

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
        TimeoutError
            The server did not take it in time.
        """
        if self._closed.is_set():
            raise ValueError(f"{self.endpoint.address}: the sink is closed")
        payload = to_json(doc).encode() if self.endpoint.serializer == "json" else to_plain_msgpack(doc)
        with self._lock:
            if self._link is None:
                self.connect()
            run, subject, once = self._subject(name, doc)
            self._send(subject, payload, {"run_id": run}, once=once)

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            if self._link is not None:
                self._link.close()
                self._link = None

    def _subject(self, name: str, doc: dict[str, Any]) -> tuple[str, str, bool]:
        """Return the run of a document, its subject, and whether the subject may have one message only."""
        own: str | None = None
        match name:
            case "start":
                run = str(doc.get("parent_uid", doc["uid"]) if doc.get("xas_agent") else doc["uid"])
                self._run_of[str(doc["uid"])] = run
            case "descriptor" | "resource" | "stream_resource" | "stop":
                run = self._run_of.get(str(doc.get("run_start")), str(doc.get("run_start")))
                if name != "stop":
                    self._streams[str(doc["uid"])] = run, str(doc.get("name", ""))
                else:
                    self._forget(run)
            case _:
                run, stream = self._streams.get(str(doc.get("descriptor", doc.get("resource"))), ("", ""))
                if name == "event" and (frame := _frame(stream, doc["data"])):
                    own = f"{_token(frame)}.{_token(stream)}"
        endpoint = self.endpoint
        part = f"{partition_of(run, endpoint.partitions)}." if endpoint.partitions > 1 else ""
        middle = f"{_token(run or 'none')}." + (f"{own}." if own else "")
        return run, f"{endpoint.subject}.{part}{middle}{name}", own is not None

    def _forget(self, run: str) -> None:
        self._run_of = {uid: of for uid, of in self._run_of.items() if of != run}
        self._streams = {uid: known for uid, known in self._streams.items() if known[0] != run}

    def _send(self, subject: str, payload: bytes, headers: dict[str, str], *, once: bool) -> None:
        import nats.errors
        import nats.js.errors

        assert self._link is not None
        if once:
            headers = headers | {"Nats-Expected-Last-Subject-Sequence": "0"}
        until = time.monotonic() + CALL_S
        while True:
            try:
                left = max(0.1, until - time.monotonic())
                self._link.call(self._link.jetstream.publish(subject, payload, timeout=left, headers=headers), left)
                return
            except nats.js.errors.APIError as error:
                if once and error.err_code in _WRONG_LAST_SEQUENCE:
                    self.repeated += 1
                    return
                raise
            except (nats.errors.Error, OSError, TimeoutError):  # the server may restart
                if self._closed.is_set() or time.monotonic() > until:
                    raise
                self._closed.wait(_RETRY_S)


def _frame(stream: str, data: dict[str, Any]) -> str:
    """Return what an answer of the agent is about; empty for what is no answer."""
    if stream == "descriptors":
        return str(data.get("uid", ""))
    if stream == "quality":  # of notes without a frame's number there may be several that are equal
        return f"{data['uid']} {data['reason']}" if data.get("frame_seq_num") else ""
    return str(data.get("frame_uid", "")) if stream in ("spectra", "measured") else ""


def _token(text: str) -> str:
    """Return a text as a part of a subject.

    >>> _token("3a6b-1"), _token("a.b")
    ('3a6b-1', '69f6642c9d71b463485b4faf4e989dc3fe77a8c6')
    """
    return text if _TOKEN.fullmatch(text) else hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
