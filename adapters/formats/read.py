"""One reader for all files of spectra."""

from pathlib import Path

import numpy as np

from .athena import is_athena, read_athena
from .column_names import AmbiguousColumnError, Columns, by_role, given_spacing
from .columns import is_ssrl_binary, read_columns, read_ssrl_binary
from .hdf5 import SIGNATURE, SUFFIXES, read_hdf5
from .limits import read_bytes
from .npz import read_npz
from .parquet import MAGIC as PARQUET
from .parquet import read_parquet
from .photon_factory import is_format_9809, read_format_9809
from .spec import is_spec, read_spec
from .spectrum import FileSpectrum, SpectrumFileError
from .text import decode

_OF_DOCUMENTS = (".jsonl", ".msgpack")


def read_spectra(path: str | Path, *, columns: Columns | None = None) -> list[FileSpectrum]:
    """Return all spectra of a file; its content, not its name, determines the format.

    An ``.npz`` contains ``energy`` and ``mu`` (or ``norm``), each (M,) or (N, M), optionally ``id`` (N,) and
    ``reference``; a Parquet table has them as lists, a spectrum per row; docs/reference/files.md describes the other
    formats. Text files and Athena projects may be gzipped.
    The ``notes`` of a spectrum list guesses, repairs and omissions.

    Parameters
    ----------
    path : str or Path
    columns : mapping, optional
        Names (or numbers from 1; in HDF5, paths) of the columns by role: ``energy``, ``i0``, ``it``, ``iref`` (or
        ``ir``), ``fluorescence`` (or ``if``; several are summed), ``mu``, ``normalised`` (or ``norm``),
        ``reference``. Columns that are not named are detected by their names. ``d_spacing`` is the d spacing of the
        monochromator's crystal, Å, for energies that are Bragg angles.

    Returns
    -------
    list of FileSpectrum
        Their values are not checked; use :func:`flaw` for each spectrum.

    Raises
    ------
    SpectrumFileError
        The file is missing, damaged, of another format, or its columns cannot be identified; the message says what
        was found and which columns to name.
    """
    path = Path(path)
    try:
        by_role(columns)
    except AmbiguousColumnError as error:
        raise SpectrumFileError(f"{path}: found {error}") from error
    try:
        if path.exists() and not path.is_file():  # opening a pipe may block
            kind = "folder" if path.is_dir() else "pipe or device"
            raise SpectrumFileError(f"{path}: found a {kind}, expected a file of spectra")
        if path.suffix.lower() in _OF_DOCUMENTS and path.exists():
            raise SpectrumFileError(f"{path}: found a file of documents; xas-agent replay and inspect read them")
        with np.errstate(all="ignore"):  # values out of range become NaN and inf, which ``flaw`` reports
            return _read(path, columns)
    except SpectrumFileError:
        raise
    except OSError as error:
        raise SpectrumFileError(f"{path}: {error.strerror or error}, expected a file of spectra") from error
    except Exception as error:  # a file is never the end of a batch or of the agent
        why = f"{type(error).__name__}: {error}"[:200]
        raise SpectrumFileError(f"{path}: found content that no reader understands ({why})") from error


def _read(path: Path, columns: Columns | None) -> list[FileSpectrum]:
    with path.open("rb") as file:
        head = file.read(len(SIGNATURE))
    npz = path.suffix.lower() == ".npz" or head[:4] == b"PK\x03\x04"
    hdf5 = head == SIGNATURE or path.suffix.lower() in SUFFIXES
    parquet = head[:4] == PARQUET
    if (npz or hdf5 or parquet) and given_spacing(columns):
        raise SpectrumFileError(f"{path}: found a format without angles, expected no d_spacing for it: leave it out")
    if npz:
        return read_npz(path, columns)
    if hdf5:
        return read_hdf5(path, columns)
    if parquet:
        return read_parquet(path, columns)
    raw, cut = read_bytes(path)
    if is_ssrl_binary(raw):
        return read_ssrl_binary(path, raw, columns)
    text = decode(path, raw, cut)
    if is_athena(text):
        if columns:
            raise SpectrumFileError(f"{path}: found an Athena project, in which no columns can be named")
        return read_athena(path, text)
    if is_format_9809(text):
        return read_format_9809(path, text, columns)
    return read_spec(path, text, columns) if is_spec(text) else read_columns(path, text, columns)
