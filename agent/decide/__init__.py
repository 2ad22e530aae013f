"""Estimates → decisions → control."""

from .dispatch import ControlSettings
from .requests import FINAL_STATUSES, Requests
from .rules import Rule, Rules

__all__ = [
    "FINAL_STATUSES",
    "ControlSettings",
    "Requests",
    "Rule",
    "Rules",
]
