"""Which field of a document is energy, I0, It, If, Iref or μ."""

from .names import SYNONYMS, UnknownRoleError, element_channels, match_synonyms, plain_name, role_of
from .resolve import (
    FOIL_ROLES,
    StreamFields,
    UnreadableStream,
    describe_missing_fields,
    element_and_edge,
    energy_candidates,
    external_keys_of_spectra,
    find_missing_fields,
    has_i0,
    mark_filled,
    resolve,
    skip_reason,
)
from .run_start import find_no_foil, parse_absorber, read_number, read_text
from .scan import SeriesSettings, read_scan, with_file
from .settings import FieldSettings

__all__ = [
    "FOIL_ROLES",
    "SYNONYMS",
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
    "mark_filled",
    "match_synonyms",
    "parse_absorber",
    "plain_name",
    "read_number",
    "read_scan",
    "read_text",
    "resolve",
    "role_of",
    "skip_reason",
    "with_file",
]
