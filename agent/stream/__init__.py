"""Documents → frames."""

from .columns import UnreadFile, announced_events, document_time
from .fly import FlySettings, external_keys_to_read
from .reader import FrameReader, Outcome
from .sweeps import UnusableError, form_spectrum, strip_padding

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
    "strip_padding",
]
