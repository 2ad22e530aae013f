"""Aligned spectra → estimates: the model that is chosen, the uncertainty of its energies."""

from .energy_uncertainty import EnergyUncertainty
from .model_choice import choose

__all__ = [
    "EnergyUncertainty",
    "choose",
]
