"""Estimates and decisions → the agent's own documents."""

from .agent_run import AgentRun, Emit, PastRun, Provenance, decision_of

__all__ = [
    "AgentRun",
    "Emit",
    "PastRun",
    "Provenance",
    "decision_of",
]
