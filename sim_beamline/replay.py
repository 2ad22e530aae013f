"""Replay of a recorded experiment: simulated devices measure it again through a RunEngine, at any speed."""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.preprocessors import set_run_key_wrapper
from bluesky.utils import Msg

from ..agent.types import Document, Reply
from .engine import DocumentSink, Outlets, carry_out
from .plan_state import PlanState
from .recorded_documents import from_documents
from .recorded_folder import from_folder
from .recording import CloseRun, OpenRun, OpenStream, Reading, ReplayError, Step, is_frame

__all__ = ["Replay", "ReplayError"]


class Replay:
    """Replays a folder (``spectra.npz`` and ``series.csv``) or recorded documents.

    Recorded Events keep their ``seq_num``, and a RunStop its ``num_events``, so that losses and repetitions remain.
    The ``time`` of an Event is the time of the replay; its ``timestamps`` and, for a folder, the reading
    ``recorded_time`` (Unix s) carry the recorded time. ``run`` blocks and may be called once, from any thread.
    ``obey`` may be called from any thread while it runs.

    Parameters
    ----------
    source : Path or iterable of (str, dict)
        A folder, or documents, which are read to the end at once.
    speed : float or None
        Recorded seconds per second; None replays without waiting.
    sinks : sequence of callables
        Receive every document except those of truth runs.
    truth_sinks : sequence of callables
        Receive the documents of truth runs.
    element, edge : str, optional
        Absorber and edge in the RunStart of a folder's run.
    noise : float
        σ of Gaussian noise added to a folder's normalised spectra.
    seed : int
        Seed of the noise.
    recorded_times : bool
            Whether the ``time`` of an Event is also the recorded one.

    Raises
    ------
    ReplayError
            The source cannot be replayed; the message states what was found and what is expected.
    """

    def __init__(
        self,
        source: Path | Iterable[Document],
        speed: float | None,
        sinks: Sequence[DocumentSink] = (),
        truth_sinks: Sequence[DocumentSink] = (),
        *,
        element: str | None = None,
        edge: str | None = None,
        noise: float = 0.0,
        seed: int = 0,
        recorded_times: bool = False,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ReplayError(f"speed is {speed}, expected a positive number, or no speed for the fastest replay")
        if noise < 0:
            raise ReplayError(f"noise is {noise}, expected 0 or a positive standard deviation")
        if isinstance(source, Path):
            if not source.exists():
                raise ReplayError(f"{source}: found no such file or folder")
            if not source.is_dir():
                raise ReplayError(f"{source}: not a folder; expected one with spectra.npz and series.csv")
            self._steps = from_folder(source, element=element, edge=edge, noise=noise, seed=seed)
        else:
            self._steps = from_documents(source)
        self._speed, self._recorded_times = speed, recorded_times
        self._outlets = Outlets(sinks, truth_sinks)
        self._plan_state = PlanState()
        self._step: Step | None = None
        """The step that the RunEngine carries out."""

    def __len__(self) -> int:
        """Return the number of Events with a whole spectrum or, for step scans, of the frames in the RunStarts."""
        frames = sum(isinstance(step, Reading) and is_frame(step) for step in self._steps)
        return frames or sum(
            int(step.metadata.get("frames_planned", 1)) for step in self._steps if isinstance(step, OpenRun)
        )

    def obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        """Carry out a control request; may be called from any thread.

        ``stop`` ends the replay after the frame in progress, ``pause`` holds it, ``resume`` continues it.
        """
        return self._plan_state.obey(action, args)

    def subscribe(self, sink: DocumentSink) -> None:
        """Add a sink before the replay runs; it receives the same documents as ``sinks``."""
        self._outlets.subscribe(sink)

    def run(self) -> None:
        """Replay to the end or until a stop request; blocks."""
        carry_out(self._plan(), self._plan_state, self._send)

    def _send(self, name: str, doc: dict[str, Any]) -> None:
        """Send a document of the RunEngine with the recorded numbers and, if requested, the recorded times."""
        step = self._step
        if name == "event" and isinstance(step, Reading) and self._recorded_times:
            doc = {**doc, "time": step.time}
        if name == "event" and isinstance(step, Reading) and step.seq_num is not None:
            doc = {**doc, "seq_num": step.seq_num}
        elif name == "stop" and isinstance(step, CloseRun) and step.num_events is not None:
            doc = {**doc, "num_events": dict(step.num_events)}
        self._outlets(name, doc)

    def _plan(self) -> Generator[Msg, Any, None]:
        open_runs: dict[str, None] = {}
        pace = _Pace(self._speed)
        for step in self._steps:
            if isinstance(step, Reading):
                pace.paused_s += yield from self._plan_state.hold(pace.due(step.time))
            if self._plan_state.stopped:
                break
            self._step = step
            yield from set_run_key_wrapper(_do(step), step.run)
            if isinstance(step, OpenRun):
                open_runs[step.run] = None
            elif isinstance(step, CloseRun):
                open_runs.pop(step.run)
        self._plan_state.end()
        self._step = None
        for run in open_runs:
            close = bps.close_run(exit_status="success", reason=self._plan_state.reason)
            yield from set_run_key_wrapper(close, run)


def _do(step: Step) -> Generator[Msg, Any, None]:
    if isinstance(step, OpenRun):
        # These names are arguments of a bluesky message.
        metadata = {k: v for k, v in step.metadata.items() if k not in ("command", "obj", "run")}
        yield from bps.open_run(metadata)
    elif isinstance(step, OpenStream):
        yield from bps.declare_stream(*step.devices, name=step.stream)
    elif isinstance(step, CloseRun):
        yield from bps.close_run(exit_status=step.exit_status, reason=step.reason)
    else:
        for device in step.devices:
            device.put(step.data, step.timestamps)
        yield from bps.checkpoint()
        yield from bps.trigger_and_read(list(step.devices), name=step.stream)


class _Pace:
    """Maps recorded times to this machine's monotonic clock."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._first: tuple[float, float] | None = None
        """Recorded and monotonic time of the first Event, s."""
        self.paused_s = 0.0
        """Total duration of the pauses, s."""

    def due(self, recorded_s: float) -> float:
        if self._speed is None:
            return 0.0
        if self._first is None:
            self._first = (recorded_s, time.monotonic())
        return self._first[1] + (recorded_s - self._first[0]) / self._speed + self.paused_s
