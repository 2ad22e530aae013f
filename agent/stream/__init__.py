"""Documents → frames."""

from .book import Book
from .columns import UnreadFile, announced_events, document_time, energy_column
from .detectors import turn_negative_currents
from .fly import FlySettings, external_keys_to_read
from .guess import guess_energy, prefer_readback, scale_to_ev
from .reader import FrameReader, Outcome
from .sweeps import (
    UnusableError,
    form_spectrum,
    has_stray_energy,
    split_sweeps,
    strip_padding,
    turns_too_often,
)

__all__ = [
    "Book",
    "FlySettings",
    "FrameReader",
    "Outcome",
    "UnreadFile",
    "UnusableError",
    "announced_events",
    "document_time",
    "energy_column",
    "external_keys_to_read",
    "form_spectrum",
    "guess_energy",
    "has_stray_energy",
    "prefer_readback",
    "scale_to_ev",
    "split_sweeps",
    "strip_padding",
    "turn_negative_currents",
    "turns_too_often",
]
