"""Reads text columns, including XDI, and the files of SSRL's collector.

XDI: B. Ravel, M. Newville, J. Phys.: Conf. Ser. 712, 012148 (2016), doi 10.1088/1742-6596/712/1/012148.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.types import Array
from .column_names import Columns
from .column_table import EXPECTED, ColumnTable, spectra_in
from .headers import fields, labels, no_foil, scan_metadata, timestamp, without_mark
from .spectrum import FileSpectrum, SpectrumFileError
from .text import NumberStyle, TextFile, number_block, parse_rows

_COLLECTOR = re.compile(r"\s*SSRL\s*-?\s*(?:Micro)?EXAFS Data Collector\s*([\d.]*)", re.I)
_SSRL_HEADER = 800
MAX_COLUMNS = 1000


def read_columns(path: Path, text: TextFile, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return the spectra of a text file of columns.

    Parameters
    ----------
    path : Path
    text : TextFile
        Its decoded content.
    wanted : mapping, optional
        Columns that the caller names, by role.

    Returns
    -------
    list of FileSpectrum
        One per sweep.

    Raises
    ------
    SpectrumFileError
        The file contains no table, or its columns of energy and absorption cannot be identified.
    """
    if _COLLECTOR.match(text.lines[0]):
        return _read_ssrl_text(path, text, wanted)
    if text.lines[0].strip() == "&SRS":
        raise SpectrumFileError(
            f"{path}: found a file of Daresbury's SRS, with the positions of the monochromator and no energies; "
            "convert it to columns of energy and counts"
        )
    block = number_block(path, text, EXPECTED)
    names, units = labels(block.header, block.table.shape[1], indexed=_counts_rows(block.table[:, 0]))
    known = known_of(path, block.notes, block.complete) | scan_metadata(block.header)
    d_spacing = fields(block.header).get("mono.d_spacing", "")
    table = ColumnTable(
        path, list(block.table.T), names, units, d_spacing, known, no_foil(block.header), block.header
    )
    return spectra_in(table, wanted)


def _counts_rows(column: Array) -> bool:
    """Return whether a column is an index of the rows, from 0 or 1, or contains no numbers."""
    return bool(np.isnan(column).all() or (column[0] in (0, 1) and (np.diff(column) == 1).all()))


def is_ssrl_binary(raw: bytes) -> bool:
    """Return whether the bytes begin like a binary file of SSRL's collector: its name, in zero-terminated records."""
    return bool(_COLLECTOR.match(raw[:40].decode("latin-1"))) and b"\0" in raw[:80]


def read_ssrl_binary(path: Path, raw: bytes, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return the spectra of a binary file of SSRL's EXAFS Data Collector.

    The file contains 800 bytes of text in records of 40 and 80 bytes; offsets and weights (4 bytes per column each)
    and labels (20 bytes per column); 16 further bytes; then the numbers, 4 bytes each, point by point. They are VAX F
    floats before version 2 and IEEE little-endian floats since then. Sources: Demeter's plug-in SSRLB and Igor's
    loader of the same name.

    Parameters
    ----------
    path : Path
    raw : bytes
        Content of the file.
    wanted : mapping, optional
        Columns that the caller names, by role.

    Returns
    -------
    list of FileSpectrum
        One per sweep.

    Raises
    ------
    SpectrumFileError
        The file ends before the second point, or has no column of energy or absorption.
    """
    head = raw[:_SSRL_HEADER].decode("latin-1").replace("\0", "\n")
    version = _COLLECTOR.match(head)
    shape = re.search(r"PTS:\s*(\d+)\s+COLS:\s*(\d+)(?![\d.,])", head)
    if not shape or not version or not 1 < int(shape[2]) <= MAX_COLUMNS:
        raise SpectrumFileError(f"{path}: found a header of SSRL's collector without its PTS and COLS")
    points, count = int(shape[1]), int(shape[2])
    begin = _SSRL_HEADER + 8 * count
    names = [
        raw[begin + 20 * i : begin + 20 * (i + 1)].decode("latin-1").split("\0")[0].strip() for i in range(count)
    ]
    body = raw[begin + 20 * count + 16 :]
    there = min(points, len(body) // (4 * count))
    if there < 2:
        raise SpectrumFileError(f"{path}: found {there} of {points} points, {EXPECTED}")
    words = np.frombuffer(body, "<u2", 2 * count * there).reshape(-1, 2)
    if _major(version[1]) < 2:  # an IEEE float with the halves of a VAX F float exchanged has four times its value
        table = np.ascontiguousarray(words[:, ::-1]).view("<f4").astype(np.float64).reshape(there, count) / 4
    else:
        table = words.view("<f4").astype(np.float64).reshape(there, count)
    notes = () if there == points else (f"the file ends early: {there} of {points} points",)
    known = known_of(path, notes, there == points) | {"time": timestamp(head[40:80])}
    return spectra_in(ColumnTable(path, list(table.T), names, known=known), wanted)


def _read_ssrl_text(path: Path, text: TextFile, wanted: Columns | None) -> list[FileSpectrum]:
    """Return the spectra of an ASCII file of SSRL's collector, which lists one label per line below ``Data:``."""
    lines = text.lines
    data = next((i for i, line in enumerate(lines) if line.strip() == "Data:"), None)
    begin = None if data is None else next((i for i in range(data, len(lines)) if not lines[i].strip()), None)
    if data is None or begin is None:
        raise SpectrumFileError(f"{path}: found a header of SSRL's collector without its labels, {EXPECTED}")
    names = [line.strip() for line in lines[data + 1 : begin]]
    if len([line for line in lines[begin:] if line.strip()]) < 2:
        raise SpectrumFileError(f"{path}: found fewer than 2 rows of numbers, {EXPECTED}")
    table, notes, complete = parse_rows(path, lines[begin:], begin + 1, NumberStyle(), text.ended)
    if table.shape[1] != len(names):
        raise SpectrumFileError(f"{path}: found {len(names)} labels and {table.shape[1]} columns, {EXPECTED}")
    points = re.search(r"PTS:\s*(\d+)(?![\d.,])", "\n".join(lines[:data]))
    announced = int(points[1]) if points else len(table)
    if len(table) < announced:
        complete, notes = False, (*notes, f"the file ends early: {len(table)} of {announced} points")
    offsets = next((lines[i + 1] for i in range(data) if without_mark(lines[i]).lower() == "offsets:"), "")
    if re.search("[1-9]", offsets):
        notes += (f"the offsets in the header are not subtracted: {offsets.strip()}",)
    known = known_of(path, text.notes + notes, complete and not text.cut)
    known |= {"time": timestamp(lines[1]) if len(lines) > 1 else None}
    return spectra_in(ColumnTable(path, list(table.T), names, known=known), wanted)


def known_of(path: Path, notes: tuple[str, ...], complete: bool) -> dict[str, Any]:
    """Return the fields of the only spectrum of a file."""
    return {"id": f"{path.name}:0", "row": 0, "notes": notes, "complete": complete}


def _major(version: str) -> int:
    digits = re.match(r"\d+", version)
    return int(digits[0]) if digits else 1
