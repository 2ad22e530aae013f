"""Any file of spectra → its spectra."""

from pathlib import Path

import numpy as np

from .athena import is_athena, read_athena
from .column_names import AmbiguousColumnError, Columns, asked
from .columns import is_ssrl_binary, read_columns, read_ssrl_binary
from .hdf5 import SIGNATURE, SUFFIXES, read_hdf5
from .limits import read_bytes
from .npz import read_npz
from .spec import is_spec, read_spec
from .spectrum import FileSpectrum, SpectrumFileError
from .text import decode


def read_spectra(path: str | Path, *, columns: Columns | None = None) -> list[FileSpectrum]:
    """All spectra of a file, whatever its kind: what is in it tells, not its name.

    An ``.npz`` has ``energy`` and ``mu`` (or ``norm``), each (M,) or (N, M), optionally ``id`` (N,) and
    ``reference``; the others are described in docs/reference/files.md. Text and Athena's projects may be gzipped.
    What was guessed, repaired or left out is in the spectra's ``notes``.

    Args:
        columns: names (or numbers, from 1; in HDF5, paths) of the columns by role: ``energy``, ``i0``, ``it``, ``if``
            (several are summed), ``ir``, ``mu``, ``norm``, ``reference``. What is not named is guessed.

    Raises:
        SpectrumFileError: the file is missing, damaged, of another kind, or what it holds is not clear; the message
            says what was found and what to name. Numbers that make no spectrum are no reason: ``flaw`` tells of
            them, spectrum by spectrum.
    """
    path = Path(path)
    try:
        asked(columns)
    except AmbiguousColumnError as error:
        raise SpectrumFileError(f"{path}: found {error}") from error
    try:
        if path.exists() and not path.is_file():  # to open a pipe may take for ever
            what = "folder" if path.is_dir() else "pipe or device"
            raise SpectrumFileError(f"{path}: found a {what}, expected a file of spectra")
        with np.errstate(all="ignore"):  # numbers out of all bounds become NaN and inf, which ``flaw`` tells of
            return _read(path, columns)
    except OSError as error:
        raise SpectrumFileError(f"{path}: {error.strerror or error}, expected a file of spectra") from error


def _read(path: Path, columns: Columns | None) -> list[FileSpectrum]:
    with path.open("rb") as file:
        head = file.read(len(SIGNATURE))
    if path.suffix.lower() == ".npz" or head[:4] == b"PK\x03\x04":
        return read_npz(path, columns)
    if head == SIGNATURE or path.suffix.lower() in SUFFIXES:
        return read_hdf5(path, columns)
    raw, cut = read_bytes(path)
    if is_ssrl_binary(raw):
        return read_ssrl_binary(path, raw, columns)
    text = decode(path, raw, cut)
    if is_athena(text):
        if columns:
            raise SpectrumFileError(f"{path}: found an Athena project, in which no columns can be named")
        return read_athena(path, text)
    return read_spec(path, text, columns) if is_spec(text) else read_columns(path, text, columns)
