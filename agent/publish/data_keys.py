"""Data keys of the agent's Descriptors."""

import re
from collections.abc import Mapping
from typing import Any

from ..types import Array, DescriptorEstimate, Scan

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
UNITS = {
    **ALIGNMENT_UNITS,
    "ood_score": "dimensionless",
    "latency_ms": "ms",
    "frame_time": "s",
    "status_time": "s",
    "spectrum": "dimensionless",
    "confidence": "dimensionless",
}
"""Units of all quantities but a model's descriptors and the readings."""

NAME_KEYS = {"sample": "string", "scan_id": "integer", "file": "string", "element": "string"}
"""Data keys by which every Event names its scan; the values are 0 and empty if unknown."""


def data_key(source: str, unit: str | None, dtype: str = "number") -> dict[str, Any]:
    key = {"source": source, "dtype": dtype, "shape": [], "units": unit}
    if dtype != "string":
        key["dtype_numpy"] = "<f8" if dtype == "number" else "<i8"
    return key


def data_keys(dtypes: Mapping[str, str], source: str, units: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the data keys of scalars by name, with their units if known."""
    return {name: data_key(source, units.get(name), dtype) for name, dtype in dtypes.items()}


def scan_names(scan: Scan, element: str | None) -> tuple[str, int, str, str]:
    """Return the values for the keys ``NAME_KEYS``."""
    return scan.sample, scan.scan_id, scan.file, element or ""


def array_key(source: str, unit: str, array: Array, dim: str) -> dict[str, Any]:
    return {
        "source": source,
        "dtype": "array",
        "dtype_numpy": "<f8",
        "shape": list(array.shape),
        "dims": [dim],
        "units": unit,
    }


def class_configuration(descriptors: Mapping[str, DescriptorEstimate], time: float) -> dict[str, Any]:
    """Return the classes of the classified descriptors, as the configuration of their stream."""
    classes = {
        f"{name}_classes": [*map(float, d.probabilities)] for name, d in descriptors.items() if d.probabilities
    }
    if not classes:
        return {}
    keys = {
        name: {"source": "model", "dtype": "array", "dtype_numpy": "<f8", "shape": [len(values)]}
        for name, values in classes.items()
    }
    return {"xas_agent": {"data": classes, "timestamps": dict.fromkeys(classes, time), "data_keys": keys}}


def free_key(name: str, prefix: str, taken: Mapping[str, Any]) -> str:
    """Return an unused data key for ``name``; the schema forbids ``.``, ``/`` and the empty string in keys."""
    key = re.sub("[./]", "_", name) or "unnamed"
    while key in taken:
        key = prefix + key
    return key


def grid_configuration(grid: Array, time: float) -> dict[str, Any]:
    key = {
        "source": "model grid, relative to the element's tabulated edge",
        "dtype": "array",
        "dtype_numpy": "<f8",
        "shape": list(grid.shape),
        "units": "eV",
    }
    name = "energy_relative_ev"
    return {"data": {name: grid.tolist()}, "timestamps": {name: time}, "data_keys": {name: key}}
