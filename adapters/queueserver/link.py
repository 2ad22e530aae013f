"""The RE Manager of a queue server: its address, its state, and a connection for one control request.

The manager answers JSON requests ``{method, params}`` on a ZMQ socket, one after another. bluesky-queueserver-api is
not used to send them: it may deliver a request that it reported as timed out to a manager that starts later
(``docs/decisions/0029-requests-to-a-queue-server.md``).
"""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq
from pydantic import BaseModel, Field, field_validator

from ...agent.types import Settings

_POLL_S = 0.1
"""Longest time until a wait notices that the control was closed, and interval between checks of the state, s."""
_LONGEST_WAIT_S = 5.0
"""Longest wait for one answer, s; the manager sends a long history slowly."""
_SETTLE_S = 2.0
"""Time for which a refusal counts as temporary, s: the manager polls its worker every 0.5 s."""
ENVIRONMENT_CLOSED = "the environment is closed: open it in the queue server"
_ADDRESS = re.compile(r"tcp://[^\s/:*]+:\d{1,5}|ipc:///\S+")
_PUBLIC_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


class QueueServerSettings(Settings):
    """RE Manager of a bluesky-queueserver that carries out the decisions."""

    address: str = "tcp://localhost:60615"
    """Address of the manager's control socket: ``tcp://HOST:PORT``, or ``ipc:///PATH``."""
    public_key: str | None = None
    """The manager's public key, 40 characters as ``qserver-zmq-keys`` prints them; unset: the manager does not
    encrypt."""
    user: str = "xas-agent"
    """Name that the queue shows as the user of the agent's plans."""
    user_group: str = "primary"
    """User group; its permissions in the queue server determine which plans and devices the agent may use."""
    lease: Path | None = None
    """File that is locked by the one agent that may act on this manager; others may only stop. Unset: a file on this
    machine in ``/tmp``, named after the manager. Agents on several machines need the same file on a shared disk."""
    retry_s: float = Field(default=0.5, gt=0)
    """Time without an answer after which the manager is asked again, s; it doubles each time, up to 5 s.
    ``control.timeout_s`` limits the whole request."""

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        if not _ADDRESS.fullmatch(address):
            raise ValueError(f"found {address!r}, expected tcp://HOST:PORT or ipc:///PATH")
        return address

    @field_validator("public_key")
    @classmethod
    def _is_a_key(cls, key: str | None) -> str | None:
        if key is not None and not _PUBLIC_KEY.fullmatch(key):
            raise ValueError(f"found {len(key)} characters, expected the 40 of a public key in Z85")
        return key


class ManagerState(BaseModel):
    """The manager's status; other keys are ignored."""

    manager_state: str
    """``idle``, ``executing_queue``, ``paused``, …"""
    worker_environment_exists: bool
    items_in_queue: int
    running_item_uid: str | None
    pause_pending: bool
    plan_history_uid: str
    """Uid that changes with each entry of the history."""

    @property
    def executing(self) -> bool:
        return self.manager_state in ("executing_queue", "starting_queue")

    @property
    def refusal(self) -> str | None:
        """Why there is no plan to act on; None if there is one."""
        if not self.worker_environment_exists:
            return ENVIRONMENT_CLOSED
        return None if self.executing or self.manager_state == "paused" else "no plan is running"

    def __str__(self) -> str:
        environment = "open" if self.worker_environment_exists else "closed"
        return f"the manager is {self.manager_state}, {self.items_in_queue} queued, environment {environment}"


class Unanswered(Exception):  # noqa: N818  named after the event
    """The time is over, or the control was closed."""


class Refused(Exception):  # noqa: N818  named after the event
    """The manager refused a request."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        said, _, _ = str(answer.get("msg")).partition("\nPlan: ")  # known to the sender
        super().__init__(" ".join(said.split()))


class ManagerLink:
    """A connection for one control request, which ends with it; not thread-safe.

    All messages of a request travel over one connection, and the manager answers them in order. The answer to a
    question therefore shows the effect of every earlier message, even of one whose own answer was lost. Answers carry
    the number of their message, so that late or repeated answers cannot be mistaken. Unsent messages are dropped at
    the end, so that none reaches a manager that starts later.

    Parameters
    ----------
    settings : QueueServerSettings
    timeout_s : float
        Time for the whole request, s.
    closing : threading.Event
        Ends every wait.
    """

    def __init__(self, settings: QueueServerSettings, timeout_s: float, closing: threading.Event) -> None:
        self.settings = settings
        self.acted = False
        """Whether the manager may have carried out anything."""
        self.state: ManagerState | None = None
        """Latest state of the manager."""
        self._end = time.monotonic() + timeout_s
        self._closing = closing
        self._number = 0
        self._refused_at: dict[str, float] = {}
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        if settings.public_key is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = zmq.curve_keypair()
            self._socket.curve_serverkey = settings.public_key.encode()
        self._socket.connect(settings.address)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a request that may be repeated; it is sent until an answer arrives.

        Raises
        ------
        Unanswered
        Refused
        """
        first, wait_s = self._number + 1, self.settings.retry_s
        while True:
            self._send(method, params)
            if (answer := self._answer(first, wait_s)) is not None:
                break
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        if not answer.get("success", True):
            raise Refused(answer)
        return answer

    def act(self, method: str, *, settle_s: float = _SETTLE_S, **params: Any) -> bool:
        """Send a request once; return whether the manager has accepted it. If not, only its state shows the effect.

        Raises
        ------
        Unanswered
        Refused
            The manager has refused this request for ``settle_s``.
        """
        self._send(method, params)
        before, self.acted = self.acted, True
        answer = self._answer(self._number, self.settings.retry_s)
        if answer is None or answer.get("success"):
            return answer is not None
        self.acted = before
        now = time.monotonic()
        if now - self._refused_at.setdefault(method, now) >= settle_s:
            raise Refused(answer)
        return False

    def look(self) -> ManagerState:
        """Return the manager's present state."""
        self.state = ManagerState.model_validate(self.ask("status"))
        return self.state

    def watch(self) -> Iterator[ManagerState]:
        """Yield the manager's state repeatedly, until ``Unanswered`` is raised."""
        while True:
            yield self.look()
            self._closing.wait(_POLL_S)

    def _send(self, method: str, params: dict[str, Any]) -> None:
        payload = json.dumps({"method": method, "params": params}).encode()
        while not self._socket.poll(round(1000 * _POLL_S), zmq.POLLOUT):  # for example after a failed handshake
            self._check_time()
        self._check_time()
        self._number += 1
        self._socket.send_multipart([str(self._number).encode(), b"", payload])

    def _answer(self, first: int, wait_s: float) -> dict[str, Any] | None:
        """Return the next answer to a message numbered ``first`` or later; None if none arrives within ``wait_s``."""
        end = time.monotonic() + wait_s
        while (left_s := min(end, self._end) - time.monotonic()) > 0 and not self._closing.is_set():
            if not self._socket.poll(max(1, round(1000 * min(left_s, _POLL_S)))):
                continue
            number, *_, payload = self._socket.recv_multipart()
            if number.isdigit() and first <= int(number) <= self._number:
                return json.loads(payload)
        self._check_time()
        return None

    def _check_time(self) -> None:
        if self._closing.is_set() or time.monotonic() >= self._end:
            raise Unanswered

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()
