"""The interface of an experiment: a sample in the beam, its driving force, and the gain of a closed loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from ..agent.types import Array, Settings
from .spectra import ReferenceSpectra, absorption

EDGE_STEP_SPREAD = 0.15
"""Largest relative deviation of the edge step."""

Row = Mapping[str, Any]
"""True values of a frame, an answered frame of descriptors.csv, or a decision, by key."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A scalar that is read with each frame."""

    name: str
    units: str
    sigma: float
    """σ of the noise, in ``units``."""
    value: Callable[[], float]
    """Returns the present true value."""
    precision: int = 3


@dataclass(frozen=True, slots=True)
class Knob:
    """A signal that a control may set."""

    low: float
    high: float
    units: str
    put: Callable[[float], None]
    """Sets the signal at once, from any thread."""


@dataclass(frozen=True)
class Course:
    """The true values of a finished experiment."""

    frames: Sequence[Row]
    """True values of each frame, in the order of measurement; ``run`` and ``frame`` identify it."""
    end: Row
    """True values after the last frame."""

    def count(self, holds: Callable[[Row], bool]) -> int:
        """Return the number of frames for which a condition holds."""
        return sum(map(holds, self.frames))


@dataclass(frozen=True)
class Answers:
    """The agent's answers in the closed loop."""

    frames: Sequence[Row]
    """Rows of descriptors.csv."""
    decisions: Sequence[Row] = ()
    """Rows of decisions.csv."""


@dataclass(frozen=True)
class Gain:
    """The gain of the closed loop over the open loop, which has the same seed and no requests."""

    open_loop: str
    closed_loop: str
    gained: str
    amount: float
    """The gain as a number, positive if the closed loop is better; ``unit`` states its meaning."""
    unit: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The numbers in the three sentences."""


class SampleSettings(Settings):
    """A sample, and the duration of its measurement."""

    duration_s: float = Field(default=14400.0, gt=0)
    """Duration of all planned frames together, simulated s."""
    edge_step: float = Field(default=1.0, gt=0)
    """Edge step of the sample at the Co K edge, dimensionless; the seed changes it by up to 15 %."""
    background: float = Field(default=0.6, ge=0)
    """Absorption of foils, electrolyte and lower edges at the Co K edge, dimensionless; it decays as E^-2.7."""
    broadening_ev: float = Field(default=1.0, gt=0)
    """Gaussian σ of the instrumental and thermal broadening of the computed spectra, eV."""
    feff_offset_ev: float | None = None
    """FEFF − experiment energy, eV; None: the value stored with the reference spectra."""

    @property
    def places(self) -> int:
        """Number of samples that a robot exchanges; 0: there is one sample and no robot."""
        return 0

    @property
    def change_time_s(self) -> float:
        """Wall time that the robot takes to load or unload a sample, s."""
        return 2.0

    @abstractmethod
    def begin(self, seed: int) -> "Experiment":
        """Return the experiment before its first frame."""

    def at_place(self, place: int, seed: int) -> "SampleSettings":
        """Return the settings of one sample of the magazine, counted from 0; all samples share the seed."""
        return self

    def check_frames(self, frames: int) -> None:
        """Raise ValueError if this number of planned frames is too small for the purpose of the experiment."""

    def gain(self, open_loop: Course, closed_loop: Course, answers: Answers) -> Gain | None:
        """Return the gain of the closed loop; None if nothing can be compared, for example after an early end."""
        return None


class Experiment(ABC):
    """A sample whose state the beam sees, on a clock of simulated seconds.

    The sample is LixCoO2: ``x`` selects its spectrum. One thread calls ``expose`` and ``prepare``; a control calls
    ``drive``, the knobs and ``told`` from others.

    Parameters
    ----------
    settings : SampleSettings
    edge_step : float
        Edge step of the sample, dimensionless.
    """

    cathode_mass_mg: float | None = None
    """Mass of the cathode in the cell that a robot has assembled, mg; None: no robot reports one."""

    def __init__(self, settings: SampleSettings, edge_step: float) -> None:
        self.spectra = ReferenceSpectra(settings.broadening_ev, settings.feff_offset_ev)
        self._background = settings.background
        self.edge_step = edge_step
        self.time_s = 0.0
        """Simulated time, s."""
        self.readings: tuple[Reading, ...] = ()
        """Scalars that are read with each frame."""
        self.knobs: dict[str, Knob] = {}
        """Signals that a control may set, by name."""
        self._seen_x: list[float] = []
        self.seen: dict[str, float] = {}
        """True values when the beam last saw the sample; a control may have changed it since."""

    @property
    @abstractmethod
    def x(self) -> float:
        """Lithium content, atoms per formula unit; the mean oxidation state of Co is 4 − x."""

    @abstractmethod
    def advance(self, seconds: float) -> tuple[float, float]:
        """Let time pass in the beam; return ``x`` before and after."""

    def prepare(self, frame: int) -> None:  # noqa: B027  most experiments have nothing to do
        """Prepare a planned frame, counted from 1; a repeated frame is not prepared again."""

    def drive(self, on: bool) -> None:  # noqa: B027
        """Switch the driving force of the sample, such as a current, on or off."""

    def told(self, message: Mapping[str, Any]) -> None:  # noqa: B027
        """Take a notification of the agent."""

    @property
    def transmission(self) -> float:
        """Fraction of the photons that reach the sample."""
        return 1.0

    def truth(self) -> dict[str, float]:
        """Return the true values of the present frame besides ``x`` and the time."""
        return {}

    def known(self) -> dict[str, float]:
        """Return the values that are known for the whole experiment before it begins."""
        return {}

    def begin_frame(self) -> None:
        """Begin a frame, planned or repeated."""
        self._seen_x.clear()

    @property
    def frame_x(self) -> float:
        """Mean of ``x`` at the first and the last energy of the frame."""
        return (self._seen_x[0] + self._seen_x[-1]) / 2

    def expose(self, energy_ev: Array, seconds: float) -> Array:
        """Measure all energies, (E,), eV, one after the other within ``seconds``; return the absorption μ·d, (E,)."""
        before, after = self.advance(seconds)
        self._seen_x += [before, after]
        self.seen = self.truth()
        elapsed = (np.arange(len(energy_ev)) + 0.5) / len(energy_ev)  # fraction of the scan
        return self.absorbs(energy_ev, before + elapsed * (after - before))

    def absorbs(self, energy_ev: Array, x: Array) -> Array:
        """Return the absorption μ·d of the sample, (E,), in the state ``x``, (E,)."""
        return absorption(self.spectra.cathode(energy_ev, x), energy_ev, self.edge_step, self._background)


def edge_step_of(settings: SampleSettings, draw: Callable[[float, float], float]) -> float:
    """Return the edge step of one sample; ``draw`` returns a random number within [-1, 1] that varies it."""
    return settings.edge_step * (1 + EDGE_STEP_SPREAD * draw(-1, 1))
