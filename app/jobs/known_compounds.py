"""Reads measured spectra of known compounds that a table lists."""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ...adapters.formats import Columns, FileSpectrum, read_spectra
from ...adapters.xray_tables import elements
from ...agent.types import ELEMENTS, InputError, TableError, decoded, get_logger

Kind = Literal["oxide", "metal", "sulphide", "phosphide", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_OTHER_SPELLINGS = {"sulfide": "sulphide"}
_NEEDED = ("file", "element", "compound", "OS")
_METAL = re.compile(r"\b(metal|foil)\b", re.IGNORECASE)
_FIRST_WORD = re.compile(r"[^\s,;]*")
_LEAST_OS, _GREATEST_OS = -4, 9
"""Range of the oxidation states of the elements, e."""
_NAMED = 5
"""Number of files that a message lists."""

_log = get_logger()


@dataclass(frozen=True)
class KnownCompound:
    """One row of the table: a file, and the known properties of its compound."""

    path: Path
    element: str
    """Symbol of the absorber."""
    compound: str
    kind: Kind
    os: float | None = None
    """Mean oxidation state of the absorber, e; None if unknown."""
    cn: float | None = None
    """Number of first neighbours; None if unknown."""
    shift_ev: float | None = None
    """Energy shift of the measurement, eV; None if the table states none."""
    scan: str = ""
    """Id or title of the spectrum in a file with several; empty if the file has one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """All columns of the row, as in the table."""

    @property
    def name(self) -> str:
        return f"{self.compound}, {self.path.name}" + (f" {self.scan}" if self.scan else "")

    @property
    def is_judged(self) -> bool:
        """Whether the oxidation state is judged: it is known, and the compound counts as an oxide."""
        return self.kind == "oxide" and self.os is not None

    @property
    def must_be_flagged(self) -> bool:
        """Whether the models cannot know the compound, so that a flag is required."""
        return self.kind in ("metal", "sulphide", "phosphide")

    def spectrum(self, columns: Columns | None = None) -> FileSpectrum:
        """Read the spectrum.

        Raises
        ------
        InputError
            The file cannot be read, or has several spectra and none is selected.
        """
        found = read_spectra(self.path, columns=columns)
        for note in dict.fromkeys(note for spectrum in found for note in spectrum.notes):
            _log.warning("read", file=str(self.path), note=note)
        prefix = f"{self.path.name}:"
        chosen = [s for s in found if self.scan in ("", s.id, s.id.removeprefix(prefix), s.title)]
        if len(chosen) == 1:
            return chosen[0]
        ids = ", ".join(spectrum.id for spectrum in found[:_NAMED])
        wanted = f"expected {self.scan!r} of column scan" if self.scan else "name one in a column scan"
        raise InputError(f"found {len(found)} spectra ({ids}); {wanted}")


def read_known(table: Path, folder: Path | None = None) -> list[KnownCompound]:
    """Read a table of measured spectra of known compounds.

    Parameters
    ----------
    table : Path
        CSV with the columns ``file``, ``element``, ``compound`` and ``OS`` (e, may be empty) and optionally ``CN``,
        ``class`` (one of ``KINDS``), ``shift_ev`` (eV) and ``scan``; others are kept. Separators are commas,
        semicolons or tabs; with semicolons or tabs, numbers may have decimal commas.
    folder : Path, optional
        Folder of the files; by default that of the table.

    Returns
    -------
    list of KnownCompound
        In the order of the table.

    Raises
    ------
    InputError
        The table or a file is missing, a column is missing or occurs twice, a row has more cells than the header, or
        a cell is invalid in its column.
    """
    try:
        text, _ = decoded(table.read_bytes())
    except OSError as error:
        raise InputError(f"{table}: {error.strerror}; expected a CSV with columns {', '.join(_NEEDED)}") from None
    if "\0" in text:  # such as a workbook of Excel
        raise InputError(f"{table}: found a binary file, expected a CSV with columns {', '.join(_NEEDED)}")
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=None), delimiter=separator, restval="")
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in _NEEDED if name not in reader.fieldnames]:
        found = ", ".join(reader.fieldnames) or "none"
        raise InputError(f"{table}: no column {', '.join(missing)}; found {found}, expected {', '.join(_NEEDED)}")
    if twice := sorted({name for name in reader.fieldnames if name and reader.fieldnames.count(name) > 1}):
        raise InputError(f"{table}: several columns {', '.join(twice)}; expected one of each name")
    folder = table.parent if folder is None else folder
    comma = separator != ","  # semicolons often go with decimal commas
    rows = [_known(row, folder, comma, f"{table}, line {reader.line_num}") for row in reader if row["file"].strip()]
    if not rows:
        raise InputError(f"{table}: found no row with a file")
    if absent := [row.path for row in rows if not row.path.is_file()]:
        names = ", ".join(path.name for path in absent[:_NAMED])
        more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
        where = f"no such file in {absent[0].parent}; name the folder of the spectra with --spectra"
        raise InputError(f"{table}: {names}{more}: {where}")
    return rows


def _known(row: Mapping[str | Any, str | Any], folder: Path, comma: bool, where: str) -> KnownCompound:
    """Return the compound of a row; with ``comma``, its numbers may have decimal commas."""
    if any(row.get(None, ())):  # for example by a decimal comma: 2,667 would be read as 2
        raise InputError(f"{where}: more cells than columns; put a cell that has the separator between quotes")
    cells = {name: value.strip() for name, value in row.items() if name}
    element, compound = cells["element"], cells["compound"]
    if element not in ELEMENTS:
        raise InputError(f"{where}, element: found {element!r}, expected the symbol of an element, such as Fe")
    os, cn, shift_ev = (_number(cells.get(name, ""), comma, f"{where}, {name}") for name in ("OS", "CN", "shift_ev"))
    if os is not None and not _LEAST_OS <= os <= _GREATEST_OS:
        expected = f"expected a mean oxidation state from {_LEAST_OS} to {_GREATEST_OS} e"
        raise InputError(f"{where}, OS: found {os:g}, {expected}")
    if (symbols := _elements_of(compound)) and element not in symbols:
        _log.warning("the compound lacks the element", row=where, element=element, compound=compound)
    kind = _kind(cells.get("class", ""), compound, os, f"{where}, class")
    scan = cells.get("scan", "")
    return KnownCompound(folder / cells["file"], element, compound, kind, os, cn, shift_ev, scan, cells)


def _number(text: str, comma: bool, where: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text.replace(",", ".") if comma else text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: found {text!r}, expected a number such as 2.667, or nothing")
    return number


def _kind(given: str, compound: str, os: float | None, where: str) -> Kind:
    """Return the given class or, without one, that of the formula at the beginning of the compound's name.

    A name without a formula, such as diopside, counts as an oxide if its oxidation state is known.
    """
    if given:
        given = _OTHER_SPELLINGS.get(given.lower(), given.lower())
        for kind in KINDS:
            if kind == given:
                return kind
        raise InputError(f"{where}: found {given!r}, expected {', '.join(KINDS)}, or nothing")
    symbols = _elements_of(compound)
    if _METAL.search(compound) or os == 0 or len(symbols) == 1:
        return "metal"
    if "O" in symbols or (not symbols and os is not None):
        return "oxide"
    return "sulphide" if "S" in symbols else "phosphide" if "P" in symbols else "other"


def _elements_of(compound: str) -> frozenset[str]:
    """Return the elements of the formula at the beginning of a text; empty if it begins with another word.

    >>> sorted(_elements_of("Fe₂(SO₄)₃ powder")), sorted(_elements_of("diopside"))
    (['Fe', 'O', 'S'], [])
    """
    word = _FIRST_WORD.match(unicodedata.normalize("NFKC", compound))
    try:
        return elements(word[0] if word else "")
    except TableError:
        return frozenset()


def elements_of(known: Sequence[KnownCompound]) -> list[str]:
    """Return the absorbers, each once, in the order of their atomic numbers."""
    return sorted({one.element for one in known}, key=ELEMENTS.index)
