"""The properties of a run, which are decided once, and its documents in order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .scan import Scan

DocumentName = Literal[
    "start", "descriptor", "event", "stop", "resource", "datum", "stream_resource", "stream_datum"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The properties of a run, decided once from its RunStart and the config."""

    uid: str
    """Uid of the run; empty for documents without a run."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """The RunStart; empty if it did not arrive."""
    watched: bool = True
    """Whether the run may hold spectra: it is not a run of the agent, and its plan is not skipped."""
    element: str | None = None
    edge: str | None = None
    sample_uid: str | None = None
    """Uid that joins the parameters from a robot run to the scans of its sample."""
    scan: Scan = field(default_factory=Scan)
    joined_late: bool = False
    """Whether the RunStart failed to arrive within the book's waiting time."""


@dataclass(slots=True)  # not frozen, as for Frame
class RunDocument:
    """A document in the order of its run: start first, descriptors before their Events, stop last.

    Pages are unpacked: ``event_page`` and ``datum_page`` do not occur.
    """

    run: RunInfo
    name: DocumentName
    doc: dict[str, Any]
    """Content; empty for a start or a stop that did not arrive."""
    at: float
    """``time.monotonic()`` at the arrival of the document, s; 0 without a clock."""
