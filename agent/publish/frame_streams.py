"""The agent's streams with one row per frame: estimates, aligned spectra, and spectra as measured."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import (
    ESTIMATE_PARTS,
    Array,
    DescriptorEstimate,
    Estimates,
    Frame,
    Lines,
    Measured,
    nodes,
)
from .data_keys import (
    NAME_KEYS,
    array_key,
    class_configuration,
    data_key,
    data_keys,
    free_key,
    grid_configuration,
    scan_names,
)
from .provenance import Provenance

Layout = tuple[Any, ...]
"""Name of a stream with everything that determines its data keys."""

_REQUIRED = ("e0_ev", "edge_step", "noise")
"""Alignment quantities in every ``descriptors`` Event; NaN if the alignment gave no value."""
_MEASURED_NUMBERS = {"e0_measured_ev": "eV", "reference_e0_ev": "eV", "edge_step": "dimensionless"}
_MEASURED_ARRAYS = {
    "energy": "eV",
    "mu": "dimensionless",
    "reference": "dimensionless",
    "line_energy": "eV",
    "pre_edge": "dimensionless",
    "post_edge": "dimensionless",
}
"""Arrays of a ``measured`` Event with their units; ``reference`` is present only with a foil."""


@dataclass(frozen=True, slots=True)
class FrameRows:
    """N answered frames with equally many points, readings of the same names, and all with or without a foil."""

    frames: Sequence[Frame]
    quantities: Mapping[str, Array]
    """(N,) alignment quantities by name, in the units of the Descriptor."""
    estimates: Estimates
    """Estimates of the N frames."""
    aligned: NDArray[np.floating] | None
    """(N, G) aligned spectra; None: they are not published."""
    latency_ms: Array
    """(N,) times from the arrival of each frame's last datum to its estimate, ms."""
    lines: Lines | None = None
    """Curves that normalise the measured spectra; None: the measured spectra are not published."""


class Table(NamedTuple):
    """Rows of one stream."""

    layout: Layout
    columns: list[Any]
    """Columns in the order of the data keys, with one value per row."""
    describe: Callable[[], dict[str, Any]]
    """Returns the data keys and the other entries of a Descriptor with this layout."""


class FrameStreams:
    """Forms the rows of frames for each stream.

    Parameters
    ----------
    provenance : model behind the estimates
    units : units of all quantities, by name
    """

    def __init__(self, provenance: Provenance, units: Mapping[str, str]) -> None:
        self._provenance, self._units = provenance, units

    def tables(self, rows: FrameRows, *, spectra: bool) -> list[Table]:
        """Return the rows of ``descriptors``, of ``spectra`` if requested, and of ``measured`` if there are lines."""
        about = [[f.uid for f in rows.frames], [int(f.seq_num) for f in rows.frames], *self._names(rows.frames)]
        tables = [self._descriptors(rows, about)]
        if spectra and rows.aligned is not None:
            tables.append(self._spectra(rows, np.asarray(rows.aligned, dtype=np.float64), about))
        if rows.lines is not None:
            tables.append(self._measured(rows, rows.lines, about))
        return tables

    def _descriptors(self, rows: FrameRows, about: list[Any]) -> Table:
        """Return the rows of ``descriptors``, with columns in the order of :meth:`_descriptor_keys`.

        ``about`` holds the columns that all streams share: uid and number of the frame, and ``NAME_KEYS``.
        """
        frames, estimates, quantities = rows.frames, rows.estimates, rows.quantities
        readings, classes = [*frames[0].readings], estimates.classes
        kinds = tuple((d, len(classes[d].labels) if d in classes else -1) for d in estimates.names)
        layout = ("descriptors", kinds, tuple(quantities), tuple(readings))
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
        return Table(layout, columns, lambda: self._describe_estimates(rows))

    def _describe_estimates(self, rows: FrameRows) -> dict[str, Any]:
        first, descriptors = rows.frames[0], rows.estimates[0].descriptors
        units = {name: first.reading_units.get(name) for name in first.readings}
        keys, object_keys = self._descriptor_keys(descriptors, rows.quantities, units)
        shown = [f"{name}_mean" for name in descriptors if name not in self._provenance.hidden]
        return {
            "data_keys": keys,
            "object_keys": object_keys,
            "hints": {"xas_agent": {"fields": shown}},
            "configuration": class_configuration(descriptors, first.time),
        }

    def _descriptor_keys(
        self,
        descriptors: Mapping[str, DescriptorEstimate],
        quantities: Iterable[str],
        readings: Mapping[str, str | None],
    ) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
        """Return the data keys in the order of the columns, and the keys of each object."""
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
        keys |= data_keys({"ood_score": "number"}, "model", self._units)
        keys |= data_keys(dict.fromkeys(_REQUIRED, "number"), "alignment", self._units)
        keys |= data_keys({"latency_ms": "number"}, "agent", self._units)
        of_frame = {"frame_uid": "string", "frame_seq_num": "integer", "frame_time": "number", **NAME_KEYS}
        keys |= data_keys(of_frame, "frames", self._units)
        keys |= data_keys({"flags": "string"}, "model", self._units)
        for name in quantities:
            if name not in _REQUIRED:
                keys[free_key(name, "alignment_", keys)] = data_key("alignment", self._units.get(name))
        result_keys = list(keys)
        for name, unit in readings.items():
            keys[free_key(name, "reading_", keys)] = data_key(f"reading {name}", unit or self._units.get(name))
        return keys, {"xas_agent": result_keys, "readings": list(keys)[len(result_keys) :]}

    def _spectra(self, rows: FrameRows, spectra: Array, about: list[Any]) -> Table:
        def describe() -> dict[str, Any]:
            keys = {
                "spectrum": array_key("alignment", self._units["spectrum"], spectra[0], "energy"),
                **self._frame_keys(),
            }
            grid = self._provenance.grid
            configuration = {} if grid is None else {"xas_agent": grid_configuration(grid, rows.frames[0].time)}
            return {"data_keys": keys, "configuration": configuration}

        return Table(("spectra", spectra.shape[1:]), [spectra, *about], describe)

    def _measured(self, rows: FrameRows, lines: Lines, about: list[Any]) -> Table:
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

        def describe() -> dict[str, Any]:
            keys: dict[str, Any] = {}
            for name, array in arrays.items():
                source = "frames" if name in ("energy", "mu", "reference") else "alignment"
                dim = "energy" if array.shape[1] == points else "line_energy"
                keys[name] = array_key(source, _MEASURED_ARRAYS[name], array[0], dim)
            keys |= {name: data_key("alignment", _MEASURED_NUMBERS[name]) for name in numbers}
            return {"data_keys": keys | self._frame_keys()}

        columns: list[Any] = [*arrays.values()]
        columns += [np.broadcast_to(np.asarray(number, np.float64), count) for number in numbers.values()]
        return Table(("measured", points, not foil), [*columns, *about], describe)

    def _frame_keys(self) -> dict[str, dict[str, Any]]:
        return data_keys({"frame_uid": "string", "frame_seq_num": "integer", **NAME_KEYS}, "frames", self._units)

    def _names(self, frames: Sequence[Frame]) -> list[list[Any]]:
        """Return the columns for the keys ``NAME_KEYS``."""
        names = (scan_names(f.scan, f.element or self._provenance.element) for f in frames)
        return [[*column] for column in zip(*names, strict=True)]


def _measured(frames: Sequence[Frame]) -> Measured:
    references = [f.reference for f in frames if f.reference is not None]
    energy, mu = np.stack([f.energy for f in frames]), np.stack([f.mu for f in frames])
    return Measured(energy, mu, np.stack(references) if references else None)
