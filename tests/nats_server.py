"""Debian's ``nats-server`` with JetStream as a process."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest
from deadline import wait_until

from xas_agent.adapters.nats.endpoint import Link, NATSEndpoint

SERVER = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Server:
    """A server that can be killed and started again on its port and folder.

    Parameters
    ----------
    folder : where it keeps its streams and log
    options : further options of the command
    jetstream : whether it keeps streams
    """

    def __init__(self, folder: Path, *options: str, jetstream: bool = True) -> None:
        pytest.importorskip("nats", reason="no nats-py: pip install 'xas-agent[nats]'")
        if SERVER is None:
            pytest.skip("no nats-server: apt-get install nats-server")
        self._folder, self.port = folder, -1
        self._options = [*options, *(["-js", "-sd", str(folder / "data")] if jetstream else [])]
        self.start()

    @property
    def address(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = self._folder / "log"
        log.unlink(missing_ok=True)
        assert SERVER is not None
        where = ["-a", "127.0.0.1", "-p", str(self.port), "-l", str(log)]
        self._process = subprocess.Popen([SERVER, *where, *self._options])
        wait_until(lambda: log.exists() and "Server is ready" in log.read_text())
        found = re.search(r"client connections on \S*:(\d+)", log.read_text())
        assert found is not None
        self.port = int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def make_stream(self, name: str, subject: str, **limits: Any) -> None:
        """Make a stream of all subjects that begin with ``subject``."""
        link = Link(NATSEndpoint(address=self.address))
        link.call(link.jetstream.add_stream(name=name, subjects=[f"{subject}.>"], **limits))
        link.close()
