"""The agent's own Bluesky run, whose documents hold the results for a watched run."""

import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import (
    ESTIMATE_PARTS,
    Array,
    Decision,
    DescriptorEstimate,
    Estimate,
    Frame,
    Lines,
    Memory,
    Scan,
    SetAside,
    get_logger,
    nodes,
)
from .data_keys import array_key, class_configuration, data_key, free_key, grid_configuration
from .pages import PageRows

_log = get_logger()

Emit = Callable[[str, dict[str, Any]], None]
"""Receives the name and content of each document."""

_REQUIRED = ("e0_ev", "edge_step", "noise")
"""Alignment quantities of every ``descriptors`` Event; NaN if the alignment did not give one."""
ALIGNMENT_UNITS = {
    "e0_ev": "eV",
    "edge_step": "dimensionless",
    "noise": "dimensionless",
    "energy_shift_ev": "eV",
    "foil_shift_ev": "eV",
    "energy_sd_ev": "eV",
    "energy_sd_frame_ev": "eV",
    "extrapolated_ev": "eV",
    "pre_edge_slope": "1/eV",
    "post_edge_order": "dimensionless",
    "glitches": "dimensionless",
    "self_absorption_damping": "dimensionless",
}
"""Units of the quantities of an alignment."""
_UNITS = {
    **ALIGNMENT_UNITS,
    "ood_score": "dimensionless",
    "latency_ms": "ms",
    "frame_time": "s",
    "status_time": "s",
    "spectrum": "dimensionless",
    "confidence": "dimensionless",
}
_INHERITED = ("sample_uid", "data_session")
"""Texts that are copied from the watched RunStart."""
_ORDER = "blop_acquisition_order"
"""Key of a RunStart with the ids of what an optimiser suggested, in the order of their frames; it is copied too."""

_NAME_KEYS = {"sample": "string", "scan_id": "integer", "file": "string", "element": "string"}
"""What every Event says of the scan to which it belongs; 0 and empty if unknown."""
_DECISION_KEYS = {
    "id": "string",
    "rule": "string",
    "action": "string",
    "args": "string",
    "reason": "string",
    "evidence": "string",
    "confidence": "number",
    "status": "string",
    "status_reason": "string",
    "status_time": "number",
    "by": "string",
    **_NAME_KEYS,
}
_MEASURED_NUMBERS = {"e0_measured_ev": "eV", "reference_e0_ev": "eV", "edge_step": "dimensionless"}
_MEASURED_ARRAYS = {
    "energy": "eV",
    "mu": "dimensionless",
    "reference": "dimensionless",
    "line_energy": "eV",
    "pre_edge": "dimensionless",
    "post_edge": "dimensionless",
}
"""Arrays of a ``measured`` Event with their units; ``reference`` only with a foil."""
_QUALITY_KEYS = {
    "uid": "string",
    "reason": "string",
    "detail": "string",
    "frame_seq_num": "integer",
    "count": "integer",
    **_NAME_KEYS,
}


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


class AgentRun:
    """One run of the agent for the run that it watches.

    It emits the RunStart at construction, a Descriptor when a stream begins or its keys change, and the RunStop at
    ``close``. ``seq_num`` counts the Events of each stream over all its Descriptors; in ``descriptors``, ``spectra``
    and ``measured`` it therefore counts frames. Times are those of the frames. Documents hold plain Python values,
    except the float64 arrays of spectra and of class probabilities. Not thread-safe.

    Parameters
    ----------
    start : RunStart of the watched run; ``uid`` and ``time`` are required
    provenance : model, config and versions
    emit : receives each document, ``(name, doc)``
    spectra : whether to publish the aligned spectra
    scan : sample, number and file of the watched run
    past : run that goes on, with its uids and numbers; its start and Descriptors are not emitted again
    """

    def __init__(
        self,
        start: Mapping[str, Any],
        provenance: Provenance,
        emit: Emit,
        *,
        spectra: bool = True,
        scan: Scan | None = None,
        past: PastRun | None = None,
    ) -> None:
        self._provenance, self._scan = provenance, scan or Scan()
        self._units = {**_UNITS, **provenance.units}
        self._emit = emit
        self._spectra = spectra
        self._known = past.descriptors if past is not None else ()
        self._counters = {name: count + 1 for name, count in past.counts.items()} if past is not None else {}
        if past is not None:
            started, self._latest = dict(past.start), past.latest
        else:
            self._latest = float(start["time"])
            started = {"uid": _new_uid(), "time": self._latest, **_metadata(start, provenance, self._scan)}
        # The documents are composed here and validated by the tests: event-model takes a second to import, and its
        # validation would take longer than the estimate.
        self._streams: dict[tuple[Any, ...], tuple[str, tuple[str, ...]]] = {}
        """Uid of the Descriptor and names of the values of each layout."""
        self._pages: dict[str, tuple[tuple[Any, ...], PageRows]] = {}
        """Layout and rows of the page of each stream that is not emitted yet."""
        self._closed = False
        self._remembered: dict[str, int] | None = None
        """Numbers of Events at the last call of ``memory``."""
        self._parent_uid: str = started["parent_uid"]
        self.uid: str = started["uid"]
        if past is None:
            emit("start", started)

    def memory(self) -> Memory:
        """Return the numbers of Events, if they changed since the last call; pages are emitted before."""
        self.flush()
        counts = {name: following - 1 for name, following in self._counters.items()}
        if counts == self._remembered:
            return {}
        self._remembered = counts
        return {(self._parent_uid, "run", self.uid): [counts, self._latest]}

    def frame(
        self,
        frame: Frame,
        quantities: Mapping[str, float],
        estimate: Estimate,
        aligned: NDArray[np.floating] | None,
        latency_ms: float,
        lines: Lines | None = None,
        *,
        paged: bool = False,
    ) -> None:
        """Publish a frame's estimate in ``descriptors`` and its spectrum in ``spectra`` and ``measured``.

        A classified descriptor D has the keys ``D``, ``D_p``, ``D_mean``, ``D_lo``, ``D_hi``, ``D_sd_frame`` and
        ``D_probabilities``, those of its classes, which are in the configuration; a regressed one has ``D_mean`` to
        ``D_sd_frame``. The other keys are ``ood_score``, ``e0_ev``, ``edge_step``, ``noise``, ``latency_ms``, the
        frame's uid, number and time, its sample, scan id, file and element, ``flags``, the other alignment quantities
        and the frame's readings. A reading whose name is one of these keys is published as ``reading_…``; ``.`` and
        ``/`` in names become ``_``.

        Parameters
        ----------
        quantities : alignment quantities by name, in the units of the Descriptor
        aligned : (G,) aligned spectrum; None is not published
        latency_ms : time from the arrival of the frame's last datum to its estimate, ms
        lines : curves that normalise the measured spectrum; without them it is not published
        paged : whether the Events wait for those of the next frames, with which :meth:`flush` emits them as pages
        """
        descriptors, readings = estimate.descriptors, frame.readings
        layout = (
            "descriptors",
            tuple((name, d.value is None, len(d.probabilities)) for name, d in descriptors.items()),
            tuple(quantities),
            tuple(readings),
        )
        if layout not in self._streams:
            units = {name: frame.reading_units.get(name) for name in readings}
            keys, object_keys = self._frame_keys(descriptors, quantities, units)
            hints = {"xas_agent": {"fields": [f"{d}_mean" for d in descriptors if d not in self._provenance.hidden]}}
            configuration = class_configuration(descriptors, frame.time)
            self._describe(
                layout, keys, frame.time, object_keys=object_keys, hints=hints, configuration=configuration
            )
        values: list[Any] = []
        for d in descriptors.values():
            if d.value is not None:
                values += float(d.value), math.nan if d.p is None else float(d.p)
            values += float(d.mean), float(d.lo), float(d.hi), float(d.sd_frame)  # ESTIMATE_PARTS
            if d.probabilities:
                values.append(np.array([*d.probabilities.values()], dtype=np.float64))
        values.append(float(estimate.ood_score))
        values += [float(quantities.get(name, math.nan)) for name in _REQUIRED]
        values += float(latency_ms), frame.uid, int(frame.seq_num), float(frame.time)
        values += self._names(frame.scan, frame.element)
        values.append(", ".join(estimate.flags))
        values += [float(value) for name, value in quantities.items() if name not in _REQUIRED]
        values += [float(value) for value in readings.values()]
        self._event(layout, values, frame.time, paged)
        if self._spectra and aligned is not None:
            self._spectrum(frame, np.array(aligned, dtype=np.float64), paged)
        if lines is not None:
            self._measured(frame, lines, quantities.get("edge_step", math.nan), paged)

    def decision(self, decision: Decision) -> None:
        """Publish a decision, or a change of its status; ``args`` and ``evidence`` are JSON strings."""
        layout = ("decisions",)
        if layout not in self._streams:
            self._describe(layout, self._keys(_DECISION_KEYS, "rules"), decision.time)
        values = (
            decision.id,
            decision.rule,
            decision.action,
            json.dumps(dict(decision.args), default=str),
            decision.reason,
            json.dumps(decision.evidence),
            float(decision.confidence),
            decision.status,
            decision.status_reason,
            float(decision.status_time),
            decision.by,
            *self._names(decision.scan),
        )
        self._event(layout, values, decision.time)

    def set_aside(self, note: SetAside) -> None:
        """Publish a note on data that could not be served; ``frame_seq_num`` is 0 if the note has no number.

        ``count`` is the number of frames, else of documents or Events, for which the note stands.
        """
        layout = ("quality",)
        if layout not in self._streams:
            self._describe(layout, self._keys(_QUALITY_KEYS, "frames"), note.time)
        names = self._names(replace(self._scan, file=note.file or self._scan.file))
        values = (note.uid, str(note.reason), note.detail, int(note.seq_num or 0), note.count, *names)
        self._event(layout, values, note.time)

    def close(
        self, exit_status: str = "success", reason: str = "", time: float | None = None, *, watched: bool = True
    ) -> None:
        """Emit the RunStop, once; later documents are dropped and logged.

        Parameters
        ----------
        exit_status : exit status of the watched run; ``fail`` if it has none
        reason : reason in the watched RunStop, or why the watched run is given up
        time : time of the watched RunStop, Unix s; by default that of the newest Event
        watched : whether the watched run, and not the agent, ended with this status
        """
        if self._closed:
            return
        self.flush()
        self._closed = True
        if exit_status not in ("success", "abort", "fail"):
            exit_status, reason = "fail", f"unknown exit status {exit_status!r}. {reason}".strip()
        if exit_status != "success" and watched:
            reason = f"the watched run ended with {exit_status}" + (f": {reason}" if reason else "")
        stop = {
            "uid": _new_uid(),
            "time": max(self._latest, time or 0.0),
            "run_start": self.uid,
            "exit_status": exit_status,
            "reason": reason,
            "num_events": {name: following - 1 for name, following in self._counters.items()},
        }
        self._emit("stop", stop)

    def _spectrum(self, frame: Frame, spectrum: Array, paged: bool) -> None:
        layout = ("spectra", spectrum.shape)
        if layout not in self._streams:
            keys = {
                "spectrum": array_key("alignment", self._units["spectrum"], spectrum, "energy"),
                **self._keys({"frame_uid": "string", "frame_seq_num": "integer", **_NAME_KEYS}, "frames"),
            }
            grid = self._provenance.grid
            configuration = {} if grid is None else {"xas_agent": grid_configuration(grid, frame.time)}
            self._describe(layout, keys, frame.time, configuration=configuration)
        names = self._names(frame.scan, frame.element)
        self._event(layout, (spectrum, frame.uid, int(frame.seq_num), *names), frame.time, paged)

    def _measured(self, frame: Frame, lines: Lines, edge_step: float, paged: bool) -> None:
        picked = nodes(len(frame.energy))
        arrays = {"energy": frame.energy, "mu": frame.mu}
        numbers = {"e0_measured_ev": lines.e0_ev}
        if frame.reference is not None:
            arrays["reference"], numbers["reference_e0_ev"] = frame.reference, lines.foil_e0_ev
        arrays |= {"line_energy": frame.energy[picked], "pre_edge": lines.pre_edge, "post_edge": lines.post_edge}
        numbers["edge_step"] = edge_step
        layout = ("measured", len(frame.energy), frame.reference is None)
        if layout not in self._streams:
            keys: dict[str, Any] = {}
            for name, array in arrays.items():
                source = "frames" if name in ("energy", "mu", "reference") else "alignment"
                dim = "energy" if len(array) == len(frame.energy) else "line_energy"
                keys[name] = array_key(source, _MEASURED_ARRAYS[name], array, dim)
            keys |= {name: data_key("alignment", _MEASURED_NUMBERS[name]) for name in numbers}
            keys |= self._keys({"frame_uid": "string", "frame_seq_num": "integer", **_NAME_KEYS}, "frames")
            self._describe(layout, keys, frame.time)
        values = [np.asarray(array, dtype=np.float64) for array in arrays.values()]
        values += [float(number) for number in numbers.values()]
        names = self._names(frame.scan, frame.element)
        self._event(layout, (*values, frame.uid, int(frame.seq_num), *names), frame.time, paged)

    def _frame_keys(
        self,
        descriptors: Mapping[str, DescriptorEstimate],
        quantities: Iterable[str],
        readings: Mapping[str, str | None],
    ) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
        """Return the data keys in the order of the values in ``frame``, and the object to which each belongs."""
        keys: dict[str, dict[str, Any]] = {}
        for name, descriptor in descriptors.items():
            unit = self._units.get(name)
            source = f"model {self._provenance.model_name}"
            if descriptor.value is not None:
                keys[name] = data_key(source, unit)
                keys[f"{name}_p"] = data_key(source, "dimensionless")
            keys.update({f"{name}_{end}": data_key(source, unit) for end in ESTIMATE_PARTS})
            if descriptor.probabilities:
                probabilities = np.empty(len(descriptor.probabilities))
                keys[f"{name}_probabilities"] = array_key(source, "dimensionless", probabilities, f"{name}_classes")
        keys |= self._keys({"ood_score": "number"}, "model")
        keys |= self._keys(dict.fromkeys(_REQUIRED, "number"), "alignment")
        keys |= self._keys({"latency_ms": "number"}, "agent")
        keys |= self._keys({"frame_uid": "string", "frame_seq_num": "integer", "frame_time": "number"}, "frames")
        keys |= self._keys(_NAME_KEYS, "frames")
        keys |= self._keys({"flags": "string"}, "model")
        for name in quantities:
            if name not in _REQUIRED:
                keys[free_key(name, "alignment_", keys)] = data_key("alignment", self._units.get(name))
        result_keys = list(keys)
        for name, unit in readings.items():
            keys[free_key(name, "reading_", keys)] = data_key(f"reading {name}", unit or self._units.get(name))
        return keys, {"xas_agent": result_keys, "readings": list(keys)[len(result_keys) :]}

    def _names(self, scan: Scan, element: str | None = None) -> tuple[str, int, str, str]:
        """Return the values of ``_NAME_KEYS``."""
        return scan.sample, scan.scan_id, scan.file, element or self._provenance.element or ""

    def _keys(self, dtypes: Mapping[str, str], source: str) -> dict[str, dict[str, Any]]:
        return {name: data_key(source, self._units.get(name), dtype) for name, dtype in dtypes.items()}

    def _describe(self, layout: tuple[Any, ...], keys: dict[str, Any], time: float, **more: Any) -> None:
        if self._closed:
            return
        known = next((d for d in self._known if d["name"] == layout[0] and d["data_keys"] == keys), None)
        self._counters.setdefault(layout[0], 1)
        if known is not None:
            self._streams[layout] = known["uid"], tuple(keys)
            return
        descriptor = {
            "configuration": {},
            "data_keys": keys,
            "name": layout[0],
            "object_keys": {"xas_agent": list(keys)},
            "run_start": self.uid,
            "time": time,
            "uid": _new_uid(),
            "object_classes": {},
            "hints": {},
            **more,
        }
        self._streams[layout] = descriptor["uid"], tuple(keys)
        self._emit("descriptor", descriptor)

    def flush(self) -> None:
        """Emit the pages of the frames so far."""
        pages, self._pages = self._pages, {}
        for _, rows in pages.values():
            self._emit("event_page", rows.page())

    def _event(self, layout: tuple[Any, ...], values: Sequence[Any], time: float, paged: bool = False) -> None:
        if self._closed:
            _log.warning("event after the end of the run not published", stream=layout[0], run=self.uid)
            return
        descriptor, names = self._streams[layout]
        self._latest = max(self._latest, time)
        number, uid = self._counters[layout[0]], _new_uid()
        self._counters[layout[0]] = number + 1
        if not paged or layout != self._pages.get(layout[0], (layout,))[0]:
            self.flush()
        if paged:
            _, rows = self._pages.setdefault(layout[0], (layout, PageRows(descriptor, names)))
            rows.add(uid, number, time, values)
            return
        event = {
            "uid": uid,
            "time": time,
            "data": dict(zip(names, values, strict=True)),
            "timestamps": dict.fromkeys(names, time),
            "seq_num": number,
            "filled": {},
            "descriptor": descriptor,
        }
        self._emit("event", event)


def decision_of(event: Mapping[str, Any], run_uid: str) -> Decision:
    """Return the decision of an Event of ``decisions``."""
    data = event["data"]
    return Decision(
        id=data["id"],
        rule=data["rule"],
        action=data["action"],
        reason=data["reason"],
        run_uid=run_uid,
        time=event["time"],
        confidence=data["confidence"],
        evidence=tuple((uid, value) for uid, value in json.loads(data["evidence"])),
        status=data["status"],
        status_reason=data["status_reason"],
        scan=Scan(sample=data["sample"], scan_id=data["scan_id"], file=data["file"]),
        args=json.loads(data["args"]),
        by=data.get("by", ""),  # an earlier version did not publish it
        status_time=data.get("status_time", event["time"]),
    )


def _new_uid() -> str:
    return str(uuid.uuid4())


def _metadata(start: Mapping[str, Any], provenance: Provenance, scan: Scan) -> dict[str, Any]:
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
