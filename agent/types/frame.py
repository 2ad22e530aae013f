"""One XANES spectrum with its metadata, and a note on data that cannot become a frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from .array import Array
from .reasons import Reason
from .scan import Scan

Document = tuple[str, dict[str, Any]]
"""A Bluesky ``(name, doc)`` pair."""
DOCUMENT_NAMES = frozenset(
    {
        *("start", "descriptor", "event", "event_page", "stop", "resource", "datum", "datum_page"),
        *("stream_resource", "stream_datum", "bulk_events", "bulk_datum"),
    }
)
"""Names of all documents, as in ``event_model``, whose import takes a second or more."""


REPLAYED_S = 1e9
"""Time added to the age of a document of a past run, or of one that another agent has acknowledged, s. No rule
decides on it then, whatever ``control.max_age_s`` is. The remainder, ``age % REPLAYED_S``, is the true age."""


class Received(NamedTuple):
    """A document with the ``time.monotonic()`` of its arrival; a tuple, because that is fastest to create."""

    name: str
    doc: dict[str, Any]
    at: float
    position: Mapping[str, Any] | None = None
    """Change in the position of its source; None if the source cannot continue from there after a restart."""

    @property
    def rows(self) -> int:
        """Number of Events in a page; 1 for any other document."""
        if self.name != "event_page":
            return 1
        numbers: Any = self.doc.get("seq_num") if isinstance(self.doc, dict) else None
        return max(1, len(numbers)) if isinstance(numbers, list | tuple | np.ndarray) else 1


Direction = Literal["rising", "falling"]
Formula = Literal["transmission", "fluorescence", "mu", "normalised"]


# Not frozen, since a frozen dataclass takes several times as long to create.
@dataclass(slots=True)
class Frame:
    """One complete XANES spectrum as measured, before alignment; its energies rise strictly."""

    uid: str
    """Uid of the Event; for a step scan, a uid derived from run, stream and sweep."""
    run_uid: str
    seq_num: int
    """Number of the frame in the watched run, from 1."""
    time: float
    """Time of the frame's last datum, Unix seconds, never the agent's clock. NaN if a file has no time; only its own
    foil then calibrates the frame."""
    energy: Array
    """(M,) energies, eV, rising, on the monochromator's scale."""
    mu: Array
    """(M,) absorption, dimensionless."""
    reference: Array | None = None
    """(M,) absorption of the reference foil measured at the same time."""
    normalised: bool = False
    """Whether ``mu`` already has its pre-edge at 0 and its post-edge at 1."""
    formula: Formula = "transmission"
    """Formula with which ``mu`` was computed."""
    element: str | None = None
    edge: str | None = None
    stream: str = "primary"
    direction: Direction = "rising"
    points_missing: int = 0
    """Number of energy points of this sweep that were announced or numbered but did not arrive."""
    scan: Scan = field(default_factory=Scan)
    readings: Mapping[str, float] = field(default_factory=dict)
    """Scalars recorded with the frame (voltage, temperature) or in the robot run of its sample."""
    reading_units: Mapping[str, str] = field(default_factory=dict)
    """Units of the readings that have one, by name."""
    received: float = 0.0
    """``time.monotonic()`` at the arrival of the frame's last datum; the latency is counted from it."""

    @property
    def series(self) -> str:
        """Key of the frame's series: its sample, or its run if the sample is not named."""
        return self.scan.series or self.run_uid


@dataclass(frozen=True, slots=True)
class SetAside:
    """A frame, Event or gap that cannot be served, with the reason."""

    run_uid: str
    uid: str
    time: float
    reason: Reason
    detail: str = ""
    """Found and expected values, with units."""
    seq_num: int | None = None
    file: str = ""
    """Name of the file, if it differs from that of the run."""
    count: int = 1
    """Number of frames that the note covers or, without a frame number, of documents or Events."""
