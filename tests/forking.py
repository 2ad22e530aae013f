"""A process that has loaded the modules of ``xas-agent``, and forks others.

``python forking.py FD LOADED`` forks one for each request that comes through the listening socket FD, and answers
with its process id and then its exit code. LOADED is the interpreter of ``loaded_python.py``, in which such a process
starts the drawing and the beamline in its turn.
"""

import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    "torch", "scipy.stats", "pygments", "rich.table", "greenlet", "xraydb",
    "xas_agent.app.embedded", "xas_agent.app.output.figures", "xas_agent.app.view.serve",
    "xas_agent.models.runtime", "xas_agent.models.training",
    "xas_agent.sim_beamline.beamline", "xas_agent.sim_beamline.replay",
)  # fmt: skip


class _Server:
    """Forks a process for each request; ends with them when stdin does."""

    def __init__(self, listening: socket.socket) -> None:
        self._running: dict[int, socket.socket] = {}
        """Where to answer, by process id."""
        woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno())
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._leave)
        self._selector.register(woken, selectors.EVENT_READ, self._reap)
        self._selector.register(listening, selectors.EVENT_READ, self._accept)

    def serve(self) -> dict[str, Any]:
        """Return a request in the process forked for it; in this one it never returns."""
        while True:
            for key, _ in self._selector.select():
                if request := key.data(key.fileobj):
                    return request

    def _accept(self, listening: socket.socket) -> dict[str, Any] | None:
        connection, _ = listening.accept()
        streams: list[int] = []
        said = ""
        with suppress(OSError), connection.makefile() as lines:
            streams = socket.recv_fds(connection, 1, 3)[1]
            said = lines.readline()
        request = json.loads(said) if said.endswith("\n") else None  # else, who asks was killed
        pid = os.fork() if request else 0
        if request and not pid:
            self._become(request, streams)
            return request
        for stream in streams:
            os.close(stream)
        if pid:
            self._running[pid] = connection
            self._selector.register(connection, selectors.EVENT_READ, lambda _: self._kill(pid))
            with suppress(OSError):
                connection.sendall(b"%d\n" % pid)
        else:
            connection.close()
        return None

    def _leave(self, _: object) -> NoReturn:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    def _kill(self, pid: int) -> None:
        if pid in self._running:  # not yet reaped
            os.kill(pid, signal.SIGKILL)

    def _reap(self, woken: socket.socket) -> None:
        woken.recv(4096)
        with suppress(ChildProcessError):
            while found := os.waitpid(-1, os.WNOHANG):
                pid, status = found
                if not pid:
                    return
                connection = self._running.pop(pid)
                self._selector.unregister(connection)
                with connection, suppress(OSError):
                    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _become(self, request: dict[str, Any], streams: list[int]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in request["ignored"]:
            signal.signal(number, signal.SIG_IGN)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._waker.close()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None  # a module that was loaded may have looked it up
        sys.argv = ["xas-agent", *request["args"]]


def _prepared() -> dict[str, Callable[[], object]]:
    """Return what each module does, with what each command would do first already done."""
    import typer.main

    from xas_agent.app.config import load_config
    from xas_agent.app.wiring import model_folders
    from xas_agent.cli import app

    model_folders(load_config({}))  # pydantic's validators, and the cards
    sys.path.append(str(Path(__file__).parent))
    from loaded_networks import share_networks

    sys.path.pop()
    share_networks("co-k")
    command = typer.main.get_command(app)
    typer.main.get_command = lambda _: command
    from xas_agent.app.output import drawing

    return {"xas_agent": app, drawing.__name__: drawing.main}


def _run(command: Callable[[], object]) -> int:
    """Return the exit code of a command, as the interpreter would have it."""
    try:
        command()
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return e.code or 0
        sys.stderr.write(f"{e.code}\n")
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as the interpreter does, but free nothing, since that would first copy the server's memory."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = 120
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def main() -> None:
    _, listening, loaded = sys.argv
    gc.disable()  # a tenth of the time to load so much would go into a search for garbage
    for module in PRELOADED:
        importlib.import_module(module)
    commands = _prepared()
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False  # else each command would take torch's operators apart when it ends
    gc.freeze()  # or each command would spend a second on collecting what was loaded here
    request = _Server(socket.socket(fileno=int(listening))).serve()
    sys.executable = loaded
    gc.enable()
    _end(_run(commands[request["module"]]))


if __name__ == "__main__":
    main()
