"""``xas-agent`` in processes forked from one that has loaded its modules: real, but without seconds of imports."""

import atexit
import json
import os
import shlex
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from loaded_python import ask

SHARED = "XAS_TESTS_FORKED"
TEMPORARY = gettempdir()
"""That of a test is too long for the name of a socket."""


def run_command(*args: object, code: int = 0, columns: int = 250) -> subprocess.CompletedProcess[str]:
    """``xas-agent`` with these arguments in this folder; it must end with ``code`` and without a traceback."""
    words = list(map(str, args))
    request = {
        "module": "xas_agent",
        "args": words,
        "cwd": os.getcwd(),
        "environment": {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": str(columns)},
        "ignored": [],
    }
    with TemporaryDirectory() as folder:
        paths = [Path(os.devnull), Path(folder) / "stdout", Path(folder) / "stderr"]
        streams = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in paths]
        connection, lines = ask(address(), streams, request)
        for stream in streams:
            os.close(stream)
        with connection, lines:
            lines.readline()
            returned = int(lines.readline())
        stdout, stderr = (path.read_text(encoding="utf-8") for path in paths[1:])
    assert returned == code, stderr
    assert "Traceback" not in stderr
    return subprocess.CompletedProcess(words, returned, stdout, stderr)


def command(*args: object) -> list[str]:
    """Return a command line of ``xas-agent`` in a forked process.

    One that is killed may live a moment longer than the process that this line starts, and has another process id.
    """
    return [_server()[1], "-m", "xas_agent", *map(str, args)]


def address() -> str:
    """Return the address at which the process takes requests."""
    return _server()[0]


def share_one() -> None:
    """Start the process for the pytest workers that this one starts, each of which would start its own."""
    os.environ[SHARED] = json.dumps(_server())


@cache
def _server() -> tuple[str, str]:
    """Start the process; return the address of its socket, and the interpreter that has its modules."""
    if shared := os.environ.get(SHARED):
        return tuple(json.loads(shared))
    folder = TemporaryDirectory(prefix="xas-", dir=TEMPORARY)
    path, loaded = f"{folder.name}/socket", Path(folder.name) / "python"
    words = [sys.executable, "-IS", str(Path(__file__).with_name("loaded_python.py")), path]
    loaded.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    loaded.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("forking.py")), str(listening.fileno()), str(loaded)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # what an import prints
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            pass_fds=[listening.fileno()],
        )

    def end() -> None:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        process.kill()
        folder.cleanup()

    atexit.register(end)
    return path, str(loaded)
