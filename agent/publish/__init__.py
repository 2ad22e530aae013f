"""Estimates and decisions → the agent's own documents."""

from .agent_run import AgentRun, Emit, decision_of
from .data_keys import ALIGNMENT_UNITS
from .frame_streams import FrameRows
from .pages import PAGES_ABOVE_HZ, Pages, come_in_pages, events_of
from .provenance import PastRun, Provenance
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
