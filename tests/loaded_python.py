"""A Python interpreter for ``-m xas_agent``: it has the command carried out by a process that has loaded the modules.

``python -IS loaded_python.py SOCKET [-P] -m xas_agent ARGS`` is to its parent what ``python -m xas_agent ARGS`` would
be: it passes on its streams and the signals that it receives, and ends as the command ends. Where it is killed, the
command is killed as well, a moment later. What needs more than the streams runs in an interpreter of its own.
"""

import json
import os
import signal
import socket
import sys
from typing import Any

MODULES = ("xas_agent", "xas_agent.app.output.drawing")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ask(address: str, streams: list[int], request: dict[str, Any]) -> tuple[socket.socket, Any]:
    """Return the connection, at whose end the command is killed, and its lines: process id, then exit code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"\n"], streams)
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection, connection.makefile()


def _take_part(address: str, module: str, args: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is a process to pass them on to
    ignored = [int(number) for number in PASSED_ON if signal.getsignal(number) is signal.SIG_IGN]
    request = {
        "module": module,
        "args": args,
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "ignored": ignored,
    }
    connection, lines = ask(address, [0, 1, 2], request)
    with connection, lines:
        pid = int(lines.readline())
        for number in PASSED_ON:
            if number not in ignored:
                signal.signal(number, lambda number, _: os.kill(pid, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return int(lines.readline())


if __name__ == "__main__":
    _, address, *line = sys.argv
    words = line[1:] if line[:1] == ["-P"] else line
    if words[:1] != ["-m"] or words[1] not in MODULES or "--inherited" in words:
        os.execv(sys.executable, [sys.executable, *line])
    code = _take_part(address, words[1], words[2:])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
