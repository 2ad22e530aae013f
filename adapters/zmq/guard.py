"""Decides who may connect to a socket that binds under CURVE, and logs refused clients."""

import os
import threading
import time
from pathlib import Path

import zmq
from cachetools import TTLCache
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from ...agent.types import get_logger
from .keys import public_keys, read_certificate

log = get_logger()

_REREAD_AFTER_S = 0.5
"""Longest time for which a revoked key remains permitted, s."""
_MAX_LOGGED, _LOGGED_FOR_S = 20, 3600.0
"""Largest number of refused clients that are logged within the given time, s."""
_POLL_MS = 100
_FAILED = zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
"""Events of a failed handshake; which one occurs depends on the side that ends the connection first."""


class AllowList:
    """The public keys of the certificates ``*.key`` in a folder, which is read again when it may have changed.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        A file of the folder is not a certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: frozenset[str] = frozenset()
        self._logged: set[Path] = set()
        """Files that are not certificates and have been logged."""
        for path in folder.glob("*.key"):
            read_certificate(path)
        self._read()

    def __contains__(self, key: str) -> bool:
        if time.monotonic() - self._read_at > _REREAD_AFTER_S:
            self._read()
        return key in self._keys

    def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            # Path.glob finds nothing in a missing folder, without raising.
            paths = [self._folder / name for name in os.listdir(self._folder) if name.endswith(".key")]
            self._keys = frozenset(public_keys(paths, self._logged).values())
        except OSError as error:
            if self._keys:
                log.warning(
                    "folder of keys not readable: nobody is permitted", folder=str(self._folder), error=str(error)
                )
            self._keys = frozenset()


class Refusals:
    """Logs each refused client once, because a refused client keeps trying.

    Parameters
    ----------
    endpoint : str
        Address, for the log.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._logged: TTLCache[str, None] = TTLCache(_MAX_LOGGED, _LOGGED_FOR_S)

    def __call__(self, client: str, reason: str) -> None:
        """Log a refusal of ``client`` unless the client was logged within the hour."""
        with self._lock:
            if client in self._logged or len(self._logged) == _MAX_LOGGED:
                return
            self._logged[client] = None
            last = len(self._logged) == _MAX_LOGGED
        log.warning("client refused", endpoint=self.endpoint, client=client, reason=reason)
        if last:
            log.warning("further refused clients are not logged for an hour", endpoint=self.endpoint)


class Guard:
    """Decides which clients may connect to a socket under CURVE, and names each in its messages (``User-Id``).

    A thread answers libzmq (ZAP, ZeroMQ RFC 27) and watches for clients that fail before they show a key.

    Parameters
    ----------
    socket : zmq.Socket
        The socket, not bound yet, in a context of its own.
    endpoint : str
        Address, for the log.
    clients : Path or None
        Folder of the permitted clients' certificates; None permits every client that knows the server's key.

    Raises
    ------
    InputError
        A file of the folder is not a certificate.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", endpoint: str, clients: Path | None) -> None:
        self._allowed = AllowList(clients) if clients is not None else None
        self.refuse = Refusals(endpoint)
        self._zap: zmq.Socket[bytes] = socket.context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._monitor = socket.get_monitor_socket(_FAILED)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="zmq-guard", daemon=True)
        self._thread.start()

    def permits(self, client: str) -> bool:
        """Return whether the key is permitted now; a key permitted at the handshake may have been revoked since."""
        return self._allowed is None or client in self._allowed

    def sender(self, frame: zmq.Frame) -> str | None:
        """Return the key of the client that sent a message; None, with a line in the log, if it is revoked."""
        client = str(frame.get("User-Id"))
        if self.permits(client):
            return client
        self.refuse(client, "its key is revoked")
        return None

    def close(self) -> None:
        """End the thread after the socket is closed; without a guard, libzmq would admit every client."""
        self._closing.set()
        self._thread.join()
        self._zap.close(linger=0)
        self._monitor.close(linger=0)

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._zap, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while not self._closing.is_set():
            # libzmq waits for the reader of a monitor: if this thread ended, the socket could not be closed.
            try:
                ready = dict(poller.poll(_POLL_MS))
                if self._monitor in ready and recv_monitor_message(self._monitor)["event"] & _FAILED:
                    self.refuse("unknown", "it shows no key: it does not use CURVE, or has another server's key")
                if self._zap in ready:
                    self._answer(self._zap.recv_multipart())
            except Exception:
                log.exception("client not admitted", endpoint=self.refuse.endpoint)

    def _answer(self, request: list[bytes]) -> None:
        version, number, _, address, _, mechanism, *credentials = request
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials else ""
        permitted = bool(key) and self.permits(key)
        code, text = (b"200", b"OK") if permitted else (b"400", b"key not permitted")
        self._zap.send_multipart([version, number, code, text, key.encode() if permitted else b"", b""])
        if not permitted:
            self.refuse(key, f"its key is not permitted (from {address.decode(errors='replace')})")
