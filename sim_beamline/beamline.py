"""The simulated beamline: a RunEngine measures a sample while an experiment changes it."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np
from bluesky.utils import Msg

from ..agent.types import Reply
from .devices import CountTime, Drive, IonChambers, Monochromator, QuickScan, RecordedDevice, Shutter, sensor
from .engine import INTERRUPTED, DocumentSink, Outlets, carry_out
from .optics import Beam
from .plan_state import PlanState
from .plans import FLY_ENERGIES_EV, STEP_ENERGIES_EV, BeamlineDevices, Plan, fly_frame, measure, step_frame
from .robot import Robot, load_cell
from .sample_changer import SampleChanger, magazine
from .settings import BeamlineSettings

_TRUTH_UNITS = {"mono_error_ev": "eV", "current_ma": "mA", "charge_mah": "mAh", "time_s": "s", "seconds": "s"}
_TRUTH_UNITS |= {"damage_e": "e", "temperature_c": "degC"}


class SimBeamline:
    """Devices, plans and a RunEngine, which sends measured documents and true values to separate sinks.

    ``run`` blocks and may be called once, from any thread. ``obey`` may be called from any thread while it runs.

    Parameters
    ----------
    settings : BeamlineSettings
    sinks : sequence of callables
        Receive every document except those of truth runs.
    truth_sinks : sequence of callables
        Receive the documents of truth runs.
    frames : int, optional
        Number of frames to measure; by default that of the settings.
    """

    def __init__(
        self,
        settings: BeamlineSettings,
        sinks: Sequence[DocumentSink],
        truth_sinks: Sequence[DocumentSink] = (),
        *,
        frames: int | None = None,
    ) -> None:
        self.settings = settings
        self.sample_uid = str(uuid4())
        self.measured = 0
        """Number of measured frames."""
        self._frames = settings.frames if frames is None else frames
        self._outlets = Outlets(sinks, truth_sinks)
        self._began = time.time()
        self._experiment = settings.experiment.begin(settings.seed)
        points, duration_s = _points(settings), settings.experiment.duration_s
        self._beam = Beam(settings.beam, self._experiment, settings.seed, points=points, duration_s=duration_s)
        self._devices = self._build_devices(duration_s / settings.frames / points)
        self._plan_state = PlanState(self._switch, self._experiment.knobs, self._experiment.told)

    def _build_devices(self, point_s: float) -> BeamlineDevices:
        beam, experiment = self._beam, self._experiment
        noise = np.random.default_rng([self.settings.seed, 3])
        noise.normal()  # discarded, so that a seed gives the same numbers as in earlier versions
        mono = Monochromator(name="energy", init_pos=float(STEP_ENERGIES_EV[0]))
        return BeamlineDevices(
            mono=mono,
            chambers=IonChambers(name="chambers", beam=beam, mono=mono, seconds=point_s),
            quick_scan=QuickScan(name="quick_scan", beam=beam, energies=FLY_ENERGIES_EV, seconds=point_s),
            sensors=tuple(sensor(reading, noise) for reading in experiment.readings),
            drive=Drive(name="drive", experiment=experiment),
            count_time=CountTime(name="count_time", beam=beam),
            shutter=Shutter(name="shutter", beam=beam),
            truth=RecordedDevice("truth", _truth_keys(self._truth(0, 0.0, 0.0, experiment.truth()))),
            mark_truth=self._mark_truth,
        )

    def _switch(self, on: bool) -> None:
        self._devices.drive.set(int(on))

    def _mark_truth(self, frame: int, x: float, seconds: float, values: Mapping[str, float]) -> None:
        self.measured = frame
        self._devices.truth.put(self._truth(frame, x, seconds, values))

    def _truth(self, frame: int, x: float, seconds: float, values: Mapping[str, float]) -> dict[str, Any]:
        return {
            "frame": frame,
            "x": x,
            "mono_error_ev": self.mono_error_ev,
            "time_s": self._experiment.time_s,
            "seconds": seconds,
            "stopped": False,
            **values,
        }

    @property
    def x_true(self) -> float:
        """Current lithium content of the sample in the beam, atoms per formula unit."""
        return self._experiment.x

    @property
    def mono_error_ev(self) -> float:
        """Current difference between reported and true energy, eV."""
        return float(self._beam.mono_error_ev(self._experiment.time_s)[0])

    def __len__(self) -> int:
        """Return the number of planned frames."""
        return self._frames

    def obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        """Carry out a control request; may be called from any thread.

        ``stop`` cuts the current before it returns, and the measurement ends with success after the frame in
        progress. ``pause`` cuts the current and holds the plan; ``resume`` continues it. ``set`` sets a signal that
        the experiment offers, and ``repeat_frame`` measures the last frame again. ``notify`` notifies the crew. An
        action that is unknown or not allowed in the present phase is rejected with a reason.
        """
        return self._plan_state.obey(action, args)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the measurement."""
        return self._plan_state.reason == INTERRUPTED

    def run(self) -> None:
        """Load the cell and measure it to the planned end or until a stop request; blocks."""
        outlets = self._outlets if self.settings.clock == "wall" else self._stamped
        carry_out(self._plan(), self._plan_state, outlets)

    def _stamped(self, name: str, doc: dict[str, Any]) -> None:
        """Send a document with the time of the experiment."""
        self._outlets(name, {**doc, "time": self._began + self._experiment.time_s} if "time" in doc else doc)

    def _plan(self) -> Generator[Msg, Any, None]:
        s, experiment = self.settings, self._experiment
        fly = s.mode == "fly"
        sample = {"sample_name": s.sample_name, "sample_uid": self.sample_uid}
        if experiment.cathode_mass_mg is not None:
            yield from load_cell(Robot(name="robot", active_mass_mg=experiment.cathode_mass_mg, seed=s.seed), sample)
        yield from measure(
            self._devices,
            experiment,
            _frame_plan(s),
            self._plan_state,
            frames=self._frames,
            period_s=s.frame_period_s,
            md={
                **sample,
                "plan_name": f"{s.mode}_xanes",
                "purpose": "measurement",
                "element": "Co",
                "edge": "K",
                "motors": [] if fly else ["energy"],
                "detectors": [
                    "quick_scan" if s.mode == "fly" else "chambers",
                    *(r.name for r in experiment.readings),
                ],
                "num_points": self._frames * (len(STEP_ENERGIES_EV) if s.mode == "step" else 1),
            },
            truth_md={**sample, "plan_name": "truth", "seed": s.seed, **experiment.known()},
        )


class ChangingBeamline:
    """Measures each sample that a sample changer brings into the beam, as :class:`SimBeamline` measures one.

    Each sample has its own seed: that of the settings plus the number of earlier samples. An experiment with a
    magazine ends when its frames are used up or no fresh sample is left; any other experiment continues until Ctrl-C.

    Parameters
    ----------
    settings : BeamlineSettings
    changer : SampleChanger
    sinks, truth_sinks : sequence of callables
        As for :class:`SimBeamline`.
    """

    def __init__(
        self,
        settings: BeamlineSettings,
        changer: SampleChanger,
        sinks: Sequence[DocumentSink],
        truth_sinks: Sequence[DocumentSink] = (),
    ) -> None:
        self._settings, self._changer = settings, changer
        self._sinks = sinks, truth_sinks
        self._beamline: SimBeamline | None = None

    def obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        """Carry out a control request on the present measurement; may be called from any thread."""
        beamline = self._beamline
        if beamline is None:
            return Reply("rejected", f"cannot {action}: nothing is measured")
        return beamline.obey(action, args)

    def run(self) -> None:
        """Measure samples as described for the class; blocks."""
        limited, left = self._settings.experiment.places > 0, self._settings.frames
        for place in count():
            sample = self._changer.next_to_measure()
            measured = self._measure(sample, place, left)
            if limited:
                left -= measured
            if self._beamline is None or self._beamline.interrupted or left <= 0:
                break
            if limited and not self._changer.has_fresh:
                break

    def run_in_order(self) -> None:
        """Measure all samples of the magazine in order, each with an equal share of the frames; blocks."""
        places, frames = self._settings.experiment.places, self._settings.frames
        for place, sample in enumerate(magazine(places)):
            self._measure(sample, place, frames // places + (place < frames % places))

    def _measure(self, sample: str, place: int, frames: int) -> int:
        """Measure one sample; return the number of its frames."""
        s = self._settings
        changes = {
            "sample_name": sample,
            "seed": s.seed + place,
            "experiment": s.experiment.at_place(place, s.seed),
        }
        with self._changer.beam():
            self._beamline = beamline = SimBeamline(s.model_copy(update=changes), *self._sinks, frames=frames)
            beamline.run()
        return beamline.measured


def measure_open_loop(settings: BeamlineSettings, truth_sinks: Sequence[DocumentSink]) -> None:
    """Measure the same experiment without requests and without waits, for its true values; blocks."""
    settings = settings.model_copy(update={"frame_period_s": 0.0})
    if settings.experiment.places:
        changer = SampleChanger(magazine(settings.experiment.places), 0.0)
        ChangingBeamline(settings, changer, [], truth_sinks).run_in_order()
    else:
        SimBeamline(settings, [], truth_sinks).run()


def detectors(seed: int = 0) -> list[Any]:
    """Return devices for a user's own plan: a quick scan of the cathode, its voltage and its temperature.

    >>> from bluesky import RunEngine
    >>> from bluesky.plans import count
    >>> RE = RunEngine()
    >>> _ = RE(count(detectors(), num=2, md={"element": "Co", "edge": "K"}))
    """
    devices = SimBeamline(BeamlineSettings(seed=seed), [])._devices
    devices.shutter.set(1)
    return [devices.quick_scan, *devices.sensors]


def _points(settings: BeamlineSettings) -> int:
    """Return the largest number of energies of a frame."""
    if settings.mode == "adaptive":
        from .adaptive import SETTINGS  # needs the extra [adaptive]

        return SETTINGS.max_points
    return len(FLY_ENERGIES_EV if settings.mode == "fly" else STEP_ENERGIES_EV)


def _frame_plan(settings: BeamlineSettings) -> Callable[[BeamlineDevices, int], Plan]:
    """Return the plan of a frame, for one run."""
    if settings.mode == "adaptive":
        from .adaptive import ChosenFrame

        return ChosenFrame()
    return fly_frame if settings.mode == "fly" else partial(step_frame, both_ways=settings.both_ways)


def _truth_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data keys of true values."""
    kinds = {bool: "boolean", int: "integer", float: "number"}
    keys = {name: {"dtype": kinds[type(value)], "shape": [], "source": "sim:truth"} for name, value in values.items()}
    for name in _TRUTH_UNITS.keys() & keys:
        keys[name]["units"] = _TRUTH_UNITS[name]
    return keys
