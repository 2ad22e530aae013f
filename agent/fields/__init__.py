"""Which field of a document is energy, I0, It, If, Iref or μ."""

from .names import usual
from .resolve import (
    FOIL,
    StreamFields,
    UnreadableStream,
    absent,
    as_filled,
    element_and_edge,
    field_missing,
    has_i0,
    resolve,
    skipped_plan,
    wanted_from_files,
)
from .run_start import absorber, number
from .settings import FieldSettings

__all__ = [
    "FOIL",
    "FieldSettings",
    "StreamFields",
    "UnreadableStream",
    "absent",
    "absorber",
    "as_filled",
    "element_and_edge",
    "field_missing",
    "has_i0",
    "number",
    "resolve",
    "skipped_plan",
    "usual",
    "wanted_from_files",
]
