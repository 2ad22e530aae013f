"""The embedded beamline: the simulated one in a process of its own, watched and controlled by this one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters.files import FileSource
from ..adapters.zmq import ZMQControl, ZMQEndpoint, ZMQSource
from ..agent.types import Reply
from .config import Config
from .output.folder import make_folder
from .output.recorder import Truth
from .session import SETTLE_S, Session, _uninterrupted


@dataclass
class InProcessControl:
    """A control in this process: what ``obey`` of the simulated beamline or of a replay answers."""

    obey: Callable[[str, Mapping[str, Any]], Reply]

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Ask it."""
        return self.obey(action, args)

    def close(self) -> None:
        """Nothing to close."""


class BeamlineFailed(RuntimeError):  # noqa: N818  says what happened
    """The simulated beamline ended before it began."""


class BeamlineProcess:
    """The simulated beamline in a process of its own; it says where it publishes and takes orders.

    Its log goes to ``beamline.log`` beside the truth file.
    """

    def __init__(self, seed: int, frames: int, truth: Path) -> None:
        self.truth = truth
        command = [sys.executable, "-m", "xas_agent", "sim", "--seed", str(seed), "--frames", str(frames)]
        command += ["--publish", "zmq://127.0.0.1:0", "--control", "zmq://127.0.0.1:0", "--truth", str(truth)]
        # A group of its own: Ctrl-C goes to the agent, which then ends the beamline.
        log = truth.with_name("beamline.log")
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
            )
        self._ended_at: float | None = None
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            if not line:
                code = self.process.wait()
                raise BeamlineFailed(f"the simulated beamline ended with exit code {code} before it began; see {log}")
            said = json.loads(line)
        except BaseException:
            self.close()
            raise
        self.documents: str = said["documents"]
        self.orders: str = said["control"]

    def over(self) -> bool:
        """Whether it has ended and its last documents have had time to arrive."""
        if self.process.poll() is None:
            return False
        self._ended_at = self._ended_at or time.monotonic()
        return time.monotonic() - self._ended_at > SETTLE_S

    def close(self) -> None:
        """End it, gently first; afterwards the truth file is whole."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def read_truth(self, into: Truth) -> None:
        """Read what really happened."""
        if self.truth.is_file():
            for name, doc in FileSource(self.truth):
                into(name, doc)


def embedded(config: Config, seed: int, planned: int, out: Path, *, limit: int | None) -> Session:
    """The whole loop on this machine: beamline process, ZMQ, agent, control.

    The charge is spread over ``planned`` frames; watching ends after ``limit`` of them.
    """
    make_folder(out)
    beamline = BeamlineProcess(seed, planned, out / "truth.jsonl")
    truth = Truth()
    try:
        source = ZMQSource(ZMQEndpoint(address=beamline.documents))
        session = Session(config, out, ZMQControl(beamline.orders), planned, limit, truth)
        with session:
            try:
                source.connect()
                session.watch(source, beamline.over)
            finally:
                with _uninterrupted():
                    source.close()
                    beamline.close()
                    beamline.read_truth(truth)
    finally:
        beamline.close()
    return session
