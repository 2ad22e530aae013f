"""The origin of the results, as a run of the agent states it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..types import Array, Scan

_INHERITED = ("sample_uid", "data_session")
"""Text entries that are copied from the watched RunStart."""
_ORDER = "blop_acquisition_order"
"""Key of a RunStart with the ids of an optimiser's suggestions, in the order of their frames; it is copied too."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model, config and versions behind the estimates, as the RunStart records them."""

    model_name: str
    model_sha256: str
    config_sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions by package; the names contain no ``.`` or ``/``, which the schema forbids in keys."""
    element: str | None = None
    edge: str | None = None
    hidden: frozenset[str] = frozenset()
    """Descriptors that are published without a hint for display."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the model's descriptors (OS: e) and of the alignment quantities; frames carry those of their
    readings."""
    grid: Array | None = None
    """(G,) energies relative to the element's tabulated edge, eV; configuration of the ``spectra`` stream."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of the agent that an earlier process began and left open."""

    start: Mapping[str, Any]
    descriptors: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    """Number of Events, by stream."""
    latest: float
    """Time of the newest Event, or of the start if there is none, Unix s."""


def metadata_of(start: Mapping[str, Any], provenance: Provenance, scan: Scan) -> dict[str, Any]:
    """Return the metadata of the agent's RunStart for the RunStart of the watched run."""
    metadata: dict[str, Any] = {
        "plan_name": "xas_agent",
        "plan_type": "generator",
        "scan_id": scan.scan_id,
        "series": scan.series or start["uid"],
        "xas_agent": True,
        "parent_uid": start["uid"],
        "model": {"name": provenance.model_name, "sha256": provenance.model_sha256},
        "config_sha256": provenance.config_sha256,
        "versions": dict(provenance.versions),
        "hints": {"dimensions": [[["time"], "descriptors"]]},
    }
    for name in _INHERITED:
        if isinstance(start.get(name), str):
            metadata[name] = str(start[name])
    order = start.get(_ORDER)
    if isinstance(order, list | tuple) and all(isinstance(id, str | int) for id in order):
        metadata[_ORDER] = [*order]
    for name, value in (("element", provenance.element), ("edge", provenance.edge), ("sample_name", scan.sample)):
        if value:
            metadata[name] = value
    return metadata
