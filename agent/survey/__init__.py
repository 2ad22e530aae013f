"""Documents → a summary for the user: what they contain, what is read of it and why, and what settings would help."""

from .proposal import proposed_fields
from .roles import ROLES, Reading, RoleFound, explain
from .samples import SamplesFound, find_samples
from .steps import EdgeMatch
from .streams import FieldSummary, StreamSummary, Survey, survey

__all__ = [
    "ROLES",
    "EdgeMatch",
    "FieldSummary",
    "Reading",
    "RoleFound",
    "SamplesFound",
    "StreamSummary",
    "Survey",
    "explain",
    "find_samples",
    "proposed_fields",
    "survey",
]
