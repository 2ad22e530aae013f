"""Estimates and decisions → the agent's own documents."""

from .agent_run import AgentRun, Emit, Provenance

__all__ = [
    "AgentRun",
    "Emit",
    "Provenance",
]
