"""The rows of a part as a Parquet table with units and provenance."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....agent.estimate import Answer
from ....agent.publish import ALIGNMENT_UNITS
from ....agent.types import ESTIMATE_PARTS, InputError, Refusal, keys_of
from ..files import refusal_of
from .items import Item

if TYPE_CHECKING:
    from ....models.runtime import Model

_TEXTS = ("id", "sample", "element", "edge", "model")
_LAST_TEXTS = ("flags", "reason", "detail", "notes")
METADATA = b"xas_agent"
"""Key of the provenance in the metadata of a part: JSON with ``models`` (SHA-256 by name), ``config_sha256``,
``versions``, …"""


class PartTable:
    """Writes a part; rows are added within the ``with`` block.

    Every part of a backfill has the same columns: those of all its models.

    Parameters
    ----------
    path : Path
    models : sequence of Model
    about : mapping
        Provenance.
    everything : bool
        Whether to include descriptors that have no meaning for a mixture of sites.
    """

    def __init__(self, path: Path, models: "Sequence[Model]", about: Mapping[str, Any], *, everything: bool) -> None:
        import pyarrow.parquet as pq

        self._path = path
        self._hidden = {m.name: frozenset[str]() if everything else m.single_site for m in models}
        self._schema = _schema(models, self._hidden, about)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> "PartTable":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)
            return
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write(self, rows: Iterable[tuple[Item, Answer | Refusal]]) -> None:
        """Add rows."""
        import pyarrow as pa

        found = [_utf8(self._row(item, answer)) for item, answer in rows]
        if found:
            self._writer.write_table(pa.Table.from_pylist(found, schema=self._schema))

    def _row(self, item: Item, answer: Answer | Refusal) -> dict[str, Any]:
        model = None if isinstance(answer, Refusal) else answer.model
        row: dict[str, Any] = {"source": item.source, "index": item.index, "sweep": item.sweep}
        row |= {"id": item.id, "time": item.time}
        row |= {"sample": item.sample, "element": item.element, "edge": item.edge, "notes": "; ".join(item.notes)}
        row |= {"flags": "", "reason": "", "detail": "", "model": ""}
        if model is not None:
            row |= {"model": model.name, "element": model.absorber, "edge": model.edge_name}
        refusal = refusal_of(answer)
        if refusal is not None:
            return row | {"reason": str(refusal.reason), "detail": refusal.detail}
        assert isinstance(answer, Answer)
        assert answer.estimate is not None
        assert model is not None
        row |= {"ood_score": answer.estimate.ood_score, "flags": ", ".join(answer.flags), **answer.quantities}
        for name, d in answer.estimate.descriptors.items():
            if name not in self._hidden[model.name]:
                row |= {f"{name}_{part}": getattr(d, part) for part in ESTIMATE_PARTS}
                row |= {} if d.value is None else {name: d.value, f"{name}_p": d.p}
        return row


def _utf8(row: dict[str, Any]) -> dict[str, Any]:
    r"""Return a row whose texts are valid Unicode; ``\udcff``, as in a file's name, is written out."""
    return {key: v.encode(errors="backslashreplace").decode() if isinstance(v, str) else v for key, v in row.items()}


def _schema(models: "Sequence[Model]", hidden: Mapping[str, frozenset[str]], about: Mapping[str, Any]) -> Any:
    """Return the columns of all models, with their units and the provenance."""
    import pyarrow as pa

    units: dict[str, str] = {}
    for model in models:
        for d in model.card.descriptors:
            if d.name in hidden[model.name]:
                continue
            keys = keys_of(d.name) if d.classes else [f"{d.name}_{part}" for part in ESTIMATE_PARTS]
            units |= {key: "dimensionless" if key == f"{d.name}_p" else d.unit for key in keys}
    units |= {"ood_score": "dimensionless", **ALIGNMENT_UNITS}
    fields = [pa.field("source", pa.string(), False), pa.field("index", pa.int64(), False)]
    fields += [pa.field("sweep", pa.int32(), False)]
    fields += [pa.field(name, pa.string()) for name in _TEXTS]
    fields += [pa.field(name, pa.float64(), metadata={"unit": unit}) for name, unit in {"time": "s", **units}.items()]
    fields += [pa.field(name, pa.string()) for name in _LAST_TEXTS]
    provenance = {**about, "models": {model.name: model.sha256 for model in models}}
    return pa.schema(fields, metadata={METADATA: json.dumps(provenance)})


def require_pyarrow() -> None:
    """Import the library that writes the parts.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(f"backfill needs {error.name}: pip install 'xas-agent[dask]'") from None
