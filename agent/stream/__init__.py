"""Documents → frames."""

from .assembler import FrameAssembler
from .columns import Unread, announcements, time_of
from .fly import FlyJoiner, FlySettings, needed
from .sweeps import UnusableError, spectrum, strip_padding

__all__ = [
    "FlyJoiner",
    "FlySettings",
    "FrameAssembler",
    "Unread",
    "UnusableError",
    "announcements",
    "needed",
    "spectrum",
    "strip_padding",
    "time_of",
]
