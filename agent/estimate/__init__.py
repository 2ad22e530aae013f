"""Frames → answers: the model is chosen, the spectrum aligned and estimated, with the uncertainty of its energies."""

from .energy_uncertainty import EnergyUncertainty
from .serve import Aligner, Answer, FrameServer

__all__ = [
    "Aligner",
    "Answer",
    "EnergyUncertainty",
    "FrameServer",
]
