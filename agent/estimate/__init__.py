"""Frames → answers: choice of the model, alignment, estimate, and the uncertainty of the energies."""

from .energy_uncertainty import EnergyUncertainty
from .serve import Aligner, Answer, FrameServer, rows_of

__all__ = [
    "Aligner",
    "Answer",
    "EnergyUncertainty",
    "FrameServer",
    "rows_of",
]
