"""The journal of a session, with which it goes on after its process was killed."""

from .settings import JournalSettings
from .store import JOURNAL, Journal

__all__ = ["JOURNAL", "Journal", "JournalSettings"]
