"""The plan of adaptive scans at the simulated beamline."""

from typing import Any

from ..agent.propose import EnergyProposer, EnergySettings
from ..agent.types import edge_ev
from ..plans import AdaptiveSpectrum, adaptive_frame, transmission
from .plans import BeamlineDevices, Plan

SETTINGS = EnergySettings()
"""Range and errors of the scans; a frame takes the time of ``max_points``."""


class ChosenFrame:
    """Plans that measure one spectrum each, at energies chosen during the scan; for one run."""

    def __init__(self) -> None:
        self._spectrum = AdaptiveSpectrum()

    def __call__(self, devices: BeamlineDevices, _: int) -> Plan:
        """Plan: measure a spectrum, then wait for the rest of the frame's time."""
        proposer, foil = EnergyProposer(SETTINGS, edge_ev("Co")), transmission("It", "Iref")
        readables: Any = [devices.chambers, *devices.sensors]
        yield from adaptive_frame(readables, devices.mono, proposer, transmission(), self._spectrum, foil=foil)
        devices.chambers.rest(SETTINGS.max_points - proposer.points)
