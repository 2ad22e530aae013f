"""Reads SPEC files of many scans; the energy scans are spectra.

The reader needs only the lines ``#S``, ``#N``, ``#L``, ``#D`` and the numbers below them (Certified Scientific
Software, spec manual, "Standard data file format"). silx reads SPEC files too, but it returns counters rather than
spectra and depends on HDF5 and image codecs.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .column_names import Columns
from .column_table import ColumnTable, spectra_in
from .headers import timestamp
from .spectrum import FileSpectrum, SpectrumFileError
from .text import TextFile, detect_style, parse_rows

_SCAN = re.compile(r"#S\s+(\d+)\s*(.*)")
_INTERVALS = re.compile(r"\w*scan\s+\S+\s+[-+\d.]+\s+[-+\d.]+\s+(\d+)\s+\S+\s*")
"""Command of a scan of one motor: motor, begin, end, number of intervals, time."""


def is_spec(text: TextFile) -> bool:
    """Return whether the first lines are those of a SPEC file: ``#F`` and a scan, or a scan with labels."""
    head = text.lines[:500]
    scan = next((i for i, line in enumerate(head) if _SCAN.match(line)), None)
    return scan is not None and (
        any(line.startswith("#F ") for line in head[:scan]) or any(line.startswith("#L ") for line in head[scan:])
    )


def read_spec(path: Path, text: TextFile, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return one spectrum per sweep of each scan with energy and absorption; ``notes`` count the other scans.

    Parameters
    ----------
    path : Path
    text : TextFile
    wanted : mapping, optional
        Columns that the caller names, by role.

    Returns
    -------
    list of FileSpectrum

    Raises
    ------
    SpectrumFileError
        No scan contains both.
    """
    spectra: list[FileSpectrum] = []
    reasons: list[str] = []
    seen: Counter[str] = Counter()
    scans = list(_scans(text.lines))
    for first, lines in scans:
        number, command = _SCAN.match(lines[0]).groups()  # type: ignore[union-attr] - _scans yields only lines that match
        seen[number] += 1
        label = number if seen[number] == 1 else f"{number}.{seen[number]}"
        known = {"id": f"{path.name}:{label}", "row": len(spectra), "title": f"{number} {command}".strip()}
        last = first + len(lines) - 1 == len(text.lines)
        try:
            spectra += _scan(path, first, lines, known, wanted, ended=text.ended or not last, cut=text.cut and last)
        except SpectrumFileError as error:
            reasons.append(f"scan {label}: {str(error).removeprefix(f'{path}: ')}")
    if not spectra:
        raise SpectrumFileError(f"{path}: found {len(scans)} scans, none of them a spectrum; {reasons[0]}")
    if reasons:
        left = f"{len(reasons)} of {len(scans)} scans are left out, such as {reasons[0][:200]}"
        spectra = [replace(spectrum, notes=(*spectrum.notes, left)) for spectrum in spectra]
    return spectra


def _scans(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the lines of each scan."""
    begins = [i for i, line in enumerate(lines) if line.startswith("#S ") and _SCAN.match(line)]
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        yield begin + 1, list(lines[begin:end])


def _scan(
    path: Path, first: int, lines: list[str], known: dict, wanted: Columns | None, *, ended: bool, cut: bool
) -> list[FileSpectrum]:
    head = {line[:2]: line[2:].strip() for line in lines if line.startswith(("#L", "#D", "#N"))}
    names = [name.strip() for name in re.split(r"\t|\s{2,}", head.get("#L", "")) if name.strip()]
    # An MCA spectrum, @A, spans several lines, all but the last ending in a backslash.
    kept = (
        re.sub(r"(?m)^@.*(?:\\\n.*)*$", "", "\n".join(lines)).split("\n")
        if any(line.startswith("@") for line in lines)
        else lines
    )
    rows = [line for line in kept if line.strip() and not line.startswith("#")]
    if len(rows) < 2:
        raise SpectrumFileError(f"{path}: found {len(rows)} points")
    table, notes, complete = parse_rows(path, kept, first, detect_style(rows[:100]), ended)
    if table.shape[1] != len(names):
        names = head.get("#L", "").split()
    if table.shape[1] != len(names):
        raise SpectrumFileError(f"{path}: found {len(names)} labels and {table.shape[1]} columns")
    intervals = _INTERVALS.fullmatch(str(known["title"]).partition(" ")[2])
    if intervals and len(table) != (points := int(intervals[1]) + 1):
        notes += (f"the scan announces {points} points, the file has {len(table)}",)
    known |= {"notes": notes, "complete": complete and not cut, "time": timestamp(head.get("#D", ""))}
    return spectra_in(ColumnTable(path, list(table.T), names, known=known), wanted)
