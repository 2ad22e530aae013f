"""Which field of a document is energy, I0, It, If, Iref or μ."""

from .energy_unit import MAX_ENERGY_RATIO, XRAYS_EV, XRAYS_KEV, are_kev, plain_unit, unit_to_ev
from .external import external_keys_of_spectra, mark_filled
from .form import announced_shape, has_many, is_scalar, with_measured_form
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
    resolve,
)
from .run_start import find_no_foil, parse_absorber, read_number, read_text
from .scan import SeriesSettings, read_scan, with_file
from .settings import ADAPTIVE_POINTS, FieldSettings
from .watched import element_and_edge, skip_reason

__all__ = [
    "ADAPTIVE_POINTS",
    "FOIL_ROLES",
    "MAX_ENERGY_RATIO",
    "SYNONYMS",
    "XRAYS_EV",
    "XRAYS_KEV",
    "Bragg",
    "FieldSettings",
    "SeriesSettings",
    "StreamFields",
    "UnknownRoleError",
    "UnreadableStream",
    "announced_shape",
    "are_kev",
    "describe_missing_fields",
    "element_and_edge",
    "element_channels",
    "energy_candidates",
    "external_keys_of_spectra",
    "find_missing_fields",
    "find_no_foil",
    "has_i0",
    "has_many",
    "is_pattern",
    "is_scalar",
    "likely_keys",
    "mark_filled",
    "match_keys",
    "match_synonyms",
    "may_be_intensity",
    "parse_absorber",
    "plain_name",
    "plain_unit",
    "read_number",
    "read_scan",
    "read_text",
    "resolve",
    "role_of",
    "scanned_motors",
    "skip_reason",
    "unit_to_ev",
    "with_file",
    "with_measured_form",
]
