"""``xas-agent`` in processes forked from one that has loaded its modules: real processes, without seconds of imports.

``python forked.py`` is that process. It reads a request as JSON per line, and answers each with the exit code.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

PRELOADED = (
    "torch", "scipy.stats", "matplotlib.figure", "pygments", "rich.table", "greenlet", "xraydb",
    "xas_agent.app.embedded", "xas_agent.models.runtime", "xas_agent.models.training",
    "xas_agent.sim_beamline.beamline", "xas_agent.sim_beamline.replay",
)  # fmt: skip


def run_command(*args: object, code: int = 0, columns: int = 250) -> subprocess.CompletedProcess[str]:
    """``xas-agent`` with these arguments in this folder; it must end with ``code`` and without a traceback."""
    with TemporaryDirectory() as folder:
        request = {
            "args": list(map(str, args)),
            "cwd": os.getcwd(),
            "environment": {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": str(columns)},
            "streams": [f"{folder}/stdout", f"{folder}/stderr"],
        }
        returned = _carry_out(request)
        stdout, stderr = (Path(path).read_text(encoding="utf-8") for path in request["streams"])
    assert returned == code, stderr
    assert "Traceback" not in stderr
    return subprocess.CompletedProcess(request["args"], returned, stdout, stderr)


def _carry_out(request: Mapping[str, Any]) -> int:
    server = _server()
    assert server.stdin
    assert server.stdout
    try:
        print(json.dumps(request), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline())
    except BaseException:  # after a timeout, the answer to come is not that of the next command
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()
        _server.cache_clear()
        raise


@cache
def _server() -> "subprocess.Popen[str]":
    line = [sys.executable, "-P", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # a command that hangs too
            process.communicate()

    atexit.register(end)
    return process


def _serve() -> None:
    """Return in the forked process, ready to run the command; the server itself never returns."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    for line in sys.stdin:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
            continue
        request = json.loads(line)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None  # a module that was loaded may have looked it up
        for target, path in ((0, os.devnull), *enumerate(request["streams"], start=1)):
            opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(opened, target)
            os.close(opened)
        answers.close()
        sys.argv = ["xas-agent", *request["args"]]
        return
    os._exit(0)


def _prepared() -> Callable[[], object]:
    """Return the command, with what each would do first already done."""
    import typer.main

    from xas_agent.app.config import load_config
    from xas_agent.app.wiring import model_folders
    from xas_agent.cli import app

    model_folders(load_config({}))  # pydantic's validators, and the cards
    command = typer.main.get_command(app)
    typer.main.get_command = lambda _: command
    return app


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


if __name__ == "__main__":
    gc.disable()  # a tenth of the time to load so much would go into a search for garbage
    for module in PRELOADED:
        __import__(module)
    app = _prepared()
    gc.freeze()  # or each command would spend a second on collecting what was loaded here
    _serve()
    gc.enable()
    _end(_run(app))
