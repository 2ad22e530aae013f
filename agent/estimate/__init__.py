"""Frames → answers: choice of the model, alignment, estimate, and the uncertainty of the energies."""

from .energy_uncertainty import EnergyUncertainty
from .model_choice import choose_model
from .serve import Aligner, Answer, FrameServer, rows_of

__all__ = [
    "Aligner",
    "Answer",
    "EnergyUncertainty",
    "FrameServer",
    "choose_model",
    "rows_of",
]
