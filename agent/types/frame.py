"""One XANES spectrum with its metadata, and what is said of one that could not become so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .array import Array
from .reasons import Reason

Document = tuple[str, dict[str, Any]]
"""A Bluesky ``(name, doc)`` pair."""


@dataclass(frozen=True, slots=True)
class Received:
    """A document and ``time.monotonic()`` when it came in."""

    name: str
    doc: dict[str, Any]
    at: float


Direction = Literal["rising", "falling"]
Formula = Literal["transmission", "fluorescence", "mu", "normalised"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One complete XANES spectrum as measured: energies rise strictly, nothing is aligned yet."""

    uid: str
    """Identifies the frame: the Event's own uid, or for a step scan one made from run, stream and sweep."""
    run_uid: str
    seq_num: int
    """Counts the frames of the watched run from 1."""
    time: float
    """Unix seconds: the frame's own, taken from its last datum, never the agent's clock. NaN where a file does not
    tell; then its foil stands alone."""
    energy: Array
    """(M,) eV, rising, on the monochromator's own scale."""
    mu: Array
    """(M,) absorption, dimensionless."""
    reference: Array | None = None
    """(M,) absorption of the reference foil measured at the same time."""
    normalised: bool = False
    """Whether ``mu`` already has its pre-edge at 0 and its post-edge at 1."""
    formula: Formula = "transmission"
    """What ``mu`` was made of."""
    element: str | None = None
    edge: str | None = None
    stream: str = "primary"
    direction: Direction = "rising"
    points_missing: int = 0
    """Energy points of this sweep that were announced or numbered but never came."""
    sample_uid: str | None = None
    readings: Mapping[str, float] = field(default_factory=dict)
    """Scalars that came with the frame (voltage, temperature) or from the robot run of its sample."""
    received: float = 0.0
    """``time.monotonic()`` when the last datum of this frame arrived; latency is counted from here."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A frame, event or gap that could not be served, with the reason."""

    run_uid: str
    uid: str
    time: float
    reason: Reason
    detail: str = ""
    """What was found and what was expected, with units."""
    seq_num: int | None = None
