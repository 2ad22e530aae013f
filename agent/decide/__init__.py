"""Estimates → decisions → control."""

from .controls import Controls
from .dispatch import ControlSettings
from .requests import FINAL_STATUSES, Requests
from .rules import Rule, Rules
from .trend import Z90

__all__ = [
    "FINAL_STATUSES",
    "Z90",
    "ControlSettings",
    "Controls",
    "Requests",
    "Rule",
    "Rules",
]
