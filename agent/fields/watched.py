"""Decides from the settings and the RunStart whether a run is watched and what it measures."""

import re
from collections.abc import Mapping
from typing import Any

from .run_start import first_value, parse_absorber
from .settings import FieldSettings


def element_and_edge(fields: FieldSettings, start: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the absorber's symbol and the edge, from the configuration or from the RunStart.

    >>> element_and_edge(FieldSettings(), {"edge": "Ni_K"})
    ('Ni', 'K')
    >>> element_and_edge(FieldSettings(), {"XDI": {"Element": {"symbol": ("cu",), "edge": "K"}}})
    ('Cu', 'K')
    """
    element, edge = parse_absorber(
        first_value(start, ("element", "Element.symbol", "XDI.Element.symbol", "symbol")),
        first_value(start, ("edge", "Element.edge", "XDI.Element.edge")),
    )
    return fields.element or element, fields.edge or edge


def skip_reason(fields: FieldSettings, start: Mapping[str, Any]) -> str | None:
    """Return why the plan name or kind shows that a run is no absorption scan; None if it may be one."""
    kind = " ".join(str(first_value(start, (key,)) or "") for key in fields.kind_keys).lower()
    if word := next((word for word in fields.skip_plans if _contains(kind, word)), None):
        return word
    if start and fields.only_plans and not any(_contains(kind, word) for word in fields.only_plans):
        return f"contains none of {', '.join(fields.only_plans)}"
    return None


def _contains(kind: str, word: str) -> bool:
    # The number 333, a reflection, must not match an energy of 8333 eV.
    return bool(re.search(rf"(?<!\d){re.escape(word)}(?!\d)" if word.isdigit() else re.escape(word.lower()), kind))
