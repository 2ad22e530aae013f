"""Reads Parquet tables of spectra: one spectrum per row, with its points in columns of lists."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.fields import SYNONYMS
from ...agent.types import Array, Formula
from .column_names import SIGNALS, Columns, by_role
from .column_table import assemble
from .energy import in_ev
from .headers import timestamp
from .limits import MAX_BYTES
from .spectrum import FileSpectrum, SpectrumFileError

MAGIC = b"PAR1"
_EXPECTED = "expected energy and mu (or norm, or i0 and it or if) as lists of numbers, a spectrum per row"
_TEXTS = ("id", "sample", "element", "edge", "title")
_ROWS = 256
"""Number of rows that are decoded at a time."""
_BUFFER_BYTES = 1 << 20


def read_parquet(path: Path, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return all spectra of a table, as :func:`iterate_parquet` yields them.

    Raises
    ------
    SpectrumFileError
        As for :func:`iterate_parquet`, or the table is too large to be read at once.
    """
    with _open(path) as table:
        _columns(path, table.schema_arrow, by_role(wanted))
        size = sum(group.total_byte_size for group in _groups(table.metadata))
    if size > MAX_BYTES:
        remedy = "xas-agent backfill reads it in parts"
        raise SpectrumFileError(f"{path}: found {size >> 20} MiB, expected at most {MAX_BYTES >> 20} MiB; {remedy}")
    return list(iterate_parquet(path, wanted))


def parquet_rows(path: Path, wanted: Columns | None = None) -> int:
    """Return the number of rows of a table, from its footer.

    Raises
    ------
    SpectrumFileError
        As for :func:`iterate_parquet`.
    """
    with _open(path) as table:
        _columns(path, table.schema_arrow, by_role(wanted))
        return table.metadata.num_rows


def iterate_parquet(
    path: Path, wanted: Columns | None = None, first: int = 0, stop: int | None = None
) -> Iterator[FileSpectrum]:
    """Yield the spectra of rows ``first`` to ``stop``; a row whose energy turns gives several.

    The table has columns ``energy`` and ``mu`` (or ``norm``, or ``i0`` and ``it`` or ``if``), lists of M numbers in
    each row, and optionally ``reference``, ``id``, ``sample``, ``element``, ``edge``, ``title`` and ``time`` (Unix s
    or a timestamp, local time without a zone). Energies below 45 are taken for keV, which ``notes`` mention. The
    ``row`` of a spectrum is its row in the table, even if a row has several spectra. The memory needed does not
    depend on the size of the table.

    Parameters
    ----------
    path : Path
    wanted : mapping, optional
        Names of the columns by role.
    first, stop : int
        Range of rows; by default all.

    Raises
    ------
    SpectrumFileError
        The file is no Parquet table, has columns of other names or types, or pyarrow is not installed.
    """
    table = _open(path)
    import pyarrow as pa  # after the message on missing packages

    try:
        names = _columns(path, table.schema_arrow, by_role(wanted))
        texts = [name for name in (*_TEXTS, "time") if name in table.schema_arrow.names]
        end = table.metadata.num_rows if stop is None else min(stop, table.metadata.num_rows)
        groups, start = _covering(table.metadata, first, end)
        for batch in table.iter_batches(_ROWS, row_groups=groups, columns=[*names.values(), *texts]):
            for k in range(max(first - start, 0), min(end - start, batch.num_rows)):
                yield from _spectra(path, batch, k, start + k, names, texts)
            start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise SpectrumFileError(f"{path}: not a whole Parquet table ({error}), {_EXPECTED}") from error
    finally:
        table.close()


def _open(path: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        needs = f"a Parquet table needs {error.name}: pip install 'xas-agent[dask]'"
        raise SpectrumFileError(f"{path}: {needs}") from None
    try:
        file = pa.OSFile(os.fsencode(path))  # the name need not be UTF-8
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise SpectrumFileError(f"{path}: not a Parquet table ({error}), {_EXPECTED}") from error


def _groups(metadata: Any) -> list[Any]:
    return [metadata.row_group(k) for k in range(metadata.num_row_groups)]


def _covering(metadata: Any, first: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that contain a range of rows, and the first row of the first one."""
    found: list[int] = []
    start = row = 0
    for number, group in enumerate(_groups(metadata)):
        if row < stop and row + group.num_rows > first:
            start = row if not found else start
            found.append(number)
        row += group.num_rows
    return found, start


def _columns(path: Path, schema: Any, wanted: Mapping[str, Sequence[str | int]]) -> dict[str, str]:
    """Return the column name of each role that the table has."""
    import pyarrow.types as types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    lists = [f.name for f in schema if any(is_(f.type) for is_ in kinds)]
    lists = [name for name in lists if any(are(schema.field(name).type.value_type) for are in numbers)]
    there = ", ".join(schema.names) or "none"
    names = {role: (*synonyms.spellings, role) for role, synonyms in SYNONYMS.items()}
    if named := [role for role in SIGNALS if role in wanted]:
        names = {role: keys for role, keys in names.items() if role in named or role not in SIGNALS}
    names |= {role: tuple(map(str, keys)) for role, keys in wanted.items()}
    found = {role: key for role, keys in names.items() if (key := next((k for k in keys if k in lists), ""))}
    if missing := [role for role in wanted if role not in found]:
        given = ", ".join(map(str, wanted[missing[0]]))
        raise SpectrumFileError(f"{path}: found the columns {there}, no list {given}, {_EXPECTED}")
    if "energy" not in found or _formula(found) is None:
        raise SpectrumFileError(f"{path}: found the columns {there}, {_EXPECTED}")
    return found


def _formula(roles: Mapping[str, Any]) -> Formula | None:
    """Return the formula of μ; None if the roles do not suffice."""
    if "mu" in roles:
        return "mu"
    if "i0" in roles and "it" in roles:
        return "transmission"
    if "i0" in roles and "fluorescence" in roles:
        return "fluorescence"
    return "normalised" if "normalised" in roles else None


def _spectra(
    path: Path, batch: Any, k: int, row: int, names: Mapping[str, str], texts: Sequence[str]
) -> list[FileSpectrum]:
    """Return the spectra of row ``k`` of a batch, which is ``row`` of the table."""
    cells = {name: _plain(batch.column(name)[k]) for name in texts}
    id = str(cells.pop("id", None) or f"{path.name}:{row}")
    known: dict[str, Any] = {"time": _seconds(cells.pop("time", None))}
    known |= {name: None if text is None else str(text) for name, text in cells.items()}
    channels: dict[str, Array] = {}
    for role, name in names.items():
        values = batch.column(name)[k].values
        if values is not None:  # a row may lack its foil
            channels[role] = np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
    energy = channels.pop("energy", np.empty(0))
    formula = _formula(channels)
    if formula is None or any(len(column) != len(energy) for column in channels.values()) or len(energy) < 2:
        found = ", ".join(f"{len(column)} of {role}" for role, column in channels.items()) or "no"
        note = f"found {len(energy)} energies and {found} values, {_EXPECTED}"
        return [FileSpectrum(id, str(path), row, energy[:0], energy[:0], notes=(note,), **known)]
    energy, notes = in_ev(energy, "energy", "")
    made = assemble(path, energy, channels, formula, id=id, row=row, average=False, notes=notes, **known)
    return [replace(spectrum, row=row) for spectrum in made]


def _plain(cell: Any) -> Any:
    """Return a cell as a Python value; pandas would take a timestamp in ns without a zone for UTC."""
    import pyarrow as pa

    if pa.types.is_timestamp(cell.type):
        cell = cell.cast(pa.timestamp("us", cell.type.tz), safe=False)
    return cell.as_py()


def _seconds(time: Any) -> float | None:
    """Return a time as Unix s; without a zone, it is local time."""
    if isinstance(time, datetime):
        return time.timestamp()
    if isinstance(time, str):
        return timestamp(time)
    return float(time) if isinstance(time, int | float) else None
