"""The picture of a session, drawn in a process of its own.

Drawing takes seconds of Python, during which frames would wait, and its many small objects would leave the memory of
an agent that runs for weeks in pieces.
"""

import os
import pickle
import subprocess
import sys
from io import BytesIO

from ..children import command_of, environment
from .recorder import Drawn, Truth

_LIMIT_S = 300.0
"""Time after which the process is ended, s."""
_NICENESS = 10


def picture(drawn: Drawn, truth: Truth | None) -> bytes:
    """Return the picture of :func:`~xas_agent.app.output.figures.draw_operando`, PNG.

    Raises
    ------
    RuntimeError
        The process failed; the message ends with its last line on stderr.
    subprocess.TimeoutExpired
        It took longer than 5 minutes.
    """
    found = subprocess.run(
        command_of("xas_agent.app.output.drawing"),
        input=pickle.dumps((drawn, truth)),
        capture_output=True,
        timeout=_LIMIT_S,
        check=False,
        start_new_session=True,  # Ctrl-C ends the session, which then waits for the last picture
        env=environment(),
    )
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines() or ["nothing on stderr"]
        raise RuntimeError(f"the process that draws ended with exit code {found.returncode}: {said[-1]}")
    return found.stdout


def main() -> None:
    """Read ``Drawn`` and ``Truth`` of the parent process, pickled, from stdin; write the picture to stdout."""
    os.nice(_NICENESS)
    from .figures import draw_operando

    drawn, truth = pickle.load(sys.stdin.buffer)
    image = BytesIO()
    draw_operando(image, drawn, truth)
    sys.stdout.buffer.write(image.getvalue())


if __name__ == "__main__":
    main()
