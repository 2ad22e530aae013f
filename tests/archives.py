"""Archives of spectra of cobalt as they drift: Parquet tables, files, and the same as documents."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EDGE_EV = 7709.0
ENERGY = EDGE_EV + np.concatenate([np.arange(-120, -20, 5.0), np.arange(-20, 60, 0.7), np.arange(60, 460, 4.0)])
START_S = 1_750_000_000.0


def step(energy: np.ndarray, e0: float) -> np.ndarray:
    x = energy - e0
    return (0.5 + np.arctan(x / 1.5) / np.pi) * (1 + 0.5 * np.exp(-(((x - 5) / 5) ** 2)))


def intensities(k: int) -> dict[str, np.ndarray]:
    """The ``k``-th spectrum of a charge, with a foil that drifts and scatters."""
    rng = np.random.default_rng(k)
    i0 = 1e6 * (1 + 1e-3 * rng.normal(size=ENERGY.size))
    drift = 0.002 * k + 0.05 * rng.normal()
    it = i0 * np.exp(-(0.4 - 3e-4 * (ENERGY - EDGE_EV) + step(ENERGY, EDGE_EV + 10 + 0.02 * (k % 50) + drift)))
    return {"energy": ENERGY, "i0": i0, "it": it, "iref": it * np.exp(-step(ENERGY, EDGE_EV + 0.3 + drift))}


def write_table(
    path: Path, first: int, stop: int, broken: frozenset[int] = frozenset(), rows_per_group: int = 64
) -> Path:
    """Write spectra as a Parquet table; those of ``broken`` have an It of zero."""
    rows: list[dict[str, Any]] = []
    for k in range(first, stop):
        columns = intensities(k)
        if k in broken:
            columns["it"] = np.zeros(ENERGY.size)
        rows.append({"id": f"scan {k}", "sample": "cell", "element": "Co", "time": START_S + 60.0 * k, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=64)
    return path


def documents(first: int, stop: int) -> Iterator[tuple[str, Any]]:
    """Yield the same spectra as one run of whole-spectrum Events."""
    run = event_model.compose_run(metadata={"sample_name": "cell", "element": "Co", "edge": "K"}, time=START_S)
    yield "start", dict(run.start_doc)
    names = {"energy": "energy", "i0": "i0", "it": "itrans", "iref": "irefer"}
    keys: Any = {
        name: {"dtype": "array", "shape": [ENERGY.size], "source": "test", "units": "eV" if role == "energy" else ""}
        for role, name in names.items()
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    yield "descriptor", dict(stream.descriptor_doc)
    for k in range(first, stop):
        moment = START_S + 60.0 * k
        data = {names[role]: column for role, column in intensities(k).items()}
        event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, moment), time=moment)
        yield "event", dict(event)
    yield "stop", dict(run.compose_stop())


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a backfill, by source and index."""
    rows = pq.read_table(folder).to_pylist()
    return sorted(rows, key=lambda row: (row["source"], row["index"], row["sweep"]))


def identities(folder: Path) -> list[tuple[str, int]]:
    return [(Path(row["source"]).name, row["index"]) for row in rows_of(folder)]
