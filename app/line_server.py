"""A server on a Unix socket: a request and its answer are one line of JSON each.

:func:`xas_agent.app.ask.exchange` sends and receives them.
"""

import getpass
import json
import socketserver
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..agent.types import get_logger
from .ask import MAX_BYTES, TIMEOUT_S

_log = get_logger()

Answer = Callable[[Mapping[str, Any], str], dict[str, Any]]
"""Receives a request and the name of the requester; returns the answer. Several threads may call it at once."""


def line_server(path: Path, answer: Answer, most: int = MAX_BYTES) -> socketserver.BaseServer:
    """Return a server that listens at ``path``; its ``serve_forever`` answers.

    Parameters
    ----------
    path : Path
        Path of the socket, which must not exist.
    answer : callable
    most : int
        Largest size of a request, bytes.

    Raises
    ------
    OSError
        The socket cannot be opened.
    """

    class Handler(socketserver.StreamRequestHandler):
        timeout = TIMEOUT_S

        def handle(self) -> None:
            try:
                line = self.rfile.readline(most)
                if len(line) == most:
                    raise ValueError(f"expected at most {most} bytes")
                request = json.loads(line)
                if not isinstance(request, dict):
                    raise TypeError("expected an object")
                reply = answer(request, str(request.get("by") or getpass.getuser())[:100])
            except (OSError, ValueError, TypeError, RecursionError) as error:
                reply = {"ok": False, "error": f"malformed command: {error}"}
            self.wfile.write(json.dumps(reply, default=str).encode() + b"\n")

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            _log.debug("a command was broken off")

    return Server(str(path), Handler)
