"""The process of the dashboard: binds its address, prints it and serves."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from ...adapters.errors import EndpointUnreachable
from .access import Access, is_loopback, token_of
from .server import create_app, folders_of
from .sessions import Sessions

DEFAULT_PORT = 8642
_PORTS = 50
"""Number of ports that are tried from the default one on."""
_PARENT_POLL_S = 0.5


class _Server(uvicorn.Server):
    """Ends the streams of events at a signal, for which uvicorn would wait."""

    def __init__(self, config: uvicorn.Config, sessions: Sessions) -> None:
        super().__init__(config)
        self._sessions = sessions

    def handle_exit(self, sig: int, frame: object) -> None:
        super().handle_exit(sig, frame)  # pyright: ignore[reportArgumentType]
        self._sessions.close()


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; without a port the default one, or the next that is free.

    Raises
    ------
    EndpointUnreachable
        The address cannot be bound.
    """
    tried = [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + _PORTS)
    error: OSError | None = None
    for number in tried:
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
            listening = socket.socket(family)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, number))
            listening.listen(256)
            return listening
        except OSError as failure:
            error = failure
    assert error is not None
    raise EndpointUnreachable(f"{host}:{port or DEFAULT_PORT}", f"cannot be bound: {error.strerror or error}")


def serve(
    folders: Sequence[Path],
    host: str,
    port: int | None,
    token_file: Path | None,
    tell: Callable[[str, str], None],
) -> None:
    """Serve a dashboard until a signal.

    Parameters
    ----------
    folders : sequence of Path
        Folders of sessions, or of such folders.
    host, port : str, int or None
        Address; without a port the default one, or the next that is free.
    token_file : Path or None
        File with the token; None keeps one in the first folder.
    tell : callable
        Receives the address without and with the token, when the server listens.

    Raises
    ------
    InputError
        The token file cannot be used.
    EndpointUnreachable
        The address cannot be bound.
    """
    folders = folders_of(folders)
    token = token_of(token_file, folders[0])
    listening = listen(host, port)
    number = listening.getsockname()[1]
    sessions = Sessions(folders)
    app = create_app(sessions, Access(host, token, f"xas_agent_{number}"))
    config = uvicorn.Config(
        app, access_log=False, log_config=None, server_header=False, timeout_graceful_shutdown=2, ws="none"
    )
    name = "127.0.0.1" if is_loopback(host) else socket.getfqdn()
    address = f"http://{f'[{name}]' if ':' in name else name}:{number}/"
    tell(address, f"{address}?token={token}")
    _Server(config, sessions).run([listening])


def end_with(parent: int) -> None:
    """End this process when another one, which started it, has ended."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
