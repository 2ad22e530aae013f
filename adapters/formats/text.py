"""Text to header lines and numbers, whatever its encoding, separators and decimal marks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ...agent.types import Array
from .spectrum import SpectrumFileError

COMMENTS = ("#", "%", ";", "!")
MAX_LINES = 10_000_000
"""Most lines of a file: each takes many times its own length in memory."""
SAMPLED = 200
"""Lines from which separators and decimal marks are told."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.I)
_COMMA_NUMBER = re.compile(r"[+-]?(\d+(,\d+)?|,\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.I)
_SEPARATOR = re.compile(r"[;\t ]+")
_NUMERIC_START = re.compile(r"\s*[+-]?(\d|[.,]\d|nan\b|inf)", re.I)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file's lines."""

    lines: list[str]
    notes: tuple[str, ...]
    ended: bool
    """Whether the last line has its end."""
    cut: bool = False
    """Whether the bytes are known to break off."""


@dataclass(frozen=True, slots=True)
class NumberBlock:
    """Lines of numbers under a header."""

    header: list[str]
    """Lines before the numbers, with their marks."""
    table: Array
    """(M, C)."""
    notes: tuple[str, ...]
    complete: bool
    """False where the last line is cut off."""


def decode(path: Path, raw: bytes, cut: str | None = None) -> TextFile:
    """Tell the encoding: UTF-8, UTF-16 (with or without its mark), else Latin-1.

    Args:
        cut: how the bytes break off, where that is known.

    Raises:
        SpectrumFileError: it is no text, or one of too many lines.
    """
    notes: tuple[str, ...] = ()
    wide = _utf16(raw)
    if wide:
        text = raw[: len(raw) // 2 * 2].decode(wide, errors="replace")
        notes = (f"read as {wide.upper()}",) if raw[:2] not in (b"\xff\xfe", b"\xfe\xff") else ()
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if cut and error.start > len(raw) - 4:
                text = raw[: error.start].decode("utf-8-sig")
            else:
                text, notes = raw.decode("latin-1"), ("not UTF-8: read as Latin-1",)
    sample = text[:65536]
    if "\0" in text or len(_CONTROLS.findall(sample)) > len(sample) // 200:
        raise SpectrumFileError(f"{path}: found a binary file, expected text columns, .npz or HDF5")
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip("\ufeff\x1a")
    if (count := text.count("\n")) > MAX_LINES:
        raise SpectrumFileError(f"{path}: found {count} lines, expected at most {MAX_LINES}")
    lines = text.split("\n")
    return TextFile(lines, (*notes, cut) if cut else notes, ended=lines[-1] == "", cut=cut is not None)


def _utf16(raw: bytes) -> str | None:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    sample = np.frombuffer(raw[: min(len(raw), 4096) // 2 * 2], np.uint8).reshape(-1, 2)
    if len(sample) < 8:
        return None
    zeros = (sample == 0).mean(axis=0)
    if zeros[1] > 0.9 and zeros[0] < 0.1:
        return "utf-16-le"
    return "utf-16-be" if zeros[0] > 0.9 and zeros[1] < 0.1 else None


def numbers(path: Path, text: TextFile, expected: str) -> NumberBlock:
    """Split a file into the header and the one table of numbers below it.

    The table begins where two lines running have equally many numbers, two or more. Comments within and empty lines
    are passed over.

    Raises:
        SpectrumFileError: no table, or lines that do not fit it, the last one excepted where it is cut off.
    """
    begin, marks = _begin(path, text.lines, expected)
    header = text.lines[:begin]
    lost = [line for line in header if not line.strip().startswith(COMMENTS) and _row(line, marks)]
    notes = text.notes + marks.notes
    if lost:
        notes += (f"numbers above the table left out: {lost[0].strip()[:40]!r}",)
    table, more, complete = table_of(path, text.lines[begin:], begin + 1, marks, text.ended)
    return NumberBlock(header, table, notes + more, complete and not text.cut)


def table_of(
    path: Path, lines: Sequence[str], first: int, marks: "NumberStyle", ended: bool
) -> tuple[Array, tuple[str, ...], bool]:
    """The numbers of lines, (M, C), what was left out of them, and whether the last line is whole.

    Args:
        first: number of the first line in the file, for messages.
        ended: whether the last line has its end.
    """
    kept = [line for line in lines if line and not line.isspace() and not line.lstrip().startswith(COMMENTS)]
    notes: tuple[str, ...] = ()
    complete = True
    if not ended and len(kept) > 1 and lines and kept[-1] is lines[-1]:
        if _cut(kept, marks):
            notes = (f"the file breaks off in its last line, which is left out: {kept[-1].strip()[:60]!r}",)
            kept, complete = kept[:-1], False
            if len(kept) < 2:
                raise SpectrumFileError(
                    f"{path}: line {first}: found 1 rows of numbers, expected a table; {notes[0]}"
                )
        else:
            notes = ("the last line has no end; taken as it stands",)
    try:
        table = np.loadtxt(marks.normal(kept), ndmin=2, comments=None, encoding=None)
    except ValueError:
        number, found, wanted = _misfit(lines, first, marks)
        raise SpectrumFileError(f"{path}: line {number}: found {found}, expected {wanted}") from None
    return table, notes, complete


@dataclass(frozen=True, slots=True)
class NumberStyle:
    """How the numbers of a file are written."""

    decimal_comma: bool = False
    empty_fields: bool = False
    """Whether nothing between two separators stands for a missing number."""
    fortran: bool = False
    """Whether exponents are written with D."""
    quoted: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        return ("commas read as decimal marks",) if self.decimal_comma else ()

    def normal(self, lines: Sequence[str]) -> Sequence[str]:
        """The lines with blanks between their numbers and decimal points in them."""
        if not (self.decimal_comma or self.fortran or self.quoted) and "," not in lines[0] and ";" not in lines[0]:
            return lines
        text = "\n".join(lines)
        if self.quoted:
            text = text.replace('"', "")
        if self.empty_fields:
            between = ";" if self.decimal_comma else "[,;]"
            text = re.sub(rf"({between})(?=[ \t]*{between})", r"\1nan", text)
        text = text.replace(";", " ").replace(",", "." if self.decimal_comma else " ")
        return (re.sub("[dD](?=[+-]?[0-9])", "e", text) if self.fortran else text).split("\n")


def number_style(lines: Sequence[str]) -> NumberStyle:
    """Tell how numbers are written from a sample of lines, of which some may be none of numbers."""
    sample = [line.replace('"', "").strip() for line in lines]
    decimal_comma = _decimal_comma(sample)
    between = r";[ \t]*;" if decimal_comma else r"[,;][ \t]*[,;]"
    return NumberStyle(
        decimal_comma,
        empty_fields=any(re.search(between, line) for line in sample),
        fortran=any(re.search(r"\d[dD][+-]?\d", line) for line in sample),
        quoted=any('"' in line for line in lines),
    )


def _decimal_comma(sample: Sequence[str]) -> bool:
    """Whether commas stand within numbers: others separate them, and more lines make sense so than with points."""
    commas = points = 0
    for line in sample:
        tokens = [token for token in _SEPARATOR.split(line) if token]
        commas += len(tokens) > 1 and "," in line and all(_COMMA_NUMBER.fullmatch(token) for token in tokens)
        points += "." in line and _row(line, NumberStyle()) > 1
    return commas > points


def _row(line: str, marks: NumberStyle) -> int:
    """How many numbers a line consists of; 0 where anything else is in it."""
    if not _NUMERIC_START.match(line.lstrip('" \t')) and line[:1] not in ",;":
        return 0
    tokens = marks.normal([line])[0].split()
    return len(tokens) if all(_NUMBER.fullmatch(token) for token in tokens) else 0


def _begin(path: Path, lines: Sequence[str], expected: str) -> tuple[int, NumberStyle]:
    """The line at which the table begins, and how its numbers are written."""
    sample = islice((line for line in lines if _NUMERIC_START.match(line.lstrip('" \t'))), 2 * SAMPLED)
    marks = number_style(list(sample))
    before, last = -1, 0
    found: list[int] = []
    for i, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        count = _row(line, marks)
        if count > 1 and count == last:
            return before, marks
        found += [count] * (count > 0)
        before, last = i, count
    if len(found) > 1 and found[-1] != found[-2]:
        number, what, wanted = _misfit(lines, 1, marks)
        raise SpectrumFileError(f"{path}: line {number}: found {what}, expected {wanted}")
    raise SpectrumFileError(f"{path}: found {len(found)} rows of numbers, {expected}")


def _cut(kept: Sequence[str], marks: NumberStyle) -> bool:
    """Whether the last of the lines, which has no end, has lost part of its numbers.

    It has where it holds fewer numbers than the one before, a broken one, or a last number that is shorter than
    that of every other line.
    """
    *others, last = marks.normal([*kept[-SAMPLED - 1 : -1], kept[-1]])
    tokens = last.split()
    ends = [line.split() for line in others]
    if len(tokens) < len(ends[-1]) or not all(_NUMBER.fullmatch(token) for token in tokens):
        return True
    return len(tokens) == len(ends[-1]) and len(tokens[-1]) < min(len(row[-1]) for row in ends if row)


def _misfit(lines: Sequence[str], first: int, marks: NumberStyle) -> tuple[int, str, str]:
    """The first line that does not fit those above: its number, what was found and what was expected."""
    wanted = 0
    for number, line in enumerate(lines, first):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        count = _row(line, marks)
        if not count and wanted:
            return number, repr(line.strip()[:60]), "numbers"
        if wanted and count != wanted:
            return number, f"{count} values", f"{wanted} as above"
        wanted = wanted or count
    return first, "numbers that cannot be read", "decimal numbers"
