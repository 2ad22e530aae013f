"""Estimates → decisions → control."""

from .dispatch import ControlSettings
from .observed import PARTS, READINGS
from .requests import FINAL_STATUSES, Requests
from .rules import Rule, Rules, check_names
from .trend import Z90
from .triggers import QuantityTrigger, Threshold, Trigger, out_of_reach, start_watch, triggers_in

__all__ = [
    "FINAL_STATUSES",
    "PARTS",
    "READINGS",
    "Z90",
    "ControlSettings",
    "QuantityTrigger",
    "Requests",
    "Rule",
    "Rules",
    "Threshold",
    "Trigger",
    "check_names",
    "out_of_reach",
    "start_watch",
    "triggers_in",
]
