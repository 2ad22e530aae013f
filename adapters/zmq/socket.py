"""One ZMQ socket of an endpoint: address, CURVE, and the wait until something answers there."""

import math
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq
import zmq.auth
from pydantic import DirectoryPath, Field, FilePath, ValidationError, field_validator, model_validator
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from ...agent.types import InputError, Settings, get_logger
from ..errors import EndpointUnreachable

log = get_logger()

POLL_MS = 100
"""How long a wait may overlook that it was told to end."""
SAY_WAITING_S = 1.0
"""After how long a wait is told of in the log."""

_ADDRESS = re.compile(r"(?:(?:zmq|tcp)://)?(?P<host>[^\s/:]+):(?P<port>\d{1,5})")
_LOOPBACK = ("127.", "localhost:", "ipc:")


class Endpoint(Settings):
    """Where a ZMQ socket is, and how it is secured."""

    address: str
    """``zmq://HOST:PORT``; ``tcp://`` and the bare ``HOST:PORT`` mean the same. Port 0, when binding, takes any free
    port."""
    bind: bool = False
    """Listen at the address instead of connecting to it."""
    connect_timeout_s: float = Field(default=10.0, ge=0)
    """Time to wait until the other side answers, s; 0 waits for ever."""
    curve_secret_key: FilePath | None = None
    """This side's CURVE certificate with the secret key, as ``zmq.auth.create_certificates`` writes it."""
    curve_server_key: FilePath | None = None
    """Public certificate of the binding side; needed to connect with CURVE."""
    curve_client_keys: DirectoryPath | None = None
    """Folder of the public certificates that may connect to a binding endpoint; unset: anyone who knows the server's
    public key may connect."""

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        if address.startswith("ipc://"):
            return address
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(f"found {address!r}, expected zmq://HOST:PORT")
        return address

    @model_validator(mode="after")
    def _curve_is_complete(self) -> Self:
        if self.curve_client_keys is not None and not (self.bind and self.curve_secret_key):
            raise ValueError("curve_client_keys is for an endpoint that binds and has a curve_secret_key")
        if self.bind and self.curve_server_key is not None:
            raise ValueError("curve_server_key is for an endpoint that connects; this one binds")
        if not self.bind and (self.curve_secret_key is None) != (self.curve_server_key is None):
            raise ValueError("connecting with CURVE needs both curve_secret_key and curve_server_key")
        return self

    @classmethod
    def at(cls, address: str, *, bind: bool = False) -> Self:
        """The endpoint at an address that was given alone.

        Raises:
            InputError: it is no ZMQ address.
        """
        try:
            return cls(address=address, bind=bind)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]["msg"]
            raise InputError(f"ZMQ address: {found.removeprefix('Value error, ')}") from None

    @property
    def zmq_address(self) -> str:
        """The address as libzmq takes it.

        >>> Endpoint(address="zmq://localhost:5578").zmq_address
        'tcp://localhost:5578'
        """
        if self.address.startswith("ipc://"):
            return self.address
        return "tcp://" + self.address.split("://")[-1]


class EndpointSocket:
    """A socket with its own context, unconnected until ``attach``; not to be used by two threads at once.

    Raises:
        InputError: a CURVE certificate cannot be used.
    """

    def __init__(self, endpoint: Endpoint, kind: int) -> None:
        self.endpoint = endpoint
        self._authenticator: ThreadAuthenticator | None = None
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(kind)
        # A lost frame is worse than memory, so no high-water mark drops messages.
        self.socket.sndhwm = self.socket.rcvhwm = 0
        try:
            self._apply_curve()
        except BaseException:
            self.close()
            raise

    def attach(self) -> str:
        """Bind, or begin to connect; returns the address, with the port that port 0 became.

        Raises:
            EndpointUnreachable: the address cannot be bound.
        """
        try:
            if not self.endpoint.bind:
                self.socket.connect(self.endpoint.zmq_address)
                return self.endpoint.zmq_address
            self.socket.bind(self.endpoint.zmq_address)
        except zmq.ZMQError as error:
            raise EndpointUnreachable(self.endpoint.address, str(error)) from error
        address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if not self.endpoint.curve_secret_key and not address.removeprefix("tcp://").startswith(_LOOPBACK):
            log.warning("bound beyond loopback without CURVE", endpoint=address)
        return address

    def attach_and_wait(self, cancelled: threading.Event) -> str:
        """``attach``, then wait until the ZMQ handshake with a peer is through; binding waits for none.

        Ends early when ``cancelled`` is set.

        Raises:
            EndpointUnreachable: no handshake within ``connect_timeout_s``.
        """
        if self.endpoint.bind:
            return self.attach()
        monitor = self.socket.get_monitor_socket(zmq.Event.CONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED)
        failure = "nothing answered"

        def through(poll_ms: int) -> bool:
            nonlocal failure
            if not monitor.poll(poll_ms):
                return False
            failure = "not the ZMQ peer expected (wrong port, or CURVE keys?): no handshake"
            return recv_monitor_message(monitor)["event"] == zmq.Event.HANDSHAKE_SUCCEEDED

        timeout = self.endpoint.connect_timeout_s
        try:
            address = self.attach()
            if not wait(through, timeout or None, cancelled, address) and not cancelled.is_set():
                raise EndpointUnreachable(self.endpoint.address, f"{failure} within {timeout:g} s")
        finally:
            self.socket.disable_monitor()
            monitor.close(linger=0)
        return address

    def close(self, linger_ms: int = 0) -> None:
        """Close socket and context; what is still queued has ``linger_ms`` to leave."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        self.socket.close(linger=linger_ms)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _apply_curve(self) -> None:
        own = self.endpoint.curve_secret_key
        if own is None:
            return
        public, secret = _certificate(own)
        if secret is None:
            raise InputError(f"{own}: found a public CURVE certificate, expected one with the secret key")
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        if self.endpoint.bind:
            self.socket.curve_server = True
            clients = self.endpoint.curve_client_keys
            if clients is not None:
                # pyzmq only logs one that it cannot read, and then lets in nobody.
                for path in clients.glob("*.key"):
                    _certificate(path)
                self._authenticator = ThreadAuthenticator(self._context)
                self._authenticator.start()
                self._authenticator.configure_curve(domain="*", location=clients)
        elif self.endpoint.curve_server_key is not None:
            self.socket.curve_serverkey = _certificate(self.endpoint.curve_server_key)[0]


def wait(answered: Callable[[int], bool], timeout_s: float | None, cancelled: threading.Event, endpoint: str) -> bool:
    """Ask ``answered(poll_ms)`` until it is true, ``timeout_s`` are over (None: never) or ``cancelled`` is set.

    Polls in slices short enough to notice ``cancelled``, at least once; says in the log when it takes longer.
    Returns whether it became true.
    """
    began = time.monotonic()
    end = math.inf if timeout_s is None else began + timeout_s
    said = False
    while not cancelled.is_set():
        left_ms = 1000 * (end - time.monotonic())
        if answered(round(max(1, min(POLL_MS, left_ms)))):
            return True
        now = time.monotonic()
        if now >= end:
            return False
        if not said and now - began >= SAY_WAITING_S:
            said = True
            log.info("waiting", endpoint=endpoint, timeout_s=timeout_s)
    return False


def _certificate(path: Path) -> tuple[bytes, bytes | None]:
    """Public and, where the file has it, secret key."""
    try:
        public, secret = zmq.auth.load_certificate(path)
        if any(len(z85.decode(key)) != 32 for key in (public, secret or public)):
            raise ValueError("a key is not of 40 characters")
    except (OSError, ValueError, LookupError) as error:
        raise InputError(
            f"{path}: not a CURVE certificate ({error}), expected a file as zmq.auth.create_certificates writes it"
        ) from error
    return public, secret
