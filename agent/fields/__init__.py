"""Which field of a document is energy, I0, It, If, Iref or μ."""

from .names import SYNONYMS, UnknownRoleError, named_after, plain, role_of, usual
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
    "SYNONYMS",
    "FieldSettings",
    "StreamFields",
    "UnknownRoleError",
    "UnreadableStream",
    "absent",
    "absorber",
    "as_filled",
    "element_and_edge",
    "field_missing",
    "has_i0",
    "named_after",
    "number",
    "plain",
    "resolve",
    "role_of",
    "skipped_plan",
    "usual",
    "wanted_from_files",
]
