"""Documents → a summary for the user: what they contain, what is read of it and why, and what settings would help."""

from .proposal import proposed_fields
from .roles import ROLES, Reading, RoleFound, explain
from .steps import EdgeMatch
from .streams import FieldSummary, StreamSummary, Survey, survey

__all__ = [
    "ROLES",
    "EdgeMatch",
    "FieldSummary",
    "Reading",
    "RoleFound",
    "StreamSummary",
    "Survey",
    "explain",
    "proposed_fields",
    "survey",
]
