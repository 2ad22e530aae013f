"""The process of the dashboard: binds its address, prints it and serves."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from .access import Access, token_of
from .address import listen, told, url_of
from .server import create_app, folders_of
from .sessions import Sessions

_PARENT_POLL_S = 0.5
"""Interval at which the process checks that the session still runs, s."""


class _Server(uvicorn.Server):
    """Ends the event streams at a signal; uvicorn would wait for them."""

    def __init__(self, config: uvicorn.Config, sessions: Sessions) -> None:
        super().__init__(config)
        self._sessions = sessions

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # From the beginning, since asyncio would cancel the start-up with a traceback.
        with self.capture_signals():
            super().run(sockets)

    def handle_exit(self, sig: int, frame: object) -> None:
        if not self.should_exit:  # a second signal would cancel the shutdown, which takes at most two seconds
            super().handle_exit(sig, frame)  # pyright: ignore[reportArgumentType]
        self._sessions.close()


def serve(
    folders: Sequence[Path],
    host: str,
    port: int | None,
    token_file: Path | None,
    tell: Callable[[str], None],
    inherited: int | None = None,
) -> None:
    """Serve a dashboard until a signal arrives.

    Parameters
    ----------
    folders : sequence of Path
        Folders of sessions, or folders that contain such folders.
    host, port : str, int or None
        Address; without a port, the default port or the next free one.
    token_file : Path or None
        File with the token; None stores one in the first folder.
    tell : callable
        Receives the lines that tell the address of the dashboard.
    inherited : int, optional
        File descriptor of a listening socket that a session has opened and announced.

    Raises
    ------
    InputError
        The token file cannot be used.
    EndpointUnreachable
        The address cannot be bound.
    """
    folders = folders_of(folders)
    token = token_of(token_file, folders[0])
    listening = listen(host, port) if inherited is None else socket.socket(fileno=inherited)
    sessions = Sessions(folders)
    access = Access(host, token, f"xas_agent_{listening.getsockname()[1]}")
    app = create_app(sessions, access)
    config = uvicorn.Config(
        app, access_log=False, log_config=None, server_header=False, timeout_graceful_shutdown=2, ws="none"
    )
    if inherited is None:
        for line in told(url_of(host, listening), token, access.local):
            tell(line)
    _Server(config, sessions).run([listening])


def end_with(parent: int) -> None:
    """End this process once the process that started it has ended."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
