"""Sends notifications of decisions to a webhook, by email, or to a command."""

from .control import Notifications
from .settings import Destination

__all__ = ["Destination", "Notifications"]
