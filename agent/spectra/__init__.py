"""Frames → aligned spectra."""

from .align import Aligned, Refusal, align
from .normalisation import Normalised
from .self_absorption import SelfAbsorptionSettings, thick_alpha
from .series import SeriesAlignment, series_of
from .settings import AlignmentSettings
from .theory import align_theory, with_tail

__all__ = [
    "Aligned",
    "AlignmentSettings",
    "Normalised",
    "Refusal",
    "SelfAbsorptionSettings",
    "SeriesAlignment",
    "align",
    "align_theory",
    "series_of",
    "thick_alpha",
    "with_tail",
]
