"""The dashboard of one session: a child process that ends with the session."""

import os
import shlex
import signal
import subprocess
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ..adapters.loopback import is_loopback
from ..agent.types import InputError, get_logger
from .children import command_of, environment
from .view.access import token_of
from .view.address import address_of, listen, told, url_of

_log = get_logger()

LOG = "dashboard.log"
"""Log file of the dashboard in a session's folder."""
_END_S = 5.0
"""Longest wait for the end of the process, s."""


def require_extra() -> None:
    """Raise InputError if the packages of the extra for the dashboard are not installed."""
    if missing := [name for name in ("fastapi", "uvicorn", "pyarrow") if find_spec(name) is None]:
        raise InputError(
            f"found no {', '.join(missing)}, which the dashboard needs: pip install 'xas-agent[dashboard]'"
        )


class Dashboard:
    """Shows the session in a folder, from before its source is connected until the session ends.

    The socket opens here, so that the address is known at once; early visitors wait for the child process.

    Parameters
    ----------
    folder : Path
        Output folder of the session.
    bind : str
        HOST:PORT, HOST or :PORT; without a port, the default port or the next free one.

    Raises
    ------
    InputError
        The extra is not installed, or ``bind`` is not an address.
    EndpointUnreachable
        The address cannot be bound.
    """

    def __init__(self, folder: Path, bind: str) -> None:
        require_extra()
        host, port = address_of(bind, "--dashboard")
        self._folder = folder
        token = token_of(None, folder)
        with listen(host, port) as listening:
            url = url_of(host, listening)
            self.lines = told(url, token, is_loopback(host))
            """Lines that tell a person where the dashboard is."""
            self.address = f"{url}?token={token}"
            """The address that accepts orders."""
            number = listening.fileno()
            command = command_of("xas_agent", "view", folder, "--host", host, "--inherited", number)
            with (folder / LOG).open("ab") as log:
                # In a process session of its own: Ctrl-C reaches only the agent, which then ends the dashboard.
                self._process = subprocess.Popen(
                    [*command, "--parent", str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=environment(),
                    pass_fds=(number,),
                )
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="dashboard", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the dashboard."""
        return self._process.pid

    def _watch(self) -> None:
        """Log if the process ends before the session, which continues without it."""
        code = self._process.wait()
        if not self._closing.is_set():
            _log.warning(
                "dashboard has ended; the session goes on",
                code=code,
                messages=str(self._folder / LOG),
                how=f"xas-agent view {self._folder}",
            )

    def close(self) -> str:
        """End the dashboard; return how to view the session again, in words."""
        self._closing.set()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return (
            f"dashboard  has ended with the session; xas-agent view {shlex.quote(str(self._folder))} shows it again"
        )
