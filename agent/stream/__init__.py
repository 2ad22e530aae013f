"""Documents → frames."""

from .columns import UnreadFile, announcements, time_of
from .fly import FlySettings, needed
from .reader import FrameReader, Outcome
from .sweeps import UnusableError, spectrum, strip_padding

__all__ = [
    "FlySettings",
    "FrameReader",
    "Outcome",
    "UnreadFile",
    "UnusableError",
    "announcements",
    "needed",
    "spectrum",
    "strip_padding",
    "time_of",
]
