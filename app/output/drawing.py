"""Draws the picture of a session in a separate process.

Drawing takes seconds of Python, during which frames would wait, and its many small objects would fragment the memory
of an agent that runs for weeks.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO

from ..children import command_of, environment
from .recorder import Drawn
from .truth import Truth

_LIMIT_S = 300.0
"""Time after which the process is terminated, s."""
_POLL_S = 0.1


class DrawingFailed(RuntimeError):  # noqa: N818  named after the event
    """The picture could not be drawn; the message states why."""


def picture(
    drawn: Drawn, truth: Truth | None, hurried: Callable[[], bool] = lambda: False, *, niceness: int = 0
) -> bytes:
    """Return the picture of :func:`~xas_agent.app.output.figures.draw_operando`, PNG.

    Parameters
    ----------
    drawn : Drawn
    truth : Truth or None
    hurried : callable
        Returns whether to give up.
    niceness : int
        Priority that the process yields to others, such as the one that answers frames.

    Raises
    ------
    DrawingFailed
        The process failed, took longer than 5 minutes, or was given up.
    """
    with subprocess.Popen(
        command_of("xas_agent.app.output.drawing", niceness),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C ends the session, which then waits for the last picture
        env=environment(),
    ) as process:
        image, said = _communicate(process, pickle.dumps((drawn, truth)), hurried)
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or ["nothing on stderr"]
        raise DrawingFailed(f"the process that draws ended with exit code {process.returncode}: {lines[-1]}")
    return image


def _communicate(process: subprocess.Popen[bytes], data: bytes, hurried: Callable[[], bool]) -> tuple[bytes, bytes]:
    """Send data; return the process's stdout and stderr, or raise DrawingFailed if it is given up."""
    until = time.monotonic() + _LIMIT_S
    with ThreadPoolExecutor(
        1
    ) as thread:  # with a timeout, communicate sends only what the pipe takes before its first timeout
        try:
            written = thread.submit(process.communicate, data)
            while True:
                if hurried():
                    raise DrawingFailed("given up, because the session was to end at once")
                if time.monotonic() > until:
                    raise DrawingFailed(f"the process that draws took longer than {_LIMIT_S:g} s")
                with suppress(TimeoutError):
                    return written.result(_POLL_S)
        finally:
            process.kill()  # so that the thread ends


def main() -> None:
    """Read the parent's pickled ``Drawn`` and ``Truth`` from stdin; write the picture to stdout."""
    os.nice(int(sys.argv[1]))
    from .figures import draw_operando

    drawn, truth = pickle.load(sys.stdin.buffer)
    image = BytesIO()
    draw_operando(image, drawn, truth)
    sys.stdout.buffer.write(image.getvalue())


if __name__ == "__main__":
    main()
