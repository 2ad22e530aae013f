"""A ZMQ socket of an endpoint: its address, its CURVE keys, and the wait for its peer."""

import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq
from pydantic import DirectoryPath, Field, FilePath, ValidationError, field_validator, model_validator
from zmq.utils.monitor import recv_monitor_message

from ...agent.types import InputError, Settings, get_logger, plain_message
from ..errors import EndpointUnreachable
from .guard import Guard
from .keys import read_certificate

log = get_logger()

POLL_MS = 100
"""Longest time until a wait notices its cancellation, ms."""
_RECONNECT_MS = 100
_RECONNECT_MAX_MS = 5000
"""First and longest interval between attempts to reconnect, ms; each is twice the one before."""
_HEARTBEAT_MS = 2000
"""Interval of the heartbeats that reveal a peer whose machine or network has failed, ms."""
_HEARTBEAT_TIMEOUT_MS = 10_000
_LOG_WAIT_AFTER_S = 1.0
"""Time after which a wait is logged."""
_OPENED = zmq.Event.ACCEPTED | zmq.Event.CONNECTED
_WATCHED = _OPENED | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED

_ADDRESS = re.compile(r"(?:(?:zmq|tcp)://)?(?P<host>[^\s/:]+):(?P<port>\d{1,5})")
_LOOPBACK = re.compile(r"(tcp://)?(127\.[\d.]+|localhost):\d+")


class Endpoint(Settings):
    """Address and security of a ZMQ socket."""

    address: str
    """``zmq://HOST:PORT``, also written ``tcp://HOST:PORT`` or ``HOST:PORT``; or ``ipc:///PATH``, a Unix socket. When
    binding, port 0 selects a free port."""
    bind: bool = False
    """Whether to bind the address instead of connecting to it."""
    connect_timeout_s: float = Field(default=10.0, ge=0)
    """Longest wait for the peer's answer, s; 0 waits without limit."""
    curve_secret_key: FilePath | None = None
    """This side's CURVE certificate with the secret key, a file from ``xas-agent keys make``."""
    curve_server_key: FilePath | None = None
    """Public CURVE certificate of the binding side, required to connect with CURVE."""
    curve_client_keys: DirectoryPath | None = None
    """Folder with the public certificates of permitted clients, for an endpoint that binds. It is read again while
    the socket is in use: a client whose file is removed is disconnected within a second. Unset: every client that
    knows the server's public key may connect."""

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        if address.startswith("ipc://"):
            if address[6:7] in ("", "*", "@"):
                raise ValueError(f"found {address!r}, expected ipc:///PATH")
            return address
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(f"found {address!r}, expected zmq://HOST:PORT or ipc:///PATH")
        return address

    @model_validator(mode="after")
    def _curve_is_complete(self) -> Self:
        if self.curve_client_keys is not None and not (self.bind and self.curve_secret_key):
            raise ValueError("curve_client_keys requires bind and curve_secret_key")
        if self.bind and self.curve_server_key is not None:
            raise ValueError("curve_server_key requires an endpoint that connects; this one binds")
        if not self.bind and (self.curve_secret_key is None) != (self.curve_server_key is None):
            raise ValueError("connecting with CURVE requires both curve_secret_key and curve_server_key")
        return self

    @classmethod
    def at(cls, address: str, *, bind: bool = False) -> Self:
        """Return the endpoint of an address with default settings; raise InputError for anything else."""
        try:
            return cls(address=address, bind=bind)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            raise InputError(f"ZMQ address: {plain_message(message)}") from None

    @property
    def zmq_address(self) -> str:
        """Address in the form that libzmq expects.

        >>> Endpoint(address="zmq://localhost:5578").zmq_address
        'tcp://localhost:5578'
        """
        if self.is_unix:
            return self.address
        return "tcp://" + self.address.split("://")[-1]

    @property
    def is_unix(self) -> bool:
        """Whether the address is a Unix socket, whose file determines which users may connect."""
        return self.address.startswith("ipc://")

    @property
    def local(self) -> bool:
        """Whether no other machine can reach the address.

        >>> [Endpoint(address=a).local for a in ("localhost:5578", "127.0.0.1:0", "ipc:///run/x", "0.0.0.0:5578")]
        [True, True, True, False]
        """
        return self.is_unix or _LOOPBACK.fullmatch(self.zmq_address) is not None


class EndpointSocket:
    """A socket with its own context, unconnected until ``attach``; not thread-safe.

    Parameters
    ----------
    endpoint : Endpoint
    kind : int
        Type of the socket, such as ``zmq.SUB``.
    peer_ends : bool
        Whether the peer ends before this side, so that its loss is no cause for a warning.

    Raises
    ------
    InputError
        A CURVE certificate is invalid.
    """

    def __init__(self, endpoint: Endpoint, kind: int, *, peer_ends: bool = False) -> None:
        self.endpoint = endpoint
        self._peer_ends = peer_ends
        self.guard: Guard | None = None
        """Identifies the clients of a socket that binds under CURVE."""
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(kind)
        # No high-water mark, since it would drop messages: a lost frame is worse than a full memory.
        self.socket.sndhwm = self.socket.rcvhwm = 0
        self.socket.reconnect_ivl, self.socket.reconnect_ivl_max = _RECONNECT_MS, _RECONNECT_MAX_MS
        self.socket.heartbeat_ivl, self.socket.heartbeat_timeout = _HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS
        self._monitor: zmq.Socket[bytes] | None = None
        self._opened = self._closed = self._peers = 0
        """Numbers of connections opened and closed, and of those in use after a handshake."""
        self._lost_at: float | None = None
        """``time.monotonic()`` at which the last peer disconnected."""
        try:
            self._apply_curve()
        except BaseException:
            self.close()
            raise

    def attach(self) -> str:
        """Bind, or begin to connect; return the address, with the port that replaces port 0.

        Raises
        ------
        EndpointUnreachable
            The address cannot be bound.
        """
        try:
            if not self.endpoint.bind:
                self.socket.connect(self.endpoint.zmq_address)
                return self.endpoint.zmq_address
            self._bind()
        except (zmq.ZMQError, OSError) as error:
            raise EndpointUnreachable(self.endpoint.address, str(error)) from error
        address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if self.guard is not None:
            self.guard.refuse.endpoint = address
        if not (self.endpoint.curve_secret_key or Endpoint(address=address).local):
            log.warning("endpoint accepts other machines without CURVE", endpoint=address)
        return address

    def _bind(self) -> None:
        if not self.endpoint.is_unix:
            self.socket.bind(self.endpoint.zmq_address)
            return
        path = Path(self.endpoint.address.removeprefix("ipc://"))
        _check_replaceable(path)
        # libzmq creates the file with the mode of the umask; the filter protects it until chmod.
        self.socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        self.socket.bind(self.endpoint.address)
        path.chmod(0o600)

    def attach_and_wait(self, cancelled: threading.Event) -> str:
        """Attach and, unless binding, wait for the ZMQ handshake with a peer or until ``cancelled`` is set.

        From now on :meth:`watch_connection` counts the peers, except with a guard: a socket has one monitor, which
        the guard then uses.

        Raises
        ------
        EndpointUnreachable
            No handshake within ``connect_timeout_s``.
        """
        if self.guard is None:
            self._monitor = self.socket.get_monitor_socket(_WATCHED, "inproc://connection")
        address = self.attach()
        if self.endpoint.bind:
            return address
        timeout = self.endpoint.connect_timeout_s
        if not wait(self.watch_connection, timeout or None, cancelled, address) and not cancelled.is_set():
            found = (
                "no handshake with a ZMQ peer (wrong port, or CURVE keys?)" if self._opened else "nothing answered"
            )
            raise EndpointUnreachable(self.endpoint.address, f"{found} within {timeout:g} s")
        return address

    @property
    def connected(self) -> bool:
        """Whether a peer was connected at the last :meth:`watch_connection`; True if peers are not counted."""
        return self._monitor is None or self._peers > 0

    def watch_connection(self, poll_ms: int = 0) -> bool:
        """Count the peers, log when the last one was lost and when one returned, and return :attr:`connected`.

        Parameters
        ----------
        poll_ms : int
            Longest wait for news of a connection.
        """
        while self._monitor is not None and self._monitor.poll(poll_ms):
            poll_ms = 0
            event = recv_monitor_message(self._monitor)["event"]
            self._opened += bool(event & _OPENED)
            self._closed += event == zmq.Event.DISCONNECTED
            # Not simply one less at each end, since connections without a handshake, such as a port scan, end too.
            peers = min(self._peers + (event == zmq.Event.HANDSHAKE_SUCCEEDED), self._opened - self._closed)
            before, self._peers = self._peers, peers
            if before and not peers:
                self._lost_at = time.monotonic()
                if self._peer_ends:
                    log.info("the beamline has ended", endpoint=self.endpoint.zmq_address)
                else:
                    log.warning("connection lost", endpoint=self.endpoint.zmq_address)
            elif peers and self._lost_at is not None:
                away_s = round(time.monotonic() - self._lost_at, 1)
                self._lost_at = None
                log.warning(
                    "connected again; documents sent meanwhile are lost",
                    endpoint=self.endpoint.zmq_address,
                    away_s=away_s,
                )
        return self.connected

    def close(self, linger_ms: int = 0) -> None:
        """Close socket and context; queued messages may still be sent for ``linger_ms``."""
        if self.guard is not None:
            self.socket.disable_monitor()
        if self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
        self.socket.close(linger=linger_ms)
        if self.guard is not None:
            self.guard.close()
            self.guard = None
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _apply_curve(self) -> None:
        certificate = self.endpoint.curve_secret_key
        if certificate is None:
            return
        public, secret = read_certificate(certificate)
        if secret is None:
            raise InputError(f"{certificate}: found a public CURVE certificate, expected one with the secret key")
        _refuse_if_others_read(certificate)
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        if self.endpoint.bind:
            self.socket.curve_server = True
            self.guard = Guard(self.socket, self.endpoint.address, self.endpoint.curve_client_keys)
        elif self.endpoint.curve_server_key is not None:
            self.socket.curve_serverkey = read_certificate(self.endpoint.curve_server_key)[0]


def _refuse_if_others_read(certificate: Path) -> None:
    """Raise InputError if others may read a secret key that belongs to this user; warn if it is another user's.

    As with ssh: a secret that a container mounts belongs to root, which sets its mode, often 0440 or 0444.
    """
    if os.name != "posix" or not (found := certificate.stat()).st_mode & 0o077:
        return
    if found.st_uid == os.getuid():
        raise InputError(
            f"{certificate}: others may read this secret key: chmod 600 {certificate}, and make new keys if they "
            "may have read it"
        )
    log.warning("others may read the secret key, which belongs to another user", file=str(certificate))


def wait(answered: Callable[[int], bool], timeout_s: float | None, cancelled: threading.Event, endpoint: str) -> bool:
    """Call ``answered(poll_ms)`` until it returns True, the time is over, or ``cancelled`` is set; log a long wait.

    Parameters
    ----------
    answered : callable
        Polls for at most the given time, ms. It is called at least once unless ``cancelled`` is set.
    timeout_s : float or None
        Longest wait, s; None waits without limit.
    cancelled : threading.Event
    endpoint : str
        Address, for the log.

    Returns
    -------
    bool
        Whether ``answered`` returned True.
    """
    began = time.monotonic()
    end = math.inf if timeout_s is None else began + timeout_s
    logged = False
    while not cancelled.is_set():
        left_ms = 1000 * (end - time.monotonic())
        if answered(round(max(1, min(POLL_MS, left_ms)))):
            return True
        now = time.monotonic()
        if now >= end:
            return False
        if not logged and now - began >= _LOG_WAIT_AFTER_S:
            logged = True
            log.info("waiting", endpoint=endpoint, timeout_s=None if timeout_s is None else round(timeout_s, 1))
    return False


def _check_replaceable(path: Path) -> None:
    """Raise OSError if a file with this name is in use or is not a socket, since libzmq would replace it."""
    if not path.exists():
        return
    if not path.is_socket():
        raise OSError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as other, suppress(ConnectionRefusedError):
        other.connect(str(path))
        raise OSError(f"{path} is in use")
