"""The settings of the simulated beamline."""

from typing import Literal

from pydantic import Field

from ..agent.types import Settings
from .experiments import ChargeSettings, ExperimentSettings
from .optics import BeamSettings


class BeamlineSettings(Settings):
    """A simulated beamline and the experiment that it measures."""

    experiment: ExperimentSettings = ChargeSettings()
    """The experiment, selected by its ``kind``: a sample and its driving force."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers: for the sample, the monochromator's error and the noise."""
    frames: int = Field(default=80, gt=0)
    """Number of planned spectra; the planned duration is spread evenly over them."""
    mode: Literal["fly", "step", "adaptive"] = "fly"
    """``fly``: one Event with arrays per spectrum. ``step``: one Event per energy. ``adaptive``: one Event per
    energy, each chosen from the results so far, then one Event with the spectrum."""
    both_ways: bool = False
    """Whether, in step mode, every second sweep has falling energies."""
    frame_period_s: float = Field(default=0.5, ge=0)
    """Wall time from one frame to the next, s; 0 adds no wait. The simulated time does not depend on it."""
    clock: Literal["wall", "simulated"] = "wall"
    """Times of the documents. ``simulated``: times of the experiment, from its beginning. The monochromator drifts in
    simulated time; in fast motion, anything that follows it in wall time depends on the speed of the simulation."""
    sample_name: str = "LiCoO2 cathode"
    """Sample name in the RunStarts of the robot's run and of the measurement."""
    beam: BeamSettings = BeamSettings()
    """Source, monochromator and ion chambers."""
