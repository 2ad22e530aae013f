"""Control over ZMQ: requests ``{id, action, args}`` and answers ``{id, status, reason}``, both JSON.

The answer to a query also has ``data``.

If the two sides share a secret, a request has its ``time`` (Unix, s), an answer the ``auth`` of its ``request``,
and both have their own ``auth``, which proves the secret. The peer may be any REQ or DEALER client, or any REP or
ROUTER server, that exchanges these two objects. Further keys are ignored, null stands for an omitted optional value,
and an ``id`` may be a number.
"""

import json
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

import zmq
from pydantic import BaseModel, ValidationError

from ...agent.types import Reply, get_logger, plain_message
from ..codecs import to_json
from .authentication import ControlEndpoint, is_authentic, signed
from .socket import EndpointSocket, wait

log = get_logger()

Id = str | int | float

HEARTBEAT, RELEASE = "heartbeat", "release"
"""Actions by which an agent keeps the lease of a beamline, and by which it gives the lease back."""
LEASE = "lease_s"
"""Key in the answers of a server that reserves the beamline for the agent."""
_RELEASE_TIMEOUT_S, _HEARTBEAT_TIMEOUT_S = 0.5, 2.0


class _Answer(BaseModel):
    id: Id | None = None
    status: Literal["acknowledged", "rejected", "expired"]
    reason: str | None = None
    data: dict[str, Any] | None = None


class ZMQControl:
    """Sends requests to a control server; any thread may call it.

    Each request opens its own socket and closes it without linger. An unanswered request therefore leaves no queued
    message that could stop an experiment minutes later, when the server starts.

    Parameters
    ----------
    endpoint : ControlEndpoint or str
        Endpoint of the server, or its address.
    retry_s : float or None
        Time after which an unanswered request is sent again, s; None sends each request once.
    agent : str or None
        Name under which the agent holds a beamline's lease, equal after a restart; None: that of the process.

    Raises
    ------
    InputError
        The string is not a ZMQ address, or nothing would identify the server.
    """

    def __init__(
        self, endpoint: ControlEndpoint | str, retry_s: float | None = None, agent: str | None = None
    ) -> None:
        self.endpoint = ControlEndpoint.at(endpoint) if isinstance(endpoint, str) else endpoint
        self._secret = self.endpoint.shared_secret()
        self._retry_s = math.inf if retry_s is None else retry_s
        self._agent = f"{socket.gethostname()}:{agent or f'{os.getpid()}:{uuid4().hex[:8]}'}"
        self._closing = threading.Event()
        self._ending, self._leased = threading.Event(), False
        self._living: threading.Thread | None = None
        if self.endpoint.heartbeat_s is not None:
            self._living = threading.Thread(target=self._live, name="heartbeat", daemon=True)
            self._living.start()

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Request ``action`` and return the answer; never raises.

        Without an answer within ``timeout`` s, or after ``close``, the reply is ``expired``. So is any failure after
        sending and any unreadable answer, because the server may have carried out the action; a failure before
        sending is ``rejected``. An ``id`` may be repeated: the server repeats its answer and acts once.
        """
        if self._closing.is_set():
            return Reply("rejected", "the control is closed")
        sent, end = False, time.monotonic() + timeout
        try:
            while not sent or (time.monotonic() < end and not self._closing.is_set()):
                request = self._request(id, action, args)
                message = to_json(request).encode()
                with EndpointSocket(self.endpoint, zmq.REQ) as link:
                    link.attach()
                    link.socket.send(message)
                    sent = True
                    left = min(end - time.monotonic(), self._retry_s)
                    if wait(
                        lambda ms, link=link: bool(link.socket.poll(ms)), left, self._closing, link.endpoint.address
                    ):
                        return self._reply_from(link.socket.recv(), request)
        except Exception as error:  # a Control never raises
            log.exception("control request failed", endpoint=self.endpoint.address, id=id, action=action)
            cause = f"{type(error).__name__}: {error}"
            return Reply("expired", f"sent, outcome unknown: {cause}") if sent else Reply("rejected", cause)
        if self._closing.is_set():
            return Reply("expired", "the control was closed")
        return Reply("expired", f"{self.endpoint.address} did not answer within {timeout:g} s")

    def close(self) -> None:
        """Give the lease of the beamline back, and send no more requests."""
        self._ending.set()
        if self._living is not None:
            self._living.join()  # first, so that no heartbeat takes the lease again
        if (self._living is not None or self._leased) and not self._closing.is_set():
            self.request(uuid4().hex, RELEASE, {}, _RELEASE_TIMEOUT_S)
        self._closing.set()

    def _live(self) -> None:
        """Send heartbeats; log when the server refuses or does not answer, and when it answers again."""
        interval_s = self.endpoint.heartbeat_s or 1.0
        heard = ""
        while not self._ending.is_set():
            reply = self.request(uuid4().hex, HEARTBEAT, {}, min(interval_s, _HEARTBEAT_TIMEOUT_S))
            said = "" if reply.status == "acknowledged" else reply.reason
            if bool(said) != bool(heard):
                if said:
                    log.warning("no control of the beamline", endpoint=self.endpoint.address, detail=said)
                else:
                    log.info("control of the beamline", endpoint=self.endpoint.address)
            heard = said
            self._ending.wait(interval_s)

    def _request(self, id: str, action: str, args: Mapping[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = {"id": id, "action": action, "args": dict(args), "agent": self._agent}
        return signed(content if self._secret is None else {**content, "time": time.time()}, self._secret)

    def _reply_from(self, payload: bytes, request: Mapping[str, Any]) -> Reply:
        """Return the answer to a request; ``expired`` if it may be another's, since the outcome is then unknown."""
        id = request["id"]
        try:
            content = from_json(payload)
            answer = _Answer.model_validate(content)
            if self._secret is not None and not (
                is_authentic(content, self._secret) and content.get("request") == request["auth"]
            ):
                said = f"{answer.status}: {answer.reason or ''}"
                raise ValueError(f"without proof of the shared secret: {said:.200}")
            # A server that cannot read a request rejects it without an id.
            if answer.id != id and not (answer.id is None and answer.status == "rejected"):
                raise ValueError(f"found the id {answer.id!r:.80}, expected {id!r:.80}")
        except ValueError as error:
            return Reply("expired", f"unusable answer, outcome unknown ({cause_of(error)})")
        data = dict(answer.data or {})
        self._leased |= data.pop(LEASE, None) is not None
        return Reply(answer.status, answer.reason or "", data)


def from_json(payload: bytes) -> Any:
    """Parse JSON; raise ValueError for anything else."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error


def cause_of(error: Exception) -> str:
    """Return the cause of an error on one line, with the first key that a validation rejected."""
    if not isinstance(error, ValidationError):
        return str(error)
    details = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in details["loc"])
    message = plain_message(details["msg"])
    return f"{key}: {message}" if key else message
