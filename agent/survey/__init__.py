"""Summarises documents for the user: their contents, how the agent reads them and why, and settings that help."""

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
