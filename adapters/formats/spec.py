"""SPEC files: many scans, of which those over the energy are spectra.

A reader of its own: silx, which has one, brings HDF5 and image codecs along and reads counters, not spectra; what is
needed here are the lines ``#S``, ``#N``, ``#L``, ``#D`` and the numbers below (Certified Scientific Software, spec
manual, "Standard data file format").
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .column_names import Columns
from .column_table import ColumnTable, spectrum_of
from .headers import when
from .spectrum import FileSpectrum, SpectrumFileError
from .text import TextFile, number_style, table_of

_SCAN = re.compile(r"#S\s+(\d+)\s*(.*)")


def is_spec(text: TextFile) -> bool:
    """Whether the first lines are those of a SPEC file: ``#F`` and a scan, or a scan with its labels."""
    head = text.lines[:500]
    scan = next((i for i, line in enumerate(head) if _SCAN.match(line)), None)
    return scan is not None and (
        any(line.startswith("#F ") for line in head[:scan]) or any(line.startswith("#L ") for line in head[scan:])
    )


def read_spec(path: Path, text: TextFile, wanted: Columns | None = None) -> list[FileSpectrum]:
    """A spectrum for each scan that has an energy and an absorption; ``notes`` count the others.

    Raises:
        SpectrumFileError: no scan has both.
    """
    found: list[FileSpectrum] = []
    reasons: list[str] = []
    seen: Counter[str] = Counter()
    scans = list(_scans(text.lines))
    for first, lines in scans:
        number, command = _SCAN.match(lines[0]).groups()  # type: ignore[union-attr] - that is how it was found
        seen[number] += 1
        label = number if seen[number] == 1 else f"{number}.{seen[number]}"
        known = {"id": f"{path.name}:{label}", "row": len(found), "title": f"{number} {command}".strip()}
        last = first + len(lines) - 1 == len(text.lines)
        try:
            found.append(
                _scan(path, first, lines, known, wanted, ended=text.ended or not last, cut=text.cut and last)
            )
        except SpectrumFileError as error:
            reasons.append(f"scan {label}: {str(error).removeprefix(f'{path}: ')}")
    if not found:
        raise SpectrumFileError(f"{path}: found {len(scans)} scans, none of them a spectrum; {reasons[0]}")
    if reasons:
        left = f"{len(reasons)} of {len(scans)} scans left out, such as {reasons[0][:200]}"
        found = [replace(spectrum, notes=(*spectrum.notes, left)) for spectrum in found]
    return found


def _scans(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The scans, each its lines and the number of its first line."""
    begins = [i for i, line in enumerate(lines) if line.startswith("#S ") and _SCAN.match(line)]
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        yield begin + 1, list(lines[begin:end])


def _scan(
    path: Path, first: int, lines: list[str], known: dict, wanted: Columns | None, *, ended: bool, cut: bool
) -> FileSpectrum:
    head = {line[:2]: line[2:].strip() for line in lines if line.startswith(("#L", "#D", "#N"))}
    names = [name.strip() for name in re.split(r"\t|\s{2,}", head.get("#L", "")) if name.strip()]
    # An MCA's spectrum, @A, goes over several lines, all but the last ending in a backslash.
    kept = (
        re.sub(r"(?m)^@.*(?:\\\n.*)*$", "", "\n".join(lines)).split("\n")
        if any(line.startswith("@") for line in lines)
        else lines
    )
    rows = [line for line in kept if line.strip() and not line.startswith("#")]
    if len(rows) < 2:
        raise SpectrumFileError(f"{path}: found {len(rows)} points")
    table, notes, complete = table_of(path, kept, first, number_style(rows[:100]), ended)
    if table.shape[1] != len(names):
        names = head.get("#L", "").split()
    if table.shape[1] != len(names):
        raise SpectrumFileError(f"{path}: found {len(names)} labels and {table.shape[1]} columns")
    known |= {"notes": notes, "complete": complete and not cut, "time": when(head.get("#D", ""))}
    return spectrum_of(ColumnTable(path, list(table.T), names, known=known), wanted)
