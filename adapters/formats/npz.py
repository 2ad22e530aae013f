"""Reads numpy archives with energy and μ as arrays of one or many spectra."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.fields import SYNONYMS
from ...agent.types import Array
from .column_names import SIGNALS, Columns, by_role
from .column_table import assemble
from .energy import in_ev
from .limits import MAX_BYTES
from .spectrum import FileSpectrum, SpectrumFileError

EXPECTED = "expected energy (M,) or (N, M) and mu or norm of (M,) or (N, M)"


def read_npz(path: Path, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return one spectrum per row, or several if the energy of a row turns.

    The archive contains ``energy`` and ``mu`` (or ``norm``, or ``i0`` and ``it`` or ``if``), each (M,) or (N, M), and
    optionally ``id`` (N,), ``reference`` and ``ir``. Energies below 45 are taken for keV, which ``notes`` mention.

    Parameters
    ----------
    path : Path
    wanted : mapping, optional
        Names of the arrays by role.

    Returns
    -------
    list of FileSpectrum

    Raises
    ------
    SpectrumFileError
        The file has another format, or arrays of other names or shapes.
    """
    arrays, there = _load(path, by_role(wanted))
    signal = next((role for role in ("mu", "normalised", "it", "fluorescence") if role in arrays), "")
    if "energy" not in arrays or not signal or (signal in ("it", "fluorescence") and "i0" not in arrays):
        raise SpectrumFileError(f"{path}: found the arrays {there or 'none'}, {EXPECTED}")
    ids = arrays.pop("id", None)
    columns = {role: _numbers(path, role, array) for role, array in arrays.items()}
    columns["energy"], notes = in_ev(columns["energy"], "energy", "")
    names = None if ids is None else [_text(id) for id in np.atleast_1d(ids)]
    return spectra_of(path, columns, signal, names, average=False, notes=notes)


def spectra_of(
    path: Path, columns: dict[str, Array], signal: str, ids: Sequence[str] | None = None, **known: Any
) -> list[FileSpectrum]:
    """Return one spectrum per row of arrays, or several if the energy of a row turns.

    Parameters
    ----------
    path : Path
    columns : dict of str to ndarray, (M,) or (N, M)
        Arrays by role; energies in eV.
    signal : str
        Role from which μ is computed.
    ids : sequence of str, optional
        ``id`` of each row.
    **known
        Further fields of the spectra.

    Returns
    -------
    list of FileSpectrum

    Raises
    ------
    SpectrumFileError
        The shapes disagree.
    """
    shape = np.atleast_2d(columns[signal]).shape
    columns = {role: _rows(path, role, array, shape) for role, array in columns.items()}
    rows, points = shape
    if ids is None:
        ids = [f"{path.name}:{row}" for row in range(rows)]
    elif len(ids) != rows:
        raise SpectrumFileError(f"{path}: found {len(ids)} id for {rows} rows of {signal}, {EXPECTED}")
    if points < 2 or rows == 0:
        raise SpectrumFileError(f"{path}: found {signal} of shape {shape}, {EXPECTED}")
    formula = "transmission" if signal == "it" else signal
    first = known.pop("row", 0)
    spectra: list[FileSpectrum] = []
    for row in range(rows):
        spectra += assemble(
            path,
            columns["energy"][row],
            {role: array[row] for role, array in columns.items() if role != "energy"},
            formula,  # type: ignore[arg-type] - one of the four words
            id=ids[row],
            row=first + len(spectra),
            **known,
        )
    return spectra


def _load(path: Path, wanted: Mapping[str, Sequence[str | int]]) -> tuple[dict[str, NDArray], str]:
    """Return the arrays of an npz by role, and the names of all arrays."""
    names = {role: (*synonyms.spellings, role) for role, synonyms in SYNONYMS.items()} | {"id": ("id",)}
    names |= {role: (_key(path, role, columns),) for role, columns in wanted.items()}
    if named := [role for role in SIGNALS if role in wanted]:  # other signals are then not read
        names = {role: keys for role, keys in names.items() if role in named or role not in SIGNALS}
    # numpy does not close a file that it cannot read.
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(part.file_size for part in archive.infolist())
            if size > MAX_BYTES:
                raise SpectrumFileError(
                    f"{path}: found {size >> 20} MiB after decompression, expected at most {MAX_BYTES >> 20}"
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                keys = {role: next((key for key in keys if key in arrays), keys[0]) for role, keys in names.items()}
                missing = [key for role, key in keys.items() if role in wanted and key not in arrays]
                if missing:
                    there = ", ".join(arrays.files)
                    raise SpectrumFileError(f"{path}: found the arrays {there}, not {', '.join(missing)}, {EXPECTED}")
                return {role: arrays[key] for role, key in keys.items() if key in arrays}, ", ".join(arrays.files)
        except SpectrumFileError:
            raise
        except Exception as error:  # numpy, zipfile and zlib raise many types of exception on damaged bytes
            raise SpectrumFileError(f"{path}: not an npz of numbers ({error}), {EXPECTED}") from error


def _key(path: Path, role: str, keys: Sequence[str | int]) -> str:
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
        raise SpectrumFileError(f"{path}: found {key} of shape {array.shape}, but spectra of {shape}, {EXPECTED}")
    return np.broadcast_to(array, shape)
