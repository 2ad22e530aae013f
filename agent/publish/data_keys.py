"""Data keys of the agent's Descriptors."""

import re
from collections.abc import Mapping
from typing import Any

from ..types import Array, DescriptorEstimate


def data_key(source: str, unit: str | None, dtype: str = "number") -> dict[str, Any]:
    key = {"source": source, "dtype": dtype, "shape": [], "units": unit}
    if dtype != "string":
        key["dtype_numpy"] = "<f8" if dtype == "number" else "<i8"
    return key


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
    """Return the classes of the classified descriptors as the configuration of their stream."""
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
    """Return an unused data key for ``name``; the schema forbids ``.``, ``/`` and the empty string."""
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
