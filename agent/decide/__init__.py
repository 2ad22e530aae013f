"""Estimates → decisions → control."""

from .dispatch import ControlSettings, Dispatcher
from .rules import Rule, Rules

__all__ = [
    "ControlSettings",
    "Dispatcher",
    "Rule",
    "Rules",
]
