"""An action that a rule requests, with its evidence."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .protocols import Action, RobotOrder, Status
from .scan import Scan

_FINAL = ("acknowledged", "rejected", "expired")
ADVICE = "advice only"
"""End of the reason of a proposed decision that will not be sent."""


def is_final(status: str, reason: str) -> bool:
    """Return whether a status, with its reason, is the final one of a decision.

    >>> is_final("proposed", "advice only"), is_final("proposed", "waits 600 s for approval")
    (True, False)
    """
    return status in _FINAL or (status == "proposed" and reason.endswith(ADVICE))


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision; each change of status creates a copy with the same ``id``."""

    id: str
    rule: str
    action: Action | RobotOrder
    reason: str
    """Evidence in words, with units: ``OS 3.52 (3.47…3.56) above 3.50 for 2 frames``."""
    run_uid: str
    time: float
    """Time of the frame that triggered the decision, Unix seconds."""
    confidence: float
    """Probability, 0…1, that the condition holds for the true value, from the interval of the evidence."""
    evidence: tuple[tuple[str, float], ...]
    """Pairs (frame uid, value) that the decision rests on."""
    status: Status = "proposed"
    status_reason: str = ""
    scan: Scan = field(default_factory=Scan)
    args: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    """Person who set the status; empty if nobody did."""
    status_time: float = field(default=0.0, compare=False)
    """Time of the last change of status, Unix seconds; 0 before the proposal."""

    def to(self, status: Status, reason: str = "", by: str = "") -> "Decision":
        """Return the decision with a new status, as of now."""
        return replace(self, status=status, status_reason=reason, by=by, status_time=time.time())

    @property
    def final(self) -> bool:
        """Whether the status is final: the request was answered or given up, or will never be made."""
        return is_final(self.status, self.status_reason)

    def as_message(self) -> dict[str, Any]:
        """Return the decision as JSON values by key, for persons and programs."""
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
