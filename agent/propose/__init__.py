"""Where to measure next: energies inside a scan, and samples."""

from .energies import EnergyProposer, EnergySettings, KnownSpectrum
from .samples import Proposal, SampleProposer
from .search import SampleSettings

__all__ = ["EnergyProposer", "EnergySettings", "KnownSpectrum", "Proposal", "SampleProposer", "SampleSettings"]
