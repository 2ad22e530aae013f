"""The agent's own Bluesky run, whose documents hold the results for a watched run."""

import json
import math
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
    Estimates,
    Frame,
    Lines,
    Measured,
    Memory,
    Scan,
    SetAside,
    get_logger,
    nodes,
)
from .data_keys import array_key, class_configuration, data_key, free_key, grid_configuration
from .pages import events_of, new_uids, page_of

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


@dataclass(frozen=True, slots=True)
class FrameRows:
    """N answered frames that have equally many points, a foil or none, and readings of the same names."""

    frames: Sequence[Frame]
    quantities: Mapping[str, Array]
    """(N,) alignment quantities by name, in the units of the Descriptor."""
    estimates: Estimates
    """N"""
    aligned: NDArray[np.floating] | None
    """(N, G) aligned spectra; None is not published."""
    latency_ms: Array
    """(N,) time from the arrival of each frame's last datum to its estimate, ms."""
    lines: Lines | None = None
    """Curves that normalise the measured spectra; without them these are not published."""


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
        self._closed = False
        self._remembered: dict[str, int] | None = None
        """Numbers of Events at the last call of ``memory``."""
        self._parent_uid: str = started["parent_uid"]
        self.uid: str = started["uid"]
        if past is None:
            emit("start", started)

    def memory(self) -> Memory:
        """Return the numbers of Events, if they changed since the last call."""
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
    ) -> None:
        """Publish one frame, as :meth:`frames` does; ``aligned``, (G,), and lines without the axis of the frames."""
        columns = {name: np.array([value], float) for name, value in quantities.items()}
        rows = None if aligned is None else np.array(aligned, float)[None]
        latency = np.array([latency_ms], float)
        self.frames(FrameRows([frame], columns, Estimates.of([estimate]), rows, latency, lines))

    def frames(self, rows: FrameRows, *, paged: bool = False) -> None:
        """Publish estimates of frames in ``descriptors``, and their spectra in ``spectra`` and ``measured``.

        A classified descriptor D has the keys ``D``, ``D_p``, ``D_mean``, ``D_lo``, ``D_hi``, ``D_sd_frame`` and
        ``D_probabilities``, those of its classes, which are in the configuration; a regressed one has ``D_mean`` to
        ``D_sd_frame``. The other keys are ``ood_score``, ``e0_ev``, ``edge_step``, ``noise``, ``latency_ms``, the
        frame's uid, number and time, its sample, scan id, file and element, ``flags``, the other alignment quantities
        and the frame's readings. A reading whose name is one of these keys is published as ``reading_…``; ``.`` and
        ``/`` in names become ``_``.

        Parameters
        ----------
        rows : N frames; without an aligned spectrum or without lines, this is not published
        paged : whether as one EventPage for each stream, else as Events in the order of the frames
        """
        if self._closed:
            _log.warning("frames after the end of the run not published", frames=len(rows.frames), run=self.uid)
            return
        # All columns are formed before the first document, so that a failure leaves none half published.
        about = [
            [f.uid for f in rows.frames],
            [int(f.seq_num) for f in rows.frames],
            *self._name_columns(rows.frames),
        ]
        streams = [self._descriptor_columns(rows, about)]
        if self._spectra and rows.aligned is not None:
            streams.append(self._spectrum_columns(rows, np.asarray(rows.aligned, dtype=np.float64), about))
        if rows.lines is not None:
            streams.append(self._measured_columns(rows, rows.lines, about))
        times = [frame.time for frame in rows.frames]
        pages = [self._page(layout, columns, times) for layout, columns in streams]
        if paged:
            for page in pages:
                self._emit("event_page", page)
            return
        for events in zip(*map(events_of, pages), strict=True):
            for event in events:
                self._emit("event", event)

    def _page(self, layout: tuple[Any, ...], columns: Sequence[Any], times: Sequence[float]) -> dict[str, Any]:
        descriptor, names = self._streams[layout]
        first = self._counters[layout[0]]
        page = page_of(descriptor, dict(zip(names, columns, strict=True)), first, times)
        self._latest = max([self._latest, *times])
        self._counters[layout[0]] = first + len(times)
        return page

    def _descriptor_columns(self, rows: FrameRows, about: list[Any]) -> tuple[tuple[Any, ...], list[Any]]:
        """Return the layout and the columns of ``descriptors``, in the order of :meth:`_frame_keys`.

        ``about`` has the columns that all streams share: uid and number of the frame, and ``_NAME_KEYS``.
        """
        frames, estimates, quantities = rows.frames, rows.estimates, rows.quantities
        readings, classes = [*frames[0].readings], estimates.classes
        kinds = tuple((d, len(classes[d].labels) if d in classes else -1) for d in estimates.names)
        layout = ("descriptors", kinds, tuple(quantities), tuple(readings))
        if layout not in self._streams:
            descriptors, time = estimates[0].descriptors, frames[0].time
            units = {name: frames[0].reading_units.get(name) for name in readings}
            keys, object_keys = self._frame_keys(descriptors, quantities, units)
            hints = {"xas_agent": {"fields": [f"{d}_mean" for d in descriptors if d not in self._provenance.hidden]}}
            configuration = class_configuration(descriptors, time)
            self._describe(layout, keys, time, object_keys=object_keys, hints=hints, configuration=configuration)
        columns: list[Any] = []
        for k, name in enumerate(estimates.names):
            if name in classes:
                columns += classes[name].value, classes[name].p
            columns += (part[:, k] for part in estimates.parts)
            if name in classes and classes[name].labels:
                columns.append(classes[name].probabilities)
        columns.append(estimates.ood_score)
        columns += [quantities.get(name, np.full(len(frames), math.nan)) for name in _REQUIRED]
        columns.append(rows.latency_ms)
        uids, numbers, *names = about
        columns += uids, numbers, np.array([f.time for f in frames], float), *names
        columns.append([", ".join(flags) for flags in estimates.flags or [()] * len(frames)])
        columns += [values for name, values in quantities.items() if name not in _REQUIRED]
        columns += [np.array([f.readings[name] for f in frames], float) for name in readings]
        return layout, columns

    def _spectrum_columns(
        self, rows: FrameRows, spectra: Array, about: list[Any]
    ) -> tuple[tuple[Any, ...], list[Any]]:
        layout, frames = ("spectra", spectra.shape[1:]), rows.frames
        if layout not in self._streams:
            keys = {
                "spectrum": array_key("alignment", self._units["spectrum"], spectra[0], "energy"),
                **self._keys({"frame_uid": "string", "frame_seq_num": "integer", **_NAME_KEYS}, "frames"),
            }
            grid, time = self._provenance.grid, frames[0].time
            configuration = {} if grid is None else {"xas_agent": grid_configuration(grid, time)}
            self._describe(layout, keys, time, configuration=configuration)
        return layout, [spectra, *about]

    def _measured_columns(self, rows: FrameRows, lines: Lines, about: list[Any]) -> tuple[tuple[Any, ...], list[Any]]:
        frames, count = rows.frames, len(rows.frames)
        points, foil = len(frames[0].energy), frames[0].reference is not None
        energy, mu, reference = lines.measured or _measured(frames)
        energy = np.broadcast_to(np.asarray(energy, np.float64), mu.shape)
        arrays = {"energy": energy, "mu": np.asarray(mu, np.float64)}
        numbers = {"e0_measured_ev": lines.e0_ev}
        if foil:
            arrays["reference"] = np.asarray(reference, np.float64)
            numbers["reference_e0_ev"] = lines.foil_e0_ev
        curves = {"pre_edge": lines.pre_edge, "post_edge": lines.post_edge}
        arrays |= {"line_energy": energy[:, nodes(points)]}
        arrays |= {name: np.array(curve, np.float64).reshape(count, -1) for name, curve in curves.items()}
        numbers["edge_step"] = rows.quantities.get("edge_step", math.nan)
        layout = ("measured", points, not foil)
        if layout not in self._streams:
            keys: dict[str, Any] = {}
            for name, array in arrays.items():
                source = "frames" if name in ("energy", "mu", "reference") else "alignment"
                dim = "energy" if array.shape[1] == points else "line_energy"
                keys[name] = array_key(source, _MEASURED_ARRAYS[name], array[0], dim)
            keys |= {name: data_key("alignment", _MEASURED_NUMBERS[name]) for name in numbers}
            keys |= self._keys({"frame_uid": "string", "frame_seq_num": "integer", **_NAME_KEYS}, "frames")
            self._describe(layout, keys, frames[0].time)
        columns: list[Any] = [*arrays.values()]
        columns += [np.broadcast_to(np.asarray(number, np.float64), count) for number in numbers.values()]
        return layout, [*columns, *about]

    def _name_columns(self, frames: Sequence[Frame]) -> list[list[Any]]:
        """Return the columns of ``_NAME_KEYS``."""
        return [[*column] for column in zip(*(self._names(f.scan, f.element) for f in frames), strict=True)]

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

    def _frame_keys(
        self,
        descriptors: Mapping[str, DescriptorEstimate],
        quantities: Iterable[str],
        readings: Mapping[str, str | None],
    ) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
        """Return the data keys in the order of the columns, and the object to which each belongs."""
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

    def _event(self, layout: tuple[Any, ...], values: Sequence[Any], time: float) -> None:
        if self._closed:
            _log.warning("event after the end of the run not published", stream=layout[0], run=self.uid)
            return
        (event,) = events_of(self._page(layout, [[value] for value in values], [time]))
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


def _measured(frames: Sequence[Frame]) -> Measured:
    references = [f.reference for f in frames if f.reference is not None]
    energy, mu = np.stack([f.energy for f in frames]), np.stack([f.mu for f in frames])
    return Measured(energy, mu, np.stack(references) if references else None)


def _new_uid() -> str:
    return new_uids(1)[0]


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
