"""An action that a rule requests, with its evidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .protocols import Action, Status
from .scan import Scan


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision; a change of its status is a copy with the same ``id``."""

    id: str
    rule: str
    action: Action
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
