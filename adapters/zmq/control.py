"""Control over ZMQ: requests ``{id, action, args}`` and answers ``{id, status, reason}``, both JSON.

The peer may be any REQ or DEALER client, or any REP or ROUTER server, that exchanges these two objects. Further keys
are ignored, null stands for an omitted optional value, and an ``id`` may be a number.
"""

import json
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import zmq
from cachetools import FIFOCache
from pydantic import BaseModel, BeforeValidator, Field, StrictInt, ValidationError

from ...agent.types import InputError, Reply, get_logger
from ..codecs import to_json
from .socket import POLL_MS, Endpoint, EndpointSocket, wait

log = get_logger()

Handler = Callable[[str, Mapping[str, Any]], Reply]
"""Carries out ``(action, args)`` and returns the outcome."""

_MAX_ANSWERED_IDS = 4096
"""Number of answered ids that a server recognises when they are repeated."""
_MAX_UNANSWERED_REQUESTS = 64
"""Number of unanswered requests that a server accepts; further ones are rejected."""
_BUSY_POLL_MS = 2
"""Interval at which a server checks for finished handlers while any of them works."""

Id = str | int | float
_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Number = StrictInt | Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Request(BaseModel):
    id: _Text | _Number
    action: _Text
    args: Annotated[dict[str, Any], BeforeValidator(lambda args: {} if args is None else args)] = {}


class _Answer(BaseModel):
    id: Id | None = None
    status: Literal["acknowledged", "rejected", "expired"]
    reason: str | None = None


class ZMQControl:
    """Sends requests to a control server; any thread may call it.

    Each request opens its own socket and closes it without linger. An unanswered request therefore leaves no queued
    message that could stop an experiment minutes later, when the server starts.

    Parameters
    ----------
    endpoint : Endpoint or str
        Endpoint of the server, or its address.

    Raises
    ------
    InputError
        The string is not a ZMQ address.
    """

    def __init__(self, endpoint: Endpoint | str) -> None:
        self.endpoint = Endpoint.at(endpoint) if isinstance(endpoint, str) else endpoint
        self._closing = threading.Event()

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Request ``action`` and return the answer; never raises.

        Without an answer within ``timeout`` s, or after ``close``, the reply is ``expired``. So is any failure after
        sending and any unreadable answer, because the server may have carried out the action; a failure before
        sending is ``rejected``. An ``id`` may be repeated: the server repeats its answer and acts once.
        """
        if self._closing.is_set():
            return Reply("rejected", "the control is closed")
        sent = False
        try:
            message = to_json({"id": id, "action": action, "args": dict(args)}).encode()
            with EndpointSocket(self.endpoint, zmq.REQ) as link:
                link.attach()
                link.socket.send(message)
                sent = True
                if wait(lambda ms: bool(link.socket.poll(ms)), timeout, self._closing, self.endpoint.address):
                    return _reply_from(link.socket.recv(), id)
        except Exception as error:  # a Control never raises
            log.exception("control request failed", endpoint=self.endpoint.address, id=id, action=action)
            cause = f"{type(error).__name__}: {error}"
            return Reply("expired", f"sent, outcome unknown: {cause}") if sent else Reply("rejected", cause)
        if self._closing.is_set():
            return Reply("expired", "the control was closed")
        return Reply("expired", f"{self.endpoint.address} did not answer within {timeout:g} s")

    def close(self) -> None:
        self._closing.set()


def _reply_from(payload: bytes, id: str) -> Reply:
    """Return the answer to the request ``id``; ``expired`` if it is unreadable, since its outcome is unknown."""
    try:
        answer = _Answer.model_validate(_from_json(payload))
        # A server that could not read a request rejects it without an id.
        if answer.id != id and not (answer.id is None and answer.status == "rejected"):
            raise ValueError(f"found the id {answer.id!r:.80}, expected {id!r:.80}")
    except ValueError as error:
        return Reply("expired", f"unreadable answer, outcome unknown ({_cause(error)})")
    return Reply(answer.status, answer.reason or "")


@dataclass(slots=True)
class _Job:
    """A request in progress, with the envelopes of the clients that wait for its answer."""

    id: Id
    future: Future[Reply]
    envelopes: list[list[bytes]] = field(default_factory=list)


class ControlServer:
    """Answers control requests; ``handler`` carries them out one after another on a separate thread.

    A repeated id receives the same answer without a second execution, even while the first request is in progress. A
    malformed request is rejected with a reason. If the handler raises, the answer is ``expired``, because the handler
    may have acted before.

    Parameters
    ----------
    endpoint : Endpoint or str
        Endpoint to bind, or its address; port 0 selects a free port (see ``address``).
    handler : callable
        Receives action and arguments and returns a Reply.

    Raises
    ------
    EndpointUnreachable
        The endpoint cannot be bound.
    InputError
        The string is not a ZMQ address, the endpoint connects instead of binding, or its CURVE certificate is
        invalid.
    """

    def __init__(self, endpoint: Endpoint | str, handler: Handler) -> None:
        if isinstance(endpoint, str):
            endpoint = Endpoint.at(endpoint, bind=True)
        if not endpoint.bind:
            raise InputError(f"{endpoint.address}: a control server binds; set bind: true")
        self._handler = handler
        # Both by the JSON text of the id: in Python 1, 1.0 and True are the same key.
        self._running: dict[str, _Job] = {}
        self._answered: FIFOCache[str, Reply] = FIFOCache(_MAX_ANSWERED_IDS)
        self._closing = threading.Event()
        self._link = EndpointSocket(endpoint, zmq.ROUTER)
        try:
            self.address = self._link.attach()
        except BaseException:
            self._link.close()
            raise
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="control-handler")
        self._thread = threading.Thread(target=self._serve, name="control-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; a handler at work may finish, and waiting requests are dropped."""
        self._closing.set()
        self._thread.join()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                # Without a handler at work, the wait needs to notice only `close`.
                if self._link.socket.poll(_BUSY_POLL_MS if self._running else POLL_MS):
                    *envelope, payload = self._link.socket.recv_multipart()
                    self._take(envelope, payload)
                for key in [key for key, job in self._running.items() if job.future.done()]:
                    self._finish(key)
        finally:
            self._link.close(linger_ms=POLL_MS)

    def _take(self, envelope: list[bytes], payload: bytes) -> None:
        content: Any = None
        try:
            content = _from_json(payload)
            request = _Request.model_validate(content)
        except ValueError as error:
            reason = f"malformed request: {_cause(error)}"
            log.warning("control request rejected", reason=reason)
            self._send(envelope, _id_in(content), Reply("rejected", reason))
            return
        key = to_json(request.id)
        if key in self._answered:
            self._send(envelope, request.id, self._answered[key])
        elif key in self._running:
            self._running[key].envelopes.append(envelope)
        elif len(self._running) >= _MAX_UNANSWERED_REQUESTS:
            reason = f"{_MAX_UNANSWERED_REQUESTS} requests are in progress"
            self._send(envelope, request.id, Reply("rejected", reason))
        else:
            future = self._executor.submit(self._carry_out, request)
            self._running[key] = _Job(request.id, future, [envelope])

    def _carry_out(self, request: _Request) -> Reply:
        try:
            reply = self._handler(request.action, request.args)
            if not isinstance(reply, Reply):
                raise TypeError(f"handler returned {reply!r}, expected a Reply")
            return reply
        except Exception as error:  # a failing handler must not end the server
            log.exception("control handler failed", id=request.id, action=request.action)
            return Reply("expired", f"outcome unknown: {type(error).__name__}: {error}")

    def _finish(self, key: str) -> None:
        job = self._running.pop(key)
        reply = job.future.result()
        self._answered[key] = reply
        for envelope in job.envelopes:
            self._send(envelope, job.id, reply)

    def _send(self, envelope: list[bytes], id: Id | None, reply: Reply) -> None:
        answer = {"id": id, "status": reply.status, "reason": reply.reason}
        self._link.socket.send_multipart([*envelope, to_json(answer).encode()])


def _from_json(payload: bytes) -> Any:
    """Parse JSON; raise ValueError for anything else."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error


def _id_in(content: Any) -> Id | None:
    """Return the id of a malformed request, by which its sender identifies the rejection."""
    id = content.get("id") if isinstance(content, dict) else None
    return id if isinstance(id, str | int) or (isinstance(id, float) and math.isfinite(id)) else None


def _cause(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    details = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in details["loc"])
    return f"{key}: {details['msg']}" if key else details["msg"]
