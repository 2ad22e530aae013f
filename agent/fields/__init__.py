"""Which field of a document is energy, I0, It, If, Iref or μ."""

from .external import external_keys_of_spectra, mark_filled
from .likely import likely_keys, may_be_intensity, scanned_motors
from .monochromator import Bragg
from .names import (
    SYNONYMS,
    UnknownRoleError,
    element_channels,
    is_pattern,
    match_keys,
    match_synonyms,
    plain_name,
    role_of,
)
from .resolve import (
    FOIL_ROLES,
    StreamFields,
    UnreadableStream,
    describe_missing_fields,
    energy_candidates,
    find_missing_fields,
    has_i0,
    is_scalar,
    resolve,
)
from .run_start import find_no_foil, parse_absorber, read_number, read_text
from .scan import SeriesSettings, read_scan, with_file
from .settings import FieldSettings
from .watched import element_and_edge, skip_reason

__all__ = [
    "FOIL_ROLES",
    "SYNONYMS",
    "Bragg",
    "FieldSettings",
    "SeriesSettings",
    "StreamFields",
    "UnknownRoleError",
    "UnreadableStream",
    "describe_missing_fields",
    "element_and_edge",
    "element_channels",
    "energy_candidates",
    "external_keys_of_spectra",
    "find_missing_fields",
    "find_no_foil",
    "has_i0",
    "is_pattern",
    "is_scalar",
    "likely_keys",
    "mark_filled",
    "match_keys",
    "match_synonyms",
    "may_be_intensity",
    "parse_absorber",
    "plain_name",
    "read_number",
    "read_scan",
    "read_text",
    "resolve",
    "role_of",
    "scanned_motors",
    "skip_reason",
    "with_file",
]
