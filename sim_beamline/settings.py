"""The settings of the simulated beamline."""

from typing import Literal

from pydantic import Field

from ..agent.types import Settings
from .experiments import ChargeSettings, ExperimentSettings
from .optics import BeamSettings


class BeamlineSettings(Settings):
    """A simulated beamline and the experiment that it measures."""

    experiment: ExperimentSettings = ChargeSettings()
    """The sample and what changes it, with its ``kind``."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers: those of the sample, the monochromator's error and the noise."""
    frames: int = Field(default=80, gt=0)
    """Number of planned spectra; the planned duration is spread evenly over them."""
    mode: Literal["fly", "step", "adaptive"] = "fly"
    """``fly``: one Event with arrays per spectrum. ``step``: one Event per energy. ``adaptive``: an Event per energy,
    each chosen by what is known already, then one with the spectrum."""
    both_ways: bool = False
    """Whether, in step mode, every second sweep has falling energies."""
    frame_period_s: float = Field(default=0.5, ge=0)
    """Wall time from one frame to the next, s; 0 adds no wait. The simulated time does not depend on it."""
    clock: Literal["wall", "simulated"] = "wall"
    """Times of the documents. ``simulated``: those of the experiment since its begin. The monochromator drifts in
    simulated time: in fast motion, what follows it over wall time depends on how fast the machine simulates."""
    sample_name: str = "LiCoO2 cathode"
    """Sample name in the RunStarts of the robot's run and of the measurement."""
    beam: BeamSettings = BeamSettings()
    """Source, monochromator and ion chambers."""
