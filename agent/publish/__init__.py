"""Estimates and decisions → the agent's own documents."""

from .agent_run import ALIGNMENT_UNITS, AgentRun, Emit, FrameRows, PastRun, Provenance, decision_of
from .pages import PAGES_ABOVE_HZ, Pages, come_in_pages, events_of
from .read import Answered, Ended, PublishedReader
from .runs import AgentRuns

__all__ = [
    "ALIGNMENT_UNITS",
    "PAGES_ABOVE_HZ",
    "AgentRun",
    "AgentRuns",
    "Answered",
    "Emit",
    "Ended",
    "FrameRows",
    "Pages",
    "PastRun",
    "Provenance",
    "PublishedReader",
    "come_in_pages",
    "decision_of",
    "events_of",
]
