"""numpy's archives: energy and μ as arrays, one spectrum or many."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.types import Array
from .column_names import ROLES, SIGNALS, Columns
from .column_table import assemble
from .energy import in_ev
from .limits import MAX_BYTES
from .spectrum import FileSpectrum, SpectrumFileError

EXPECTED = "expected energy (M,) or (N, M) and mu or norm of (M,) or (N, M)"


def read_npz(path: Path, wanted: Columns | None = None) -> list[FileSpectrum]:
    """A spectrum per row.

    ``energy`` and ``mu`` (or ``norm``, or ``i0`` and ``it`` or ``if``), each (M,) or (N, M), optionally ``id`` (N,),
    ``reference`` and ``ir``. Energies below 45 are keV, which ``notes`` tell.

    Raises:
        SpectrumFileError: another kind of file, or arrays of other names or shapes.
    """
    arrays, there = _load(path, wanted or {})
    kind = next((role for role in ("mu", "norm", "it", "if") if role in arrays), "")
    if "energy" not in arrays or not kind or (kind in ("it", "if") and "i0" not in arrays):
        raise SpectrumFileError(f"{path}: found the arrays {there or 'none'}, {EXPECTED}")
    ids = arrays.pop("id", None)
    columns = {role: _numbers(path, role, array) for role, array in arrays.items()}
    columns["energy"], notes = in_ev(columns["energy"], "energy", "")
    names = None if ids is None else [_text(id) for id in np.atleast_1d(ids)]
    return spectra_of(path, columns, kind, names, average=False, notes=notes)


def spectra_of(
    path: Path, columns: dict[str, Array], kind: str, ids: Sequence[str] | None = None, **known: Any
) -> list[FileSpectrum]:
    """A spectrum for each row of arrays by role, each (M,) or (N, M), the energies in eV.

    Raises:
        SpectrumFileError: shapes that do not fit.
    """
    shape = np.atleast_2d(columns[kind]).shape
    columns = {role: _rows(path, role, array, shape) for role, array in columns.items()}
    rows, points = shape
    if ids is None:
        ids = [f"{path.name}:{row}" for row in range(rows)]
    elif len(ids) != rows:
        raise SpectrumFileError(f"{path}: found {len(ids)} id for {rows} rows of {kind}, {EXPECTED}")
    if points < 2 or rows == 0:
        raise SpectrumFileError(f"{path}: found {kind} of shape {shape}, {EXPECTED}")
    formula = {"norm": "normalised", "it": "transmission", "if": "fluorescence"}.get(kind, "mu")
    first = known.pop("row", 0)
    return [
        assemble(
            path,
            columns["energy"][row],
            {role: array[row] for role, array in columns.items() if role != "energy"},
            formula,  # type: ignore[arg-type] - one of the four words
            id=ids[row],
            row=first + row,
            **known,
        )
        for row in range(rows)
    ]


def _load(path: Path, wanted: Columns) -> tuple[dict[str, NDArray], str]:
    """The arrays of an npz that are of use here, by role, and the names of all."""
    keys = {role: _key(path, role, wanted.get(role, role)) for role in (*ROLES, "id")}
    if named := [role for role in SIGNALS if role in wanted]:  # they leave the other signals out
        keys = {role: key for role, key in keys.items() if role in named or role not in SIGNALS}
    # numpy itself leaves a file open that it cannot make out.
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(part.file_size for part in archive.infolist())
            if size > MAX_BYTES:
                raise SpectrumFileError(
                    f"{path}: found {size >> 20} MiB unzipped, expected at most {MAX_BYTES >> 20}"
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                missing = [str(key) for role, key in keys.items() if role in wanted and key not in arrays]
                if missing:
                    there = ", ".join(arrays.files)
                    raise SpectrumFileError(f"{path}: found the arrays {there}, not {', '.join(missing)}, {EXPECTED}")
                return {role: arrays[key] for role, key in keys.items() if key in arrays}, ", ".join(arrays.files)
        except SpectrumFileError:
            raise
        except Exception as error:  # numpy, zipfile and zlib raise anything at all on damaged bytes
            raise SpectrumFileError(f"{path}: not an npz of numbers ({error}), {EXPECTED}") from error


def _key(path: Path, role: str, named: Any) -> str:
    keys = [named] if isinstance(named, str | int) else list(named)
    if len(keys) != 1:
        raise SpectrumFileError(f"{path}: found {len(keys)} arrays for {role}, expected one")
    return str(keys[0])


def _text(id: Any) -> str:
    return id.decode(errors="replace") if isinstance(id, bytes) else str(id)


def _numbers(path: Path, key: str, array: NDArray) -> Array:
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise SpectrumFileError(f"{path}: found {key} of {array.dtype}, shape {array.shape}, {EXPECTED}")
    return array.astype(np.float64)


def _rows(path: Path, key: str, array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape != shape and array.shape != shape[1:]:
        raise SpectrumFileError(f"{path}: found {key} of shape {array.shape} beside spectra of {shape}, {EXPECTED}")
    return np.broadcast_to(array, shape)
