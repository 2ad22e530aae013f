"""The embedded beamline: a simulation in a child process that this process watches and controls."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..adapters.codecs import to_json
from ..adapters.files import FileSource
from ..adapters.robot import RobotSettings
from ..adapters.zmq import ZMQControl, ZMQEndpoint, ZMQSource
from ..agent.decide import OPERATOR
from ..agent.types import Reply, get_logger
from ..sim_beamline.sample import Answers, Course
from ..sim_beamline.settings import BeamlineSettings
from .children import command_of, environment
from .config import Config
from .failures import BeamlineFailed
from .health import Health
from .output.folder import TRUTH, OutputFolder
from .output.recorder import Recorder
from .output.truth import Truth
from .session import SETTLE_S, Session

_log = get_logger()

SIMULATION = "simulation.json"
"""File beside the truth file with the settings of the beamline: a config for ``xas-agent sim``."""
ENDED_EARLY = "ended early: nothing is compared"
_ROBOT_RETRY_S = 0.2
"""Time after which an unanswered request to the simulated robot is repeated, s."""
_END_TIMEOUT_S = 10.0
"""Longest wait for the beamline's end, s."""
_POLL_S = 0.05
"""Interval between polls of the process, s."""


@dataclass
class InProcessControl:
    """A control that calls ``obey`` of a simulated beamline or of a replay in this process."""

    obey: Callable[[str, Mapping[str, Any]], Reply]

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Return the answer of ``obey``, which needs neither ``id`` nor ``timeout``."""
        return self.obey(action, args)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class CrewedControl(ZMQControl):
    """The control of a beamline that also takes ``notify``, which its crew receives."""

    actions = ("notify",)


class BeamlineProcess:
    """The simulated beamline in a child process; its log is ``beamline.log`` beside the truth file.

    Parameters
    ----------
    settings : BeamlineSettings
    truth : Path
        File for the documents with the true values, .jsonl.

    Raises
    ------
    BeamlineFailed
        The process ended before it published its addresses.
    """

    def __init__(self, settings: BeamlineSettings, truth: Path) -> None:
        self.truth = truth
        simulation = truth.with_name(SIMULATION)
        simulation.write_text(to_json({"simulation": settings.model_dump(mode="json")}) + "\n", encoding="utf-8")
        command = command_of("xas_agent", "sim", "--config", simulation)
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
        self.robot_address: str | None = addresses.get("robot")

    def over(self) -> bool:
        """Return whether the process ended at least ``SETTLE_S`` ago, so that its last documents have arrived."""
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
    config: Config,
    simulation: BeamlineSettings,
    output: OutputFolder,
    *,
    limit: int | None,
    health: Health | None = None,
) -> Session:
    """Run the complete loop on this machine: beamline process, ZMQ, agent, control.

    If the config has a simulation, its open loop is measured afterwards, and the summary compares both.

    Parameters
    ----------
    config : Config
    simulation : BeamlineSettings
        Settings of the simulated beamline.
    output : OutputFolder
    limit : int or None
        Number of frames after which the session ends.
    health : Health, optional

    Returns
    -------
    Session
        The finished session.
    """
    compares = config.simulation is not None
    beamline = BeamlineProcess(simulation, output.folder / TRUTH)
    truth = Truth()
    try:
        source = ZMQSource(ZMQEndpoint(address=beamline.documents_address), peer_ends=True)
        control = (CrewedControl if compares else ZMQControl)(beamline.control_address)
        settings = config.simulated()
        if beamline.robot_address is not None:
            robot = RobotSettings(address=beamline.robot_address, retry_s=_ROBOT_RETRY_S)
            settings = settings.model_copy(update={"robot": robot})
        session = Session(settings, output, control, simulation.frames, limit, truth, health=health, simulated=True)
        with session:
            session.agent.load_models()  # before the beamline begins, since it would not wait
            try:
                source.connect()
                session.watch(source, beamline.over)
                complete = beamline.process.poll() == 0
            finally:
                session.ending()
                source.close()
                if not beamline.close(session.hurried.is_set):
                    output.cut_off(TRUTH)
                beamline.read_truth(truth)
            if compares and complete and session.failure is None:
                session.gain = Comparison(simulation, truth)
    finally:
        beamline.close()
    return session


@dataclass
class Comparison:
    """Compares a finished simulated experiment with its open loop, which is measured when it is first needed.

    The last summary needs it, after the agent was closed, so that the measurement does not disturb the agent.
    """

    simulation: BeamlineSettings
    closed: Truth

    def __call__(self, recorder: Recorder) -> dict[str, Any]:
        if OPERATOR in recorder.stopped.values():  # the gain would not be due to the rules
            return {"gained": "stopped by a person: nothing is compared"}
        if not recorder.stopped and len(self.closed.by_frame()) < self.simulation.frames:
            return {"gained": ENDED_EARLY}
        return gain(self.simulation, self._opened, self.closed, recorder)

    @cached_property
    def _opened(self) -> Truth:
        _log.info("measuring the open loop, to compare")  # this takes seconds, or a minute on a busy machine
        return open_loop(self.simulation)


def open_loop(simulation: BeamlineSettings) -> Truth:
    """Measure a simulated experiment without requests and without waiting; return its true values."""
    from ..sim_beamline.beamline import measure_open_loop  # imports bluesky

    truth = Truth()
    # On a separate thread, where the RunEngine leaves the session's signal handlers unchanged.
    worker = threading.Thread(target=measure_open_loop, args=(simulation, [truth]), name="open-loop", daemon=True)
    worker.start()
    worker.join()
    return truth


def gain(simulation: BeamlineSettings, opened: Truth, closed: Truth, recorder: Recorder) -> dict[str, Any]:
    """Return the gain of the closed over the open loop for the summary; only a text if there are too few frames."""
    drawn = recorder.drawn()
    answers = Answers([frame.row for frame in drawn.frames], drawn.decisions)
    found = simulation.experiment.gain(_course(opened), _course(closed), answers) if closed.rows else None
    if found is None:
        return {"gained": ENDED_EARLY}
    return {
        "open loop": found.open_loop,
        "closed loop": found.closed_loop,
        "gained": found.gained,
        "amount": found.amount,
        "unit": found.unit,
        **{name: round(value, 4) for name, value in found.numbers.items()},
    }


def _course(truth: Truth) -> Course:
    frames = list(truth.by_frame().values())
    return Course(frames, truth.rows[-1])
