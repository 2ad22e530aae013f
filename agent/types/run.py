"""What is settled about a run, and its documents in order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Name = Literal[
    "start", "descriptor", "event", "stop", "resource", "datum", "stream_resource", "stream_datum"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What the RunStart and the config say about a run, decided once."""

    uid: str
    """Empty for documents that belong to no run."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """The RunStart; empty where it never came."""
    watched: bool = True
    """Whether the run may hold spectra: it is neither the agent's own nor skipped by its plan."""
    element: str | None = None
    edge: str | None = None
    sample_uid: str | None = None
    joined_late: bool = False
    """Whether the start did not come within the patience for it."""


@dataclass(frozen=True, slots=True)
class RunDocument:
    """A document in the order of its run: start, descriptors before their events, stop last.

    ``event_page`` and ``datum_page`` do not occur: pages are unpacked.
    """

    run: RunInfo
    name: Name
    doc: dict[str, Any]
    """Empty for a start or a stop that never came."""
    at: float
    """``time.monotonic()`` when the document came in, s; 0: there is no clock."""
