"""Estimates and decisions → the agent's own documents."""

from .agent_run import ALIGNMENT_UNITS, AgentRun, Emit, PastRun, Provenance, decision_of, keys_of
from .runs import AgentRuns

__all__ = [
    "ALIGNMENT_UNITS",
    "AgentRun",
    "AgentRuns",
    "Emit",
    "PastRun",
    "Provenance",
    "decision_of",
    "keys_of",
]
