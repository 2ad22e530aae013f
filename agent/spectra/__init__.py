"""Frames → aligned spectra: calibrated, normalised and resampled onto the grid of a model."""

from .align import Aligned, align
from .batch import Batch
from .noise import add_noise
from .normalisation import Normalised
from .self_absorption import SelfAbsorptionSettings, thick_alpha
from .series import SeriesAlignment
from .settings import AlignmentSettings
from .theory import TheoryAlignment, with_tail

__all__ = [
    "Aligned",
    "AlignmentSettings",
    "Batch",
    "Normalised",
    "SelfAbsorptionSettings",
    "SeriesAlignment",
    "TheoryAlignment",
    "add_noise",
    "align",
    "thick_alpha",
    "with_tail",
]
