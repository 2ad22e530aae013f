"""Estimates → decisions, sent to what may act on the experiment."""

from .dispatch import ControlSettings, Dispatcher
from .rules import Rule, Rules

__all__ = [
    "ControlSettings",
    "Dispatcher",
    "Rule",
    "Rules",
]
