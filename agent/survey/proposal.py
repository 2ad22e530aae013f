"""Proposes settings of the fields with which the agent reads a stream."""

from typing import Any

from ..fields import FieldSettings
from .roles import ROLES, Reading


def proposed_fields(reading: Reading, settings: FieldSettings) -> dict[str, tuple[Any, str]]:
    """Return the keys of ``fields`` for a stream, each with the reason for its value.

    >>> from .streams import StreamSummary
    >>> from ..types import RunInfo
    >>> proposed_fields(Reading(StreamSummary("primary", RunInfo("r"), {"data_keys": {}})), FieldSettings())
    {}
    """
    proposed: dict[str, tuple[Any, str]] = {}
    for role in ROLES:
        found = reading.roles.get(role)
        if found is None or not found.keys:
            continue
        others = [key for key in found.alternatives if all(key not in f.keys for f in reading.roles.values())]
        why = f"{found.why}; or {', '.join(others)}" if others else found.why
        proposed[role] = (list(found.keys) if role == "fluorescence" else found.keys[0], why)
        if role == "position" and reading.relation is not None:
            proposed["relation"] = (dict(reading.relation), "converts the position to energy, eV")
    if settings.relation is not None and "position" in proposed:
        proposed["relation"] = (settings.relation.model_dump(exclude_unset=True), "from the config")
    if reading.formula is not None and reading.roles:
        proposed["formula"] = (reading.formula, "how μ is computed")
    return proposed
