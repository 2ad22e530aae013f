"""A step scan of NiO whose fields have odd names, as documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import event_model
import numpy as np

from xas_agent.adapters.files import FileSink
from xas_agent.agent.types import Document

ENERGY = 8333.0 + np.concatenate([np.arange(-100, -20, 5.0), np.arange(-20, 40, 1.0), np.arange(40, 300, 4.0)])
ODD = {"energy": "mono_bragg_e", "i0": "ic_upstream_V", "it": "ic_dn_V", "iref": "ic_3_V"}


def columns(names: dict[str, str] = ODD) -> dict[str, np.ndarray]:
    """A scan of NiO with a nickel foil, a ring current and a temperature, by data key."""
    rng = np.random.default_rng(1)
    mu = 0.3 + 0.9 * (0.5 + np.arctan((ENERGY - 8341.0) / 2.0) / np.pi)
    foil = 0.2 + 0.6 * (0.5 + np.arctan((ENERGY - 8333.0) / 2.0) / np.pi)
    i0 = 1e-6 * (1.0 - 1e-4 * (ENERGY - 8333.0)) * (1.0 + 0.05 * rng.standard_normal(ENERGY.size))
    it = i0 * np.exp(-mu)
    by_role = {"energy": ENERGY, "i0": i0, "it": it, "iref": it * np.exp(-foil), "fluorescence": i0 * mu, "mu": mu}
    named = {names[role]: column for role, column in by_role.items() if role in names}
    return {**named, "ring_mA": 400.0 - 0.01 * np.arange(ENERGY.size), "T": np.full(ENERGY.size, 300.0)}


def documents(data: dict[str, np.ndarray], units: dict[str, str] | None = None, **metadata: Any) -> list[Document]:
    run = event_model.compose_run(metadata=metadata)
    about = {"source": "test", "dtype": "number", "shape": []}
    keys: Any = {key: {**about, "units": (units or {}).get(key, "")} for key in data}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    docs: list[Any] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for i in range(ENERGY.size):
        row = {key: float(column[i]) for key, column in data.items()}
        docs.append(("event", stream.compose_event(data=row, timestamps=dict.fromkeys(row, float(i)))))
    docs.append(("stop", run.compose_stop()))
    return docs


def saved(path: Path, docs: Sequence[Document]) -> Path:
    sink = FileSink(path)
    for name, doc in docs:
        sink(name, dict(doc))
    sink.close()
    return path
