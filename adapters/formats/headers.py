"""What the header of a text file says: fields, names of columns, absorber, sample, time."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ...agent.fields import absorber
from .column_names import choose, plain

_FIELD_END = re.compile(r"[#%;!]\s*/{3,}")
_FIELD = re.compile(r"([A-Za-z][\w-]*\.[\w.-]+)\s*:\s*(.*)")
_RULE = re.compile(r"[-=_*+/\s#;%!.]*")
_TIMES = ("%a %b %d %H:%M:%S %Y", "%d-%b-%Y %H:%M:%S", "%b %d %Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%d-%b-%y %H:%M:%S")


def fields(header: Sequence[str]) -> dict[str, str]:
    """The fields ``Namespace.name: value`` of a header, keys in lower case.

    In XDI the last of several counts, and what stands below ``///`` is the user's own text (XDI/1.0, Header fields).
    """
    found: dict[str, str] = {}
    for line in header:
        if _FIELD_END.match(line.strip()):
            break
        if match := _FIELD.match(bare(line)):
            found[match[1].lower()] = match[2].strip()
    return found


def bare(line: str) -> str:
    """A header line without the mark it begins with."""
    return line.strip().lstrip("#%;! ").strip()


def labels(header: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    """Labels and units of ``count`` columns; both empty when the header does not name them.

    They are, by the first that serves: XDI's ``Column.N:``, a numbered legend (``P1={Energy} -->``, ``1) Energy *``),
    or the last line of as many words as there are columns of which one means an energy or an absorption.
    """
    said = fields(header)
    numbered = [said.get(f"column.{number}", "").split("||")[0] for number in range(1, count + 1)]
    if all(text.strip() for text in numbered):
        return _xdi_labels(numbered)
    legend = _legend(header)
    if len(legend) == count:
        return legend, [""] * count
    for line in reversed([line for line in header if not _RULE.fullmatch(line)][-12:]):
        for words in _splits(bare(line), count):
            if _tells(words):
                return words, [""] * count
    lines = [line for line in header if not _RULE.fullmatch(line)]
    last = [words for line in lines[-1:] for words in _splits(bare(line), count) if _words(words)]
    return (last[0], [""] * count) if last else ([], [])


def _xdi_labels(numbered: Sequence[str]) -> tuple[list[str], list[str]]:
    names, units = [], []
    for text in numbered:
        name, unit = plain(text)
        if not unit:
            name, _, unit = text.strip().partition(" ")
        names.append(name)
        units.append(unit.strip().strip("()[]").split(" ")[0])
    return names, units


def _legend(header: Sequence[str]) -> list[str]:
    """Labels of a legend: EPICS scans as GSECARS wrote them, and the LabVIEW panels of APS sectors 9 and 20."""
    found = [match[1] for line in header if (match := re.match(r"[;#]\s*[PD]\d+\s*=\s*\{(.*?)\}\s*-->", line))]
    if found:
        return [name.strip() for name in found]
    numbered: dict[int, str] = {}
    for line in header:
        if re.match(r"#\s*1\)", line) or (numbered and re.match(rf"#\s*{max(numbered) + 1}\)", line)):
            numbered |= {
                int(n): name.strip() for n, name in re.findall(r"(\d+)\)\s*(.*?)\s*(?:\*|(?=\s\d+\)|$))", line)
            }
    return [numbered[n] for n in sorted(numbered)] if sorted(numbered) == list(range(1, len(numbered) + 1)) else []


def _splits(line: str, count: int) -> list[list[str]]:
    """The line in ``count`` words, by each separator that gives so many; names may hold blanks, so tabs go first."""
    line = re.sub(r"\s+(?=[(\[])", "", re.sub(r"^[CL]\s+", "", line))  # a unit goes with its name
    ways = (
        [part.strip() for part in re.split(separator, line)] for separator in (r"\t", r"[,;]", r"\t+|\s{2,}", r"\s+")
    )
    return [words for words in ([word for word in way if word] for way in ways) if len(words) == count]


def _tells(words: Sequence[str]) -> bool:
    """Whether one of the words means an energy or an absorption."""
    found = choose([plain(word)[0] for word in words])
    roles = found.places.keys() | found.doubts.keys()
    return "energy" in roles or bool({"i0", "mu", "norm"} & roles and len(words) > 2)


def _words(words: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[A-Za-zμ][\w().\[\]/-]{0,24}", word) for word in words)


def about(header: Sequence[str]) -> dict[str, Any]:
    """What a header says of absorber, sample and start: ``element``, ``edge``, ``sample``, ``time`` (Unix s)."""
    said = fields(header)
    loose = _loose(header)
    element, edge = absorber(
        said.get("element.symbol") or loose.get("element"), said.get("element.edge") or loose.get("edge")
    )
    times = (
        said.get("scan.start_time"),
        *(loose.get(key) for key in ("start_time", "time_at_start", "start", "date")),
    )
    return {
        "element": element,
        "edge": edge,
        "sample": said.get("sample.name") or None,
        "time": next((moment for text in times if text and (moment := when(text)) is not None), None),
    }


def _loose(header: Sequence[str]) -> Mapping[str, str]:
    """Lines ``key: value`` and ``key=value``, keys in lower case with ``_`` between words."""
    found: dict[str, str] = {}
    for line in header:
        if match := re.match(r"([A-Za-z][\w ]{0,24}?)\s*[:=]\s*(.+)", bare(line)):
            found.setdefault(match[1].strip().lower().replace(" ", "_"), match[2].strip())
    return found


def when(text: str) -> float | None:
    """Unix seconds of a date and time, local where it names no zone; None where it cannot be told for sure.

    >>> when("2022-07-27T18:45:56Z"), when("07/08/2022 18:45")
    (1658947556.0, None)
    """
    text = " ".join(text.split())
    for read in (datetime.fromisoformat, *(lambda t, form=form: datetime.strptime(t, form) for form in _TIMES)):
        try:
            return read(text).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return None
