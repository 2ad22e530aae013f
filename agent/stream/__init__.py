"""Documents → frames."""

from .columns import UnreadFile, announced_events, document_time
from .detectors import turn_negative_currents
from .fly import FlySettings, external_keys_to_read
from .reader import FrameReader, Outcome
from .sweeps import (
    UnusableError,
    form_spectrum,
    has_only_short_sweeps,
    has_stray_energy,
    split_sweeps,
    strip_padding,
)

__all__ = [
    "FlySettings",
    "FrameReader",
    "Outcome",
    "UnreadFile",
    "UnusableError",
    "announced_events",
    "document_time",
    "external_keys_to_read",
    "form_spectrum",
    "has_only_short_sweeps",
    "has_stray_energy",
    "split_sweeps",
    "strip_padding",
    "turn_negative_currents",
]
