"""Estimates and decisions → the agent's own documents."""

from .agent_run import AgentRun, Emit, PastRun, Provenance, decision_of, keys_of
from .runs import AgentRuns

__all__ = [
    "AgentRun",
    "AgentRuns",
    "Emit",
    "PastRun",
    "Provenance",
    "decision_of",
    "keys_of",
]
