"""Notifications of decisions: to a webhook, by email, to a command."""

from .control import Notifications
from .settings import Destination

__all__ = ["Destination", "Notifications"]
