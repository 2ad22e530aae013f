"""What a run of the agent says of its origin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..types import Array, Scan

_INHERITED = ("sample_uid", "data_session")
"""Texts that are copied from the watched RunStart."""
_ORDER = "blop_acquisition_order"
"""Key of a RunStart with the ids of what an optimiser suggested, in the order of their frames; it is copied too."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model, config and versions behind the estimates, for the RunStart."""

    model_name: str
    model_sha256: str
    config_sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions by package; names contain no ``.`` and ``/``, which the schema forbids in keys."""
    element: str | None = None
    edge: str | None = None
    hidden: frozenset[str] = frozenset()
    """Descriptors that are published, but not hinted for display."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the model's descriptors (OS: e) and alignment quantities, by name; frames have their readings'."""
    grid: Array | None = None
    """(G,) eV relative to the element's tabulated edge; configuration of the ``spectra`` stream."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of the agent that an earlier process began and did not end."""

    start: Mapping[str, Any]
    descriptors: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    """Number of Events of each stream."""
    latest: float
    """Time of its newest Event, or of its start, Unix s."""


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
