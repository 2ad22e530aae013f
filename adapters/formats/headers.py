"""Reads the header of a text file: fields, labels of the columns, absorber, sample, time."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ...agent.fields import find_no_foil, parse_absorber
from .column_names import choose_columns, split_label

_FIELD_END = re.compile(r"[#%;!]\s*/{3,}")
_FIELD = re.compile(r"([A-Za-z][\w-]*\.[\w.-]+)\s*:\s*(.*)")
_RULE = re.compile(r"[-=_*+/\s#;%!.]*")
_TIMES = ("%a %b %d %H:%M:%S %Y", "%d-%b-%Y %H:%M:%S", "%b %d %Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%d-%b-%y %H:%M:%S")


def fields(header: Sequence[str]) -> dict[str, str]:
    """Return the fields ``Namespace.name: value`` of a header, with keys in lower case.

    In XDI the last of several equal fields is valid, and the lines below ``///`` are the user's comments (XDI/1.0,
    Header fields).
    """
    found: dict[str, str] = {}
    for line in header:
        if _FIELD_END.match(line.strip()):
            break
        if match := _FIELD.match(without_mark(line)):
            found[match[1].lower()] = match[2].strip()
    return found


def without_mark(line: str) -> str:
    """Return a header line without its comment mark."""
    return line.strip().lstrip("#%;! ").strip()


def labels(header: Sequence[str], count: int, indexed: bool = False) -> tuple[list[str], list[str]]:
    """Return labels and units of ``count`` columns; both are empty if the header does not contain them.

    ``indexed`` tells whether the first column counts the rows and may lack a label.

    The first of these that exists is used: XDI's ``Column.N:``, a numbered legend (``P1={Energy} -->``,
    ``1) Energy *``), or the last line with one word per column that names an energy or an absorption.
    """
    written = fields(header)
    numbered = [written.get(f"column.{number}", "").split("||")[0] for number in range(1, count + 1)]
    if all(text.strip() for text in numbered):
        return _xdi_labels(numbered)
    legend = _legend(header)
    if len(legend) == count:
        return legend, [""] * count
    for line in reversed([line for line in header if not _RULE.fullmatch(line)][-12:]):
        for words in _splits(line, count, indexed):
            if _names_a_spectrum(words):
                return words, [""] * count
    lines = [line for line in header if not _RULE.fullmatch(line)]
    last = [words for line in lines[-1:] for words in _splits(line, count, indexed) if _words(words)]
    return (last[0], [""] * count) if last else ([], [])


def _xdi_labels(numbered: Sequence[str]) -> tuple[list[str], list[str]]:
    names, units = [], []
    for text in numbered:
        name, unit = split_label(text)
        if not unit:
            name, _, unit = text.strip().partition(" ")
        names.append(name)
        units.append(unit.strip().strip("()[]").split(" ")[0])
    return names, units


def _legend(header: Sequence[str]) -> list[str]:
    """Return the labels of a legend: scans of GSECARS, LabVIEW panels of APS sectors 9 and 20, CLS, NSLS X11."""
    found = [match[1] for line in header if (match := re.match(r"[;#]\s*[PD]\d+\s*=\s*\{(.*?)\}\s*-->", line))]
    if found:
        return [name.strip() for name in found]
    if events := [line for line in header if re.match(r"#\(1\)\s", line)]:  # CLS: the columns of event 1
        return [
            re.sub(r"\$\((\w+)\)", r"\1", quoted or word)
            for quoted, word in re.findall(r'"([^"]*)"|(\S+)', events[-1][4:])
        ]
    if detectors := [line for line in header if re.match(r"DETECTORS\s*[A-Za-z]", line)]:  # NSLS X11
        return ["energy", *detectors[-1].removeprefix("DETECTORS").split()]
    numbered: dict[int, str] = {}
    for line in header:
        if re.match(r"#\s*1\)", line) or (numbered and re.match(r"#\s*\d+\)", line)):
            numbered |= {
                int(n): name.strip() for n, name in re.findall(r"(\d+)\)\s*(.*?)\s*(?:\*|(?=\s\d+\)|$))", line)
            }
    return [numbered[n] for n in sorted(numbered)] if sorted(numbered) == list(range(1, len(numbered) + 1)) else []


def _splits(line: str, count: int, indexed: bool) -> list[list[str]]:
    """Return the line split into ``count`` words, for each separator that gives this number.

    Names may contain blanks, so that tabs are tried first. LabVIEW panels mark positioners by ``*``. The label of an
    index may be empty or missing, as in files of pandas and R.
    """
    written = re.sub(r"^[CL]\s+", "", without_mark(line))
    written = re.sub(r"\s+(?=[(\[])", "", written)  # keep a unit with its name
    found: list[list[str]] = []
    for separator in (r"\t", r"[,;]", r"\s*\*\s+|\s*\*$|\t+|\s{2,}", r"\s+"):
        words = [word for part in re.split(separator, written) if (word := part.strip())]
        parts = [without_mark(part) for part in re.split(separator, line.rstrip("\n"))]
        for some in (words, parts if separator in (r"\t", r"[,;]") else [], ["", *words] if indexed else []):
            if len(some) == count and some not in found:
                found.append(some)
    return found


def _names_a_spectrum(words: Sequence[str]) -> bool:
    """Return whether one of the words names an energy or an absorption."""
    choice = choose_columns([split_label(word)[0] for word in words])
    roles = choice.places.keys() | choice.doubts.keys()
    return "energy" in roles or bool({"i0", "mu", "normalised"} & roles and len(words) > 2)


def _words(words: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[A-Za-zμµ][\w().\[\]/-]{0,24}", word) for word in words)


def scan_metadata(header: Sequence[str]) -> dict[str, Any]:
    """Return ``element``, ``edge``, ``sample`` and ``time`` (start, Unix s) of a header; None if missing."""
    written = fields(header)
    loose = _loose(header)
    element, edge = parse_absorber(
        written.get("element.symbol") or written.get("scanparameters.element") or loose.get("element"),
        written.get("element.edge") or written.get("scanparameters.edge") or loose.get("edge"),
    )
    times = (
        written.get("scan.start_time"),
        *(loose.get(key) for key in ("start_time", "time_at_start", "start", "date")),
    )
    return {
        "element": element,
        "edge": edge,
        "sample": written.get("sample.name") or None,
        "time": next((moment for text in times if text and (moment := timestamp(text)) is not None), None),
    }


def no_foil(header: Sequence[str]) -> str:
    """Return the line in which a header states that no reference foil is in place; empty if there is none."""
    return find_no_foil({**_loose(header), **fields(header)}) or ""


def _loose(header: Sequence[str]) -> Mapping[str, str]:
    """Return the lines ``key: value`` and ``key=value``, keys in lower case with ``_`` between words."""
    found: dict[str, str] = {}
    for line in header:
        if match := re.match(r"([A-Za-z][\w ]{0,24}?)\s*[:=]\s*(.+)", without_mark(line)):
            found.setdefault(match[1].strip().lower().replace(" ", "_"), match[2].strip())
    return found


def timestamp(text: str) -> float | None:
    """Return a date and time as Unix s; without a zone, it is local time. None if the text is ambiguous.

    >>> timestamp("2022-07-27T18:45:56Z"), timestamp("07/08/2022 18:45")
    (1658947556.0, None)
    """
    text = " ".join(text.split())
    for read in (datetime.fromisoformat, *(lambda t, form=form: datetime.strptime(t, form) for form in _TIMES)):
        try:
            return read(text).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return None
