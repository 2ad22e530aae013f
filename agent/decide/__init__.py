"""Estimates → decisions, sent to what may act on the experiment."""

from .dispatch import Controlling, ControlSettings
from .rules import Rule, Rules

__all__ = [
    "ControlSettings",
    "Controlling",
    "Rule",
    "Rules",
]
