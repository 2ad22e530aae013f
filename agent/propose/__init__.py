"""Where to measure next: energies inside a scan."""

from .energies import EnergyProposer, EnergySettings, KnownSpectrum

__all__ = ["EnergyProposer", "EnergySettings", "KnownSpectrum"]
