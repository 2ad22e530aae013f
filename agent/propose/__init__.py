"""Proposes what to measure next: energies within a scan, or samples."""

from .energies import EnergyProposer, EnergySettings, KnownSpectrum
from .samples import Proposal, SampleProposer
from .search import SampleSettings

__all__ = ["EnergyProposer", "EnergySettings", "KnownSpectrum", "Proposal", "SampleProposer", "SampleSettings"]
