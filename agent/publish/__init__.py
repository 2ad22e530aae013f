"""Estimates and decisions → the agent's own documents."""

from .agent_run import ALIGNMENT_UNITS, AgentRun, Emit, PastRun, Provenance, decision_of
from .read import Answered, Ended, PublishedReader
from .runs import AgentRuns

__all__ = [
    "ALIGNMENT_UNITS",
    "AgentRun",
    "AgentRuns",
    "Answered",
    "Emit",
    "Ended",
    "PastRun",
    "Provenance",
    "PublishedReader",
    "decision_of",
]
