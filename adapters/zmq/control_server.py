"""The server of control requests: it checks the senders, orders the requests, and remembers the answers."""

import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import zmq
from cachetools import FIFOCache, LRUCache
from pydantic import BaseModel, BeforeValidator, Field, StrictInt

from ...agent.types import URGENT_ACTIONS, InputError, Reply, get_logger
from ..codecs import to_json
from .authentication import VALID_FOR_S, ControlEndpoint, is_authentic, is_recent, signed
from .control import HEARTBEAT, LEASE, RELEASE, Id, cause_of, from_json
from .guard import Refusals
from .lease import Lease
from .socket import POLL_MS, EndpointSocket

log = get_logger()

Handler = Callable[[str, Mapping[str, Any]], Reply]
"""Carries out ``(action, args)`` and returns the outcome."""

_MAX_ANSWERED_IDS, _MAX_CLIENTS = 4096, 64
"""Number of a client's answered ids that a server recognises when repeated, and number of such clients."""
_MAX_UNANSWERED, _MAX_UNANSWERED_OF_CLIENT = 64, 8
"""Largest number of unanswered requests of one lane (urgent or not), in total and per client; others are rejected."""
_MAX_REQUEST_BYTES = 131_072
"""Size at which libzmq disconnects a client."""
_MAX_QUEUED_MESSAGES = 100
"""Number of messages that libzmq queues from or to a connection."""
_BUSY_POLL_MS = 2
"""Interval at which a server checks for finished handlers while any of them works, ms."""

_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Number = StrictInt | Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Request(BaseModel):
    """A request as a client sends it; further keys are ignored."""

    id: _Text | _Number
    action: _Text
    args: Annotated[dict[str, Any], BeforeValidator(lambda args: {} if args is None else args)] = {}
    agent: Annotated[str, Field(max_length=200)] = ""
    """Name of the agent, under which it holds the lease of a beamline."""

    @property
    def digest(self) -> bytes:
        """Hash that two requests share only if they request the same."""
        return hashlib.sha256(json.dumps([self.action, self.args], sort_keys=True).encode()).digest()


@dataclass(frozen=True, slots=True)
class _Asker:
    """A client that waits for an answer."""

    envelope: list[bytes]
    client: str
    """CURVE key; empty if the transport does not distinguish clients."""
    auth: str | None = None
    """Proof in the request; the answer repeats it."""


@dataclass(slots=True)
class _Job:
    """A request in progress, with the clients that wait for its answer."""

    id: Id
    digest: bytes
    urgent: bool
    query: bool
    future: Future[Reply]
    askers: list[_Asker] = field(default_factory=list)


class RequestServer:
    """Answers requests of identified clients; ``carry_out`` receives each request once.

    The server only accepts a client that CURVE, the Unix socket or the shared secret identifies. ``stop`` and
    ``abort`` are carried out on a separate thread and never wait for other requests, which are carried out one after
    another. Of either kind, a client may have eight unanswered requests.

    A repeated request receives the same answer without a second execution, even while the first one is in progress;
    another request with its id is rejected. A malformed request is rejected with a reason. If ``carry_out`` raises,
    the answer is ``expired``, because it may have acted before.

    Parameters
    ----------
    endpoint : ControlEndpoint or str
        Endpoint to bind, or its address; port 0 selects a free port (see ``address``).
    carry_out : callable
        Receives a request, on two threads, and returns a Reply.
    queries : collection of str
        Actions that only query. They wait for no others, and their answers are not kept for repetitions.
    urgent : collection of str
        Actions that wait for no others, instead of ``stop`` and ``abort``.

    Raises
    ------
    EndpointUnreachable
        The endpoint cannot be bound.
    InputError
        The string is not a ZMQ address, the endpoint connects instead of binding, nothing would identify its clients,
        or its CURVE certificate is invalid.
    """

    def __init__(
        self,
        endpoint: ControlEndpoint | str,
        carry_out: Callable[[Request], Reply],
        *,
        queries: Collection[str] = (),
        urgent: Collection[str] = URGENT_ACTIONS,
    ) -> None:
        if isinstance(endpoint, str):
            endpoint = ControlEndpoint.at(endpoint, bind=True)
        if not endpoint.bind:
            raise InputError(f"{endpoint.address}: a control server binds; set bind: true")
        self._secret = endpoint.shared_secret()
        self._handler, self._queries, self._urgent = carry_out, frozenset(queries), frozenset(urgent)
        self._began = time.monotonic()
        # Both by client and the JSON text of the id, since 1, 1.0 and True are the same key in Python.
        self._running: dict[tuple[str, str], _Job] = {}
        self._answered: LRUCache[str, FIFOCache[str, tuple[bytes, Reply]]] = LRUCache(_MAX_CLIENTS)
        self._closing = threading.Event()
        self._link = EndpointSocket(endpoint, zmq.ROUTER)
        self._link.socket.maxmsgsize = _MAX_REQUEST_BYTES
        self._link.socket.rcvhwm = self._link.socket.sndhwm = _MAX_QUEUED_MESSAGES
        try:
            self.address = self._link.attach()
        except BaseException:
            self._link.close()
            raise
        self._refuse = Refusals(self.address)
        self._executors = {urgent: ThreadPoolExecutor(1, "control-handler") for urgent in (True, False)}
        self._thread = threading.Thread(target=self._serve, name="control-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; a working handler may finish, and waiting requests are dropped."""
        self._closing.set()
        self._thread.join()
        for executor in self._executors.values():
            executor.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                # Without a working handler, the wait only needs to notice `close`.
                if self._link.socket.poll(_BUSY_POLL_MS if self._running else POLL_MS):
                    self._receive()
                for key in [key for key, job in self._running.items() if job.future.done()]:
                    self._finish(key)
        finally:
            self._link.close(linger_ms=POLL_MS)

    def _receive(self) -> None:
        *envelope, payload = self._link.socket.recv_multipart(copy=False)
        guard = self._link.guard
        client = guard.sender(payload) if guard is not None else ""
        if client is None:
            return
        asker = _Asker([frame.bytes for frame in envelope], client)
        content: Any = None
        try:
            content = from_json(payload.bytes)
            if (refusal := self._refusal(content)) is not None:
                self._refuse(str(payload.get("Peer-Address")), refusal)
                self._send(asker, _id_in(content), Reply("rejected", refusal))
                return
            if self._secret is not None:
                asker = replace(asker, auth=content["auth"])
            request = Request.model_validate(content)
        except ValueError as error:
            reason = f"malformed request: {cause_of(error)}"
            self._refuse(client or "a client", reason)
            self._send(asker, _id_in(content), Reply("rejected", reason))
            return
        self._take(request, asker)

    def _refusal(self, content: Any) -> str | None:
        """Return why the sender of a request is refused; None if it knows the secret or needs none."""
        if self._secret is None:
            return None
        if not is_authentic(content, self._secret):
            return "not authorised: auth does not prove the shared secret"
        # The start time by today's clock, since a clock that was put back must not lock the agent out.
        if not is_recent(content, time.time() - (time.monotonic() - self._began)):
            return f"not authorised: not sent within the last {VALID_FOR_S:g} s, or before this server started"
        return None

    def _take(self, request: Request, asker: _Asker) -> None:
        key = asker.client, to_json(request.id)
        query = request.action in self._queries
        answered = self._answered.get(asker.client, {}).get(key[1])
        running = self._running.get(key)
        if answered is not None:
            same, reply = answered[0] == request.digest, answered[1]
            self._send(asker, request.id, reply if same else _OTHER_CONTENT)
        elif running is not None:
            if running.digest == request.digest:
                running.askers.append(asker)
            else:
                self._send(asker, request.id, _OTHER_CONTENT)
        elif (full := self._full(urgent := query or request.action in self._urgent, asker.client)) is not None:
            self._send(asker, request.id, Reply("rejected", full))
        else:
            future = self._executors[urgent].submit(self._carry_out, request)
            self._running[key] = _Job(request.id, request.digest, urgent, query, future, [asker])

    def _full(self, urgent: bool, client: str) -> str | None:
        """Return why no further request of a lane is accepted; None if one is."""
        lane = Counter(asker for (asker, _), job in self._running.items() if job.urgent == urgent)
        if lane[client] >= _MAX_UNANSWERED_OF_CLIENT:
            return f"{lane[client]} requests of this client are in progress"
        return f"{lane.total()} requests are in progress" if lane.total() >= _MAX_UNANSWERED else None

    def _carry_out(self, request: Request) -> Reply:
        try:
            reply = self._handler(request)
            if not isinstance(reply, Reply):
                raise TypeError(f"handler returned {reply!r}, expected a Reply")
            return reply
        except Exception as error:  # a failing handler must not end the server
            log.exception("control handler failed", id=request.id, action=request.action)
            return Reply("expired", f"outcome unknown: {type(error).__name__}: {error}")

    def _finish(self, key: tuple[str, str]) -> None:
        job = self._running.pop(key)
        reply = job.future.result()
        client, id = key
        if not job.query:
            self._answered.setdefault(client, FIFOCache(_MAX_ANSWERED_IDS))[id] = job.digest, reply
        for asker in job.askers:
            self._send(asker, job.id, reply)

    def _send(self, asker: _Asker, id: Id | None, reply: Reply) -> None:
        answer: dict[str, Any] = {"id": id, "status": reply.status, "reason": reply.reason}
        answer |= {"data": reply.data} if reply.data else {}
        if asker.auth is not None:
            answer = signed({**answer, "request": asker.auth}, self._secret)
        self._link.socket.send_multipart([*asker.envelope, to_json(answer).encode()])


class ControlServer(RequestServer):
    """A :class:`RequestServer` whose ``handler`` carries out the actions and need not know the ids.

    One agent controls the beamline at a time: the first one that acts or sends a heartbeat, until it releases the
    lease or shows no sign of life for ``lease_s``. Until then, requests of other agents are rejected, except ``stop``
    and ``abort``.

    Parameters
    ----------
    endpoint : ControlEndpoint or str
        As for :class:`RequestServer`.
    handler : callable
        Receives action and arguments, on two threads, and returns a Reply.
    lease_s : float or None
        Time without a sign of life after which another agent may take over, s; None: any number of agents may act.
    safe_action : str or None
        Action that the server itself carries out, on another thread, if the controlling agent falls silent, such as
        ``pause``; None: nothing. It applies to agents with ``heartbeat_s``, which give signs of life.
    """

    def __init__(
        self,
        endpoint: ControlEndpoint | str,
        handler: Handler,
        *,
        lease_s: float | None = 60.0,
        safe_action: str | None = None,
    ) -> None:
        self._act, self._safe_action = handler, safe_action
        self._lease = None if lease_s is None else Lease(lease_s, self._make_safe)
        try:
            super().__init__(endpoint, self._obey)
        except BaseException:
            self._close_lease()
            raise

    def close(self) -> None:
        """Stop answering; a working handler may finish, and waiting requests are dropped."""
        self._close_lease()
        super().close()

    def _close_lease(self) -> None:
        if self._lease is not None:
            self._lease.close()

    def _obey(self, request: Request) -> Reply:
        # Anybody with access may stop the experiment.
        lease = None if request.action in URGENT_ACTIONS else self._lease
        if lease is not None and (refusal := lease.take(request.agent)):
            return Reply("rejected", refusal)
        reply = self._act(request.action, request.args)
        told = lease is not None and isinstance(reply, Reply)  # pyright: ignore  a handler may return anything
        return reply if lease is None or not told else replace(reply, data={**reply.data, LEASE: lease.seconds})

    def _take(self, request: Request, asker: _Asker) -> None:
        # A sign of life waits for no action, however long that takes.
        if request.action == HEARTBEAT:
            refusal = "" if self._lease is None else self._lease.take(request.agent, lives=True)
            self._send(asker, request.id, Reply("rejected", refusal) if refusal else Reply("acknowledged"))
        elif request.action == RELEASE:
            if self._lease is not None:
                self._lease.release(request.agent)
            self._send(asker, request.id, Reply("acknowledged"))
        else:
            super()._take(request, asker)

    def _make_safe(self, agent: str) -> None:
        if self._safe_action is None:
            return
        reply = self._act(self._safe_action, {"reason": f"agent {agent} fell silent"})
        log.warning("safe action", action=self._safe_action, status=reply.status, reason=reply.reason)


_OTHER_CONTENT = Reply("rejected", "the id belongs to an earlier request with another action or other arguments")


def _id_in(content: Any) -> Id | None:
    """Return the id of a malformed request, by which its sender recognises the rejection."""
    id = content.get("id") if isinstance(content, dict) else None
    return id if isinstance(id, str | int) or (isinstance(id, float) and math.isfinite(id)) else None
