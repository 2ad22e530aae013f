"""What a series tells beside a model's estimates: values on the footing of known frames, changes and rates."""

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
