"""The embedded beamline: a simulated beamline in a child process, which this process watches and controls."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters.files import FileSource
from ..adapters.zmq import ZMQControl, ZMQEndpoint, ZMQSource
from ..agent.types import Reply
from .children import command_of, environment
from .config import Config
from .health import Health
from .output.folder import TRUTH, OutputFolder
from .output.recorder import Truth
from .session import SETTLE_S, Session

_END_TIMEOUT_S = 10.0
"""Longest wait for the beamline's end, s."""
_POLL_S = 0.05
"""Interval at which the process is polled, s."""


@dataclass
class InProcessControl:
    """A control that calls ``obey`` of a simulated beamline or a replay in this process."""

    obey: Callable[[str, Mapping[str, Any]], Reply]

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Return the answer of ``obey``; ``id`` and ``timeout`` are not used."""
        return self.obey(action, args)

    def close(self) -> None:
        """Do nothing."""


class BeamlineFailed(RuntimeError):  # noqa: N818  named after the event
    """The simulated beamline ended before it started to publish."""


class BeamlineProcess:
    """The simulated beamline in a child process; its log is ``beamline.log`` beside the truth file.

    Parameters
    ----------
    seed : int
    frames : int
        Number of planned spectra.
    truth : Path
        File for the documents with the true values, .jsonl.

    Raises
    ------
    BeamlineFailed
        The process ends before it publishes its addresses.
    """

    def __init__(self, seed: int, frames: int, truth: Path) -> None:
        self.truth = truth
        command = command_of("xas_agent", "sim", "--seed", seed, "--frames", frames)
        command += ["--publish", "zmq://127.0.0.1:0", "--truth", str(truth)]
        # A separate process group: Ctrl-C reaches only the agent, which then ends the beamline.
        log = truth.with_name("beamline.log")
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
                env=environment(),
            )
        self._ended_at: float | None = None
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            if not line:
                code = self.process.wait()
                raise BeamlineFailed(f"the simulated beamline ended with exit code {code} at its start; see {log}")
            addresses = json.loads(line)
        except BaseException:
            self.close()
            raise
        self.documents_address: str = addresses["documents"]
        self.control_address: str = addresses["control"]

    def over(self) -> bool:
        """Whether the process ended at least ``SETTLE_S`` ago, so that its last documents have arrived."""
        if self.process.poll() is None:
            return False
        self._ended_at = self._ended_at or time.monotonic()
        return time.monotonic() - self._ended_at > SETTLE_S

    def close(self, hurried: Callable[[], bool] = lambda: False) -> bool:
        """End the process with SIGINT; after 10 s, or if ``hurried`` is True, with SIGKILL.

        Returns
        -------
        bool
            Whether it ended by itself, so that the truth file is complete.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            until = time.monotonic() + _END_TIMEOUT_S
            while self.process.poll() is None and time.monotonic() < until and not hurried():
                time.sleep(_POLL_S)
            self.process.kill()
        code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code != -signal.SIGKILL

    def read_truth(self, record: Truth) -> None:
        """Add the true values of the finished run to ``record``."""
        if self.truth.is_file():
            for name, doc in FileSource(self.truth):
                record(name, doc)


def watch_embedded(
    config: Config, seed: int, planned: int, output: OutputFolder, *, limit: int | None, health: Health | None = None
) -> Session:
    """Run the complete loop on this machine: beamline process, ZMQ, agent, control.

    Parameters
    ----------
    config : Config
    seed : int
        Seed of the simulated beamline.
    planned : int
        Number of frames over which the charge is spread.
    output : OutputFolder
    limit : int or None
        Number of frames after which the session ends.
    health : Health, optional

    Returns
    -------
    Session
        The finished session.
    """
    beamline = BeamlineProcess(seed, planned, output.folder / TRUTH)
    truth = Truth()
    try:
        source = ZMQSource(ZMQEndpoint(address=beamline.documents_address), peer_ends=True)
        control = ZMQControl(beamline.control_address)
        session = Session(config.simulated(), output, control, planned, limit, truth, health=health, simulated=True)
        with session:
            try:
                source.connect()
                session.watch(source, beamline.over)
            finally:
                session.ending()
                source.close()
                if not beamline.close(session.hurried.is_set):
                    output.cut_off(TRUTH)
                beamline.read_truth(truth)
    finally:
        beamline.close()
    return session
