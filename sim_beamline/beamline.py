"""The simulated beamline: a robot loads a cell, and a RunEngine measures the cell while it charges."""

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from bluesky.utils import Msg
from pydantic import Field

from ..agent.types import Reply, Settings
from .cathode import CathodeSettings, Cell, x_open_loop_end
from .devices import IonChambers, Monochromator, Potentiostat, QuickScan, RecordedDevice, Shutter, Thermometer
from .engine import INTERRUPTED, DocumentSink, Outlets, carry_out
from .optics import Beam, BeamSettings
from .plan_state import PlanState
from .plans import FLY_ENERGIES_EV, STEP_ENERGIES_EV, BeamlineDevices, fly_frame, measure, step_frame
from .robot import Robot, load_cell
from .sample_changer import SampleChanger

_TRUTH_DATA_KEYS = {
    "frame": {"dtype": "integer", "shape": [], "source": "sim:truth"},
    "x": {"dtype": "number", "shape": [], "source": "sim:truth"},
    "mono_error_ev": {"dtype": "number", "shape": [], "source": "sim:truth", "units": "eV"},
    "current_ma": {"dtype": "number", "shape": [], "source": "sim:truth", "units": "mA"},
    "charge_mah": {"dtype": "number", "shape": [], "source": "sim:truth", "units": "mAh"},
    "time_s": {"dtype": "number", "shape": [], "source": "sim:truth", "units": "s"},
    "stopped": {"dtype": "boolean", "shape": [], "source": "sim:truth"},
}


class BeamlineSettings(Settings):
    """A LixCoO2 cell that charges in the beam."""

    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers: the cell's capacity and current, the monochromator's error and the noise."""
    frames: int = Field(default=80, gt=0)
    """Number of planned spectra; the planned charge is spread evenly over them."""
    mode: Literal["fly", "step"] = "fly"
    """``fly``: one Event with arrays per spectrum. ``step``: one Event per energy."""
    both_ways: bool = False
    """Whether, in step mode, every second sweep has falling energies."""
    frame_period_s: float = Field(default=0.5, ge=0)
    """Wall time from one frame to the next, s; 0 adds no wait. The simulated time does not depend on it."""
    sample_name: str = "LiCoO2 cathode"
    """Sample name in the RunStarts of the robot's run and of the measurement."""
    cathode: CathodeSettings = CathodeSettings()
    """The sample and its charge."""
    beam: BeamSettings = BeamSettings()
    """Source, monochromator and ion chambers."""


class SimBeamline:
    """Devices, plans and a RunEngine, which sends measured documents and true values to separate sinks.

    ``run`` blocks and may be called once, from any thread. ``obey`` may be called from any thread while it runs.

    Parameters
    ----------
    settings : BeamlineSettings
    sinks : sequence of callables
        They receive every document except those of truth runs.
    truth_sinks : sequence of callables
        They receive the documents of truth runs.
    """

    def __init__(
        self,
        settings: BeamlineSettings,
        sinks: Sequence[DocumentSink],
        truth_sinks: Sequence[DocumentSink] = (),
    ) -> None:
        self.settings = settings
        self.sample_uid = str(uuid4())
        self._outlets = Outlets(sinks, truth_sinks)
        self._current_ma = settings.cathode.nominal_current_ma
        self._cell = Cell(settings.cathode, settings.seed)
        points = len(FLY_ENERGIES_EV if settings.mode == "fly" else STEP_ENERGIES_EV)
        self._beam = Beam(settings.beam, settings.cathode, self._cell, settings.seed, points)
        self._devices = self._build_devices(settings.cathode.charge_time_s / settings.frames / points)
        self._plan_state = PlanState(self._switch)

    def _build_devices(self, point_s: float) -> BeamlineDevices:
        cell, beam = self._cell, self._beam
        noise = np.random.default_rng([self.settings.seed, 3])
        mono = Monochromator(name="energy", init_pos=float(STEP_ENERGIES_EV[0]))
        return BeamlineDevices(
            mono=mono,
            chambers=IonChambers(name="chambers", beam=beam, mono=mono, seconds=point_s),
            quick_scan=QuickScan(name="quick_scan", beam=beam, energies=FLY_ENERGIES_EV, seconds=point_s),
            potentiostat=Potentiostat(name="potentiostat", cell=cell, noise=noise),
            thermometer=Thermometer(name="temperature", cell=cell, noise=noise),
            shutter=Shutter(name="shutter", beam=beam),
            truth=RecordedDevice("truth", _TRUTH_DATA_KEYS),
            mark_truth=self._mark_truth,
        )

    def _switch(self, on: bool) -> None:
        self._devices.potentiostat.current.put(self._current_ma if on else 0.0)

    def _mark_truth(self, frame: int, x: float, stopped: bool) -> None:
        cell = self._cell
        self._devices.truth.put(
            {
                "frame": frame,
                "x": x,
                "mono_error_ev": self.mono_error_ev,
                "current_ma": cell.current_ma,
                "charge_mah": cell.charge_mah,
                "time_s": cell.time_s,
                "stopped": stopped,
            }
        )

    @property
    def x_true(self) -> float:
        """Current lithium content of the cathode, atoms per formula unit."""
        return self._cell.x

    @property
    def mono_error_ev(self) -> float:
        """Current difference between reported and true energy, eV."""
        return float(self._beam.mono_error_ev(self._cell.time_s)[0])

    @property
    def x_open_loop_end(self) -> float:
        """Lithium content at the end of the planned scan if no control stops it, for the same seed."""
        return x_open_loop_end(self.settings.cathode, self.settings.seed)

    def __len__(self) -> int:
        """Return the number of planned frames."""
        return self.settings.frames

    def obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        """Carry out a control request; may be called from any thread.

        ``stop`` cuts the current before it returns, and the measurement ends with success after the frame in
        progress. ``pause`` cuts the current and holds the plan; ``resume`` continues it. An unknown action, or one
        that the present phase does not allow, is rejected with a reason.
        """
        return self._plan_state.obey(action, args)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the measurement."""
        return self._plan_state.reason == INTERRUPTED

    def run(self) -> None:
        """Load the cell and measure it to the planned end or until a stop request; blocks."""
        carry_out(self._plan(), self._plan_state, self._outlets)

    def _plan(self) -> Generator[Msg, Any, None]:
        s = self.settings
        sample = {"sample_name": s.sample_name, "sample_uid": self.sample_uid}
        yield from load_cell(Robot(name="robot", active_mass_mg=s.cathode.active_mass_mg, seed=s.seed), sample)
        step = s.mode == "step"
        yield from measure(
            self._devices,
            partial(step_frame, both_ways=s.both_ways) if step else fly_frame,
            self._plan_state,
            frames=s.frames,
            period_s=s.frame_period_s,
            current_ma=self._current_ma,
            md={
                **sample,
                "plan_name": f"{s.mode}_xanes",
                "purpose": "measurement",
                "element": "Co",
                "edge": "K",
                "motors": ["energy"] if step else [],
                "detectors": ["chambers" if step else "quick_scan", "potentiostat", "temperature"],
                "num_points": s.frames * (len(STEP_ENERGIES_EV) if step else 1),
            },
            truth_md={
                **sample,
                "plan_name": "truth",
                "seed": s.seed,
                "x_open_loop_end": self.x_open_loop_end,
            },
        )


class ChangingBeamline:
    """Measures each sample that a sample changer brings into the beam, as :class:`SimBeamline` measures one.

    Each sample is another cell: its seed is that of the settings plus the number of earlier samples.

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
        """Measure samples until Ctrl-C; blocks."""
        for seed in count(self._settings.seed):
            sample = self._changer.next_to_measure()
            with self._changer.beam():
                settings = self._settings.model_copy(update={"sample_name": sample, "seed": seed})
                self._beamline = beamline = SimBeamline(settings, *self._sinks)
                beamline.run()
            if beamline.interrupted:
                break


def detectors(seed: int = 0) -> list[Any]:
    """Return devices for a user's own plan: a quick scan of the cathode, its voltage and its temperature.

    >>> from bluesky import RunEngine
    >>> from bluesky.plans import count
    >>> RE = RunEngine()
    >>> _ = RE(count(detectors(), num=2, md={"element": "Co", "edge": "K"}))
    """
    devices = SimBeamline(BeamlineSettings(seed=seed), [])._devices
    devices.shutter.set(1)
    return [devices.quick_scan, devices.potentiostat.voltage, devices.thermometer]
