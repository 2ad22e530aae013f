"""Estimates → decisions → control."""

from .controls import Controls
from .dispatch import OPERATOR, ControlSettings
from .observed import PARTS, READINGS, Observed, SeriesPoint, Uncertainty
from .requests import Paused, Requests
from .rules import Rule, Rules, check_names
from .triggers import (
    AllOf,
    AnyOf,
    Band,
    Change,
    Extremum,
    FramesSetAside,
    NotOf,
    Plateau,
    QuantityTrigger,
    Quiet,
    Rate,
    Then,
    Threshold,
    Trigger,
    Unfamiliar,
    out_of_reach,
    start_watch,
    triggers_in,
)

__all__ = [
    "OPERATOR",
    "PARTS",
    "READINGS",
    "AllOf",
    "AnyOf",
    "Band",
    "Change",
    "ControlSettings",
    "Controls",
    "Extremum",
    "FramesSetAside",
    "NotOf",
    "Observed",
    "Paused",
    "Plateau",
    "QuantityTrigger",
    "Quiet",
    "Rate",
    "Requests",
    "Rule",
    "Rules",
    "SeriesPoint",
    "Then",
    "Threshold",
    "Trigger",
    "Uncertainty",
    "Unfamiliar",
    "check_names",
    "out_of_reach",
    "start_watch",
    "triggers_in",
]
