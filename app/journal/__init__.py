"""The journal of a session, from which it continues after its process was killed."""

from .settings import JournalSettings
from .store import JOURNAL, Journal

__all__ = ["JOURNAL", "Journal", "JournalSettings"]
