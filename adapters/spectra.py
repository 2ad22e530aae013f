"""Spectra in files: text columns (XDI among them) and npz.

XDI: B. Ravel, M. Newville, J. Phys.: Conf. Ser. 712, 012148 (2016), doi 10.1088/1742-6596/712/1/012148.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError

Floats = NDArray[np.float64]

_EXPECTED_TEXT = "expected columns energy and mu, or energy, i0 and itrans, named in the header"
_EXPECTED_NPZ = "expected energy (M,) or (N, M) and mu or norm of (M,) or (N, M)"

_COLUMNS = {
    "energy": ("energy", "shifted energy", "energy_ev", "e", "ev"),
    "mu": ("mu", "xmu", "mutrans", "mufluor", "mu_trans"),
    "norm": ("norm", "normalized", "normalised", "normtrans", "normfluor", "flat"),
    "i0": ("i0",),
    "it": ("itrans", "it", "i1"),
    "if": ("ifluor", "if"),
    "ir": ("irefer", "iref", "ir", "i2"),
    "reference": ("reference", "murefer", "normrefer", "mu_ref"),
}
"""What a column means, by its name in lower case."""


MIN_POINTS = 10
"""A spectrum of fewer points shows no edge."""


class SpectrumFileError(InputError):
    """A file without spectra; the message names it, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """One spectrum of a file, as it stands there."""

    id: str
    """The npz's own ``id``, else ``file:row``."""
    source: str
    """Path of the file, as given."""
    row: int
    """Row in the npz; 0 in a text file."""
    energy: Floats
    """(M,) eV; rising where the file has it falling. As it stands there otherwise: see ``flaw``."""
    mu: Floats
    """(M,) absorption; NaN where an intensity is not positive."""
    reference: Floats | None = None
    """(M,) absorption of the reference foil."""
    normalised: bool | None = None
    """Whether the file says that ``mu`` is normalised (True), computes it from intensities (False), or does
    not tell (None)."""
    element: str | None = None
    edge: str | None = None


def read_spectra(path: str | Path) -> list[Spectrum]:
    """All spectra of a file: an ``.npz``, else text.

    Text: values separated by blanks or commas under a header of ``#`` lines (or of unmarked words). Columns
    are named by XDI's ``# Column.N:`` or by the header's last line; two unnamed columns are energy and μ. μ
    is taken where it stands, else it is ``ln(i0/itrans)`` or ``ifluor/i0``; the reference is
    ``ln(itrans/irefer)``.

    Neighbouring points at one energy are averaged.

    npz: ``energy`` and ``mu`` (or ``norm``), each (M,) or (N, M), optionally ``id`` (N,) and ``reference``.

    Raises:
        SpectrumFileError: the file is missing, or not of these kinds. Numbers that make no spectrum are no
            reason: ``flaw`` tells of them, spectrum by spectrum.
    """
    path = Path(path)
    if path.is_dir():
        raise SpectrumFileError(f"{path}: found a folder, expected a file of spectra")
    try:
        return _read_npz(path) if path.suffix.lower() == ".npz" else [_read_text(path)]
    except OSError as error:
        raise SpectrumFileError(f"{path}: {error.strerror or error}, expected a file of spectra") from error


def flaw(spectrum: Spectrum) -> str | None:
    """Why a spectrum cannot be used, as ``reason: detail``; None when it can.

    Its energies must be finite and rise strictly, its absorption be finite, its points be ``MIN_POINTS`` or more.
    The reference is not looked at: a spectrum can do without.
    """
    energy, mu = spectrum.energy, spectrum.mu
    if len(energy) < MIN_POINTS:
        return f"too few points: {len(energy)} points, at least {MIN_POINTS} needed"
    if bad := np.count_nonzero(~np.isfinite(energy)):
        return f"energy not finite: {bad} of {len(energy)} values"
    back = np.flatnonzero(energy[1:] <= energy[:-1])
    if back.size:
        before, after = energy[back[0] : back[0] + 2]
        return f"energy not monotonic: {after:.2f} eV after {before:.2f} eV, {back.size} of {len(energy)} points"
    if bad := np.count_nonzero(~np.isfinite(mu)):
        return f"NaN in data: {bad} of {len(mu)} values; an intensity is missing or not positive"
    return None


def _read_npz(path: Path) -> list[Spectrum]:
    arrays, names = _load(path)
    kind = "mu" if "mu" in arrays else "norm"
    if "energy" not in arrays or kind not in arrays:
        raise SpectrumFileError(f"{path}: found the arrays {names or 'none'}, {_EXPECTED_NPZ}")
    energy, mu = (_numbers(path, key, arrays[key]) for key in ("energy", kind))
    mu = np.atleast_2d(mu)
    rows, points = mu.shape
    energy = _rows(path, "energy", energy, mu.shape)
    reference = arrays.get("reference")
    if reference is not None:
        reference = _rows(path, "reference", _numbers(path, "reference", reference), mu.shape)
    ids = [f"{path.name}:{row}" for row in range(rows)]
    if "id" in arrays:
        ids = [_text(id) for id in np.atleast_1d(arrays["id"])]
        if len(ids) != rows:
            raise SpectrumFileError(f"{path}: found {len(ids)} id for {rows} rows of {kind}, {_EXPECTED_NPZ}")
    if points < 2 or rows == 0:
        raise SpectrumFileError(f"{path}: found {kind} of shape {mu.shape}, {_EXPECTED_NPZ}")
    normalised = True if kind == "norm" else None
    return [
        _spectrum(
            ids[row],
            path,
            row,
            energy[row],
            mu[row],
            reference=None if reference is None else reference[row],
            normalised=normalised,
        )
        for row in range(rows)
    ]


def _load(path: Path) -> tuple[dict[str, NDArray], str]:
    """The arrays of an npz that are of use here, and the names of all."""
    wanted = ("energy", "mu", "norm", "reference", "id")
    # numpy itself leaves a file open that it cannot make out.
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in wanted if key in archive}, ", ".join(archive.files)
        except Exception as error:  # numpy, zipfile and zlib raise anything at all on damaged bytes
            raise SpectrumFileError(f"{path}: not an npz of numbers ({error}), {_EXPECTED_NPZ}") from error


def _text(id: Any) -> str:
    return id.decode(errors="replace") if isinstance(id, bytes) else str(id)


def _numbers(path: Path, key: str, array: NDArray) -> Floats:
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise SpectrumFileError(f"{path}: found {key} of {array.dtype}, shape {array.shape}, {_EXPECTED_NPZ}")
    return array.astype(np.float64)


def _rows(path: Path, key: str, array: Floats, shape: tuple[int, ...]) -> Floats:
    if array.shape != shape and array.shape != shape[1:]:
        raise SpectrumFileError(
            f"{path}: found {key} of shape {array.shape} beside spectra of {shape}, {_EXPECTED_NPZ}"
        )
    return np.broadcast_to(array, shape)


def _read_text(path: Path) -> Spectrum:
    header, table = _parse(path)
    names = _column_names(header, table.shape[1])
    columns: dict[str, Floats] = {}
    for name, values in zip(names, table.T, strict=False):
        meaning = next((key for key, known in _COLUMNS.items() if name in known), None)
        if meaning is not None:
            columns.setdefault(meaning, values)
    found = f"found {table.shape[1]} columns ({', '.join(names) or 'unnamed'})"
    if "energy" not in columns:
        raise SpectrumFileError(f"{path}: {found}, {_EXPECTED_TEXT}")
    mu, normalised = _absorption(columns)
    if mu is None:
        raise SpectrumFileError(f"{path}: {found}, {_EXPECTED_TEXT}")
    reference = columns.get("reference")
    if "ir" in columns and "it" in columns:
        reference = _log_ratio(columns["it"], columns["ir"])
    energy, mu, reference = _merged(columns["energy"], mu, reference)
    fields = _xdi_fields(header)
    unit = fields.get(f"column.{names.index('energy') + 1}", "") if "energy" in names else ""
    return _spectrum(
        f"{path.name}:0",
        path,
        0,
        energy * (1000.0 if re.match(r"\S+\s+keV\b", unit, re.I) else 1.0),
        mu,
        reference=reference,
        normalised=normalised,
        element=fields.get("element.symbol") or None,
        edge=fields.get("element.edge") or None,
    )


def _parse(path: Path) -> tuple[list[str], Floats]:
    """Header lines without their mark, and the (M, C) table."""
    raw = path.read_bytes()
    if b"\0" in raw:
        raise SpectrumFileError(f"{path}: found a binary file, expected text columns or .npz")
    header: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
        text = line.strip()
        if text.startswith(("#", "%", ";")):
            if not rows:
                header.append(text.lstrip("#%; "))
            continue
        if not text:
            continue
        try:
            row = [float(value) for value in text.replace(",", " ").split()]
        except ValueError:
            if rows:
                raise SpectrumFileError(f"{path}: line {number}: found {text[:60]!r}, expected numbers") from None
            header.append(text)
            continue
        if rows and len(row) != len(rows[0]):
            raise SpectrumFileError(
                f"{path}: line {number}: found {len(row)} values, expected {len(rows[0])} as above"
            )
        rows.append(row)
    if len(rows) < 2:
        raise SpectrumFileError(f"{path}: found {len(rows)} rows of numbers, {_EXPECTED_TEXT}")
    return header, np.array(rows)


def _column_names(header: list[str], count: int) -> list[str]:
    """Lower-case names of the columns; empty when the header does not name them."""
    fields = _xdi_fields(header)
    numbered = [fields.get(f"column.{number}", "").split() for number in range(1, count + 1)]
    if all(numbered):
        return [words[0].lower() for words in numbered]
    last = header[-1].lower() if header else ""
    # The names themselves may hold blanks ("shifted energy"), so tabs and commas go first.
    for separator in (r"\t", r",", r"\s{2,}", r"\s+"):
        names = [name.strip() for name in re.split(separator, last) if name.strip()]
        if len(names) == count and set(names) & set(_COLUMNS["energy"]):
            return names
    return ["energy", "mu"] if count == 2 else []


def _xdi_fields(header: list[str]) -> dict[str, str]:
    """XDI's ``Namespace.field: value`` lines, keys in lower case."""
    matches = (re.match(r"(\w+\.\w+)\s*:\s*(.*)", line) for line in header)
    return {match[1].lower(): match[2].strip() for match in matches if match}


def _absorption(columns: dict[str, Floats]) -> tuple[Floats | None, bool | None]:
    """μ and whether it is normalised, from the first kind of column that the file has."""
    if "mu" in columns:
        return columns["mu"], None
    if "i0" in columns and "it" in columns:
        return _log_ratio(columns["i0"], columns["it"]), False
    if "i0" in columns and "if" in columns:
        return np.where(
            columns["i0"] > 0, columns["if"] / np.where(columns["i0"] > 0, columns["i0"], 1), np.nan
        ), False
    if "norm" in columns:
        return columns["norm"], True
    return None, None


def _merged(energy: Floats, mu: Floats, reference: Floats | None) -> tuple[Floats, Floats, Floats | None]:
    """Average neighbouring points that stand at one energy."""
    first = np.flatnonzero(np.concatenate(([True], energy[1:] != energy[:-1])))
    if len(first) == len(energy):
        return energy, mu, reference
    count = np.diff(first, append=len(energy))

    def mean(column: Floats) -> Floats:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.add.reduceat(column, first) / count

    return energy[first], mean(mu), None if reference is None else mean(reference)


def _log_ratio(before: Floats, after: Floats) -> Floats:
    """``ln(before/after)``, NaN where either intensity is not positive."""
    positive = (before > 0) & (after > 0)
    return np.where(positive, np.log(np.where(positive, before, 1) / np.where(positive, after, 1)), np.nan)


def _spectrum(
    id: str, path: Path, row: int, energy: Floats, mu: Floats, *, reference: Floats | None, **known: Any
) -> Spectrum:
    if np.all(energy[1:] < energy[:-1]):
        energy, mu = energy[::-1], mu[::-1]
        reference = None if reference is None else reference[::-1]
    return Spectrum(id, str(path), row, energy, mu, reference, **known)
