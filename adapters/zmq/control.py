"""Control across ZMQ: requests ``{id, action, args}``, answers ``{id, status, reason}``, both JSON.

Any REQ, DEALER or REP, ROUTER peer that speaks these two objects can stand on the other side. What else it puts
into them is passed over, null is taken for what may be left out, and an ``id`` may be a number.
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
"""Carries out ``(action, args)`` and says how it went."""

REMEMBERED = 4096
"""How many answered ids a server knows again."""
IN_PROGRESS = 64
"""How many requests a server holds unanswered; further ones are rejected."""


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
    """Asks a control server. May be called from several threads.

    Each request has a socket of its own, closed without linger: one that went unanswered leaves nothing
    queued that could stop an experiment minutes later, when its server comes up.

    Args:
        endpoint: where the server is; a string is an address.

    Raises:
        InputError: the string is no ZMQ address.
    """

    def __init__(self, endpoint: Endpoint | str) -> None:
        self.endpoint = Endpoint.at(endpoint) if isinstance(endpoint, str) else endpoint
        self._closing = threading.Event()

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Ask for ``action``; after ``timeout`` s, or when closed, the answer is ``expired``. Never raises.

        Once the request is sent, any failure and any answer that cannot be read is ``expired`` too, because the
        action may have been carried out; what fails before is ``rejected``. It is safe to repeat an ``id``: the
        server repeats its answer and acts once.
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
                    return _understood(link.socket.recv(), id)
        except Exception as error:  # a Control never raises
            log.exception("control request failed", endpoint=self.endpoint.address, id=id, action=action)
            why = f"{type(error).__name__}: {error}"
            return Reply("expired", f"sent, outcome unknown: {why}") if sent else Reply("rejected", why)
        if self._closing.is_set():
            return Reply("expired", "the control was closed")
        return Reply("expired", f"{self.endpoint.address} did not answer within {timeout:g} s")

    def close(self) -> None:
        self._closing.set()


def _understood(payload: bytes, id: str) -> Reply:
    """What an answer to the request ``id`` says; one that cannot be understood leaves open what was done."""
    try:
        answer = _Answer.model_validate(_from_json(payload))
        # A server that could not read a request rejects it without an id.
        if answer.id != id and not (answer.id is None and answer.status == "rejected"):
            raise ValueError(f"it is to the id {answer.id!r:.80}")
    except ValueError as error:
        return Reply("expired", f"answered, but not understood: outcome unknown ({_why(error)})")
    return Reply(answer.status, answer.reason or "")


@dataclass(slots=True)
class _Job:
    """A request being carried out, and who waits for its answer."""

    id: Id
    future: Future[Reply]
    envelopes: list[list[bytes]] = field(default_factory=list)


class ControlServer:
    """Answers control requests with ``handler``, which runs them one after the other on its own thread.

    A repeated id is answered as before and not carried out again, also while the first is still in progress.
    What is not a request is rejected with a reason. A request whose handler raises is ``expired``: the handler may
    have acted before.

    Args:
        endpoint: where to bind; a string is an address, port 0 takes a free one (see ``address``).

    Raises:
        EndpointUnreachable: it cannot be bound.
        InputError: the string is no ZMQ address, the endpoint connects instead of binding, or its CURVE
            certificate cannot be used.
    """

    def __init__(self, endpoint: Endpoint | str, handler: Handler) -> None:
        if isinstance(endpoint, str):
            endpoint = Endpoint.at(endpoint, bind=True)
        if not endpoint.bind:
            raise InputError(f"{endpoint.address}: a control server binds; set bind: true")
        self._handler = handler
        # Both by the id's JSON text: to Python 1, 1.0 and true are one key.
        self._running: dict[str, _Job] = {}
        self._answered: FIFOCache[str, Reply] = FIFOCache(REMEMBERED)
        self._closing = threading.Event()
        self._link = EndpointSocket(endpoint, zmq.ROUTER)
        try:
            self.address = self._link.attach()
        except BaseException:
            self._link.close()
            raise
        self._hands = ThreadPoolExecutor(1, thread_name_prefix="control-handler")
        self._thread = threading.Thread(target=self._serve, name="control-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; a handler at work is let finish, those waiting are dropped."""
        self._closing.set()
        self._thread.join()
        self._hands.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                # Handlers are looked after every few ms; when none is at work only `close` has to be noticed.
                if self._link.socket.poll(2 if self._running else POLL_MS):
                    *envelope, payload = self._link.socket.recv_multipart()
                    self._take(envelope, payload)
                for key in [key for key, job in self._running.items() if job.future.done()]:
                    self._finish(key)
        finally:
            self._link.close(linger_ms=POLL_MS)

    def _take(self, envelope: list[bytes], payload: bytes) -> None:
        asked: Any = None
        try:
            asked = _from_json(payload)
            request = _Request.model_validate(asked)
        except ValueError as error:
            reason = f"malformed request: {_why(error)}"
            log.warning("control request rejected", reason=reason)
            self._send(envelope, _id_in(asked), Reply("rejected", reason))
            return
        key = to_json(request.id)
        if key in self._answered:
            self._send(envelope, request.id, self._answered[key])
        elif key in self._running:
            self._running[key].envelopes.append(envelope)
        elif len(self._running) >= IN_PROGRESS:
            self._send(envelope, request.id, Reply("rejected", f"{IN_PROGRESS} requests are in progress"))
        else:
            future = self._hands.submit(self._carry_out, request)
            self._running[key] = _Job(request.id, future, [envelope])

    def _carry_out(self, request: _Request) -> Reply:
        try:
            reply = self._handler(request.action, request.args)
            if not isinstance(reply, Reply):
                raise TypeError(f"handler answered {reply!r}, expected a Reply")
            return reply
        except Exception as error:  # a handler's mistake must not end the control
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
    """What stands in ``payload``.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error


def _id_in(asked: Any) -> Id | None:
    """The id of a request that is otherwise malformed, so that its sender can tell which."""
    id = asked.get("id") if isinstance(asked, dict) else None
    return id if isinstance(id, str | int) or (isinstance(id, float) and math.isfinite(id)) else None


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg']}" if where else found["msg"]
