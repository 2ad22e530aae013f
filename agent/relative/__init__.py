"""Adds to a model's estimates the values relative to known frames, changes and rates of their series."""

from .settings import (
    Anchor,
    Anchors,
    RelativeSettings,
    anchor_of,
    check_descriptors,
    derived_units,
    read_anchors,
    setting_for,
)
from .stage import RelativeQuantities

__all__ = [
    "Anchor",
    "Anchors",
    "RelativeQuantities",
    "RelativeSettings",
    "anchor_of",
    "check_descriptors",
    "derived_units",
    "read_anchors",
    "setting_for",
]
