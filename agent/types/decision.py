"""An action that a rule requests, with its evidence."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .protocols import Action, RobotOrder, Status
from .scan import Scan

_FINAL = ("acknowledged", "rejected", "expired")
ADVICE = "advice only"
"""End of the reason of a proposed decision that is not sent."""


def is_final(status: str, reason: str) -> bool:
    """Whether a status with its reason is the last one of a decision.

    >>> is_final("proposed", "advice only"), is_final("proposed", "waits 600 s for approval")
    (True, False)
    """
    return status in _FINAL or (status == "proposed" and reason.endswith(ADVICE))


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision; a change of its status is a copy with the same ``id``."""

    id: str
    rule: str
    action: Action | RobotOrder
    reason: str
    """Evidence in words, with units: ``OS 3.52 (3.47…3.56) above 3.50 for 2 frames``."""
    run_uid: str
    time: float
    """Unix seconds of the frame that triggered it."""
    confidence: float
    """Probability, 0…1, that the condition holds for the true value, from the interval of the evidence."""
    evidence: tuple[tuple[str, float], ...]
    """(frame uid, value) pairs on which the rule decided."""
    status: Status = "proposed"
    status_reason: str = ""
    scan: Scan = field(default_factory=Scan)
    args: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    """Person who brought the decision to its status; empty if nobody did."""
    status_time: float = field(default=0.0, compare=False)
    """Unix seconds at which it came to its status; 0 before it is proposed."""

    def to(self, status: Status, reason: str = "", by: str = "") -> "Decision":
        """Return the decision with a status that it has come to now."""
        return replace(self, status=status, status_reason=reason, by=by, status_time=time.time())

    @property
    def final(self) -> bool:
        """Whether the status is the last one: the request was answered or given up, or nobody will make it."""
        return is_final(self.status, self.status_reason)

    def as_message(self) -> dict[str, Any]:
        """Return what a person or a program is told of the decision, JSON values by key."""
        return {
            "id": self.id,
            "rule": self.rule,
            "reason": self.reason,
            "confidence": self.confidence,
            "time": self.time,
            "run": self.run_uid,
            "sample": self.scan.sample,
            "scan_id": self.scan.scan_id,
            "file": self.scan.file,
            "args": dict(self.args),
        }
