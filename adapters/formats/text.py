"""Reads text files: header lines and a block of numbers, in any encoding, with any separators and decimal marks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ...agent.types import Array, decoded
from .doubts import doubt_rows
from .spectrum import SpectrumFileError

COMMENTS = ("#", "%", ";", "!")
MAX_LINES = 10_000_000
"""Largest number of lines in a file; each line takes many times its own length in memory."""
SAMPLED = 200
"""Number of lines from which separators and decimal marks are detected."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.I)
_COMMA_NUMBER = re.compile(r"[+-]?(\d+(,\d+)?|,\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.I)
_SEPARATOR = re.compile(r"[;\t ]+")
_NUMERIC_START = re.compile(r"\s*[+-]?(\d|[.,]\d|nan\b|inf)", re.I)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class TextFile:
    """Lines of a text file."""

    lines: list[str]
    notes: tuple[str, ...]
    ended: bool
    """Whether the last line ends with a line break."""
    cut: bool = False
    """Whether the bytes are known to end early."""


@dataclass(frozen=True, slots=True)
class NumberBlock:
    """A header and the block of numbers below it."""

    header: list[str]
    """Lines before the numbers, with their comment marks."""
    table: Array
    """(M, C) numbers of C columns."""
    notes: tuple[str, ...]
    complete: bool
    """False if the last line is incomplete."""


def decode(path: Path, raw: bytes, cut: str | None = None) -> TextFile:
    """Decode a text file as UTF-8, UTF-16 (with or without byte order mark), or else Latin-1.

    Parameters
    ----------
    path : Path
    raw : bytes
    cut : str, optional
        How the bytes end early, if known.

    Returns
    -------
    TextFile

    Raises
    ------
    SpectrumFileError
        The file is binary or has too many lines.
    """
    text, note = decoded(raw, cut=cut is not None)
    notes = (note,) if note else ()
    sample = text[:65536]
    if "\0" in text or len(_CONTROLS.findall(sample)) > len(sample) // 200:
        raise SpectrumFileError(f"{path}: found a binary file, expected text columns, .npz or HDF5")
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip("\ufeff")
    if text.rstrip("\n").endswith("\x1a"):  # the end of a file of DOS
        text = text.rstrip("\n\x1a") + "\n"
    if (count := text.count("\n")) > MAX_LINES:
        raise SpectrumFileError(f"{path}: found {count} lines, expected at most {MAX_LINES}")
    lines = text.split("\n")
    return TextFile(lines, (*notes, cut) if cut else notes, ended=lines[-1] == "", cut=cut is not None)


def number_block(path: Path, text: TextFile, expected: str) -> NumberBlock:
    """Split a file into the header and the block of numbers below it.

    The block begins at the first two consecutive lines with the same count of numbers, at least two. Comments and
    empty lines within the block are skipped.

    Parameters
    ----------
    path : Path
    text : TextFile
    expected : str
        What the file should contain, for the error message.

    Returns
    -------
    NumberBlock

    Raises
    ------
    SpectrumFileError
        There is no block, or a line of it has another count of numbers; an incomplete last line is left out.
    """
    try:
        begin, style = _find_block(path, text.lines, expected)
    except SpectrumFileError:
        if (numbers := _without_words(text)) is None:
            raise
        text = numbers
        begin, style = _find_block(path, text.lines, expected)
    _refuse_unreadable_rows(path, text.lines, begin, style)
    header = text.lines[:begin]
    lost = [line for line in header if not line.strip().startswith(COMMENTS) and _count(line, style)]
    notes = text.notes + style.notes
    if lost:
        notes += (f"numbers above the table are left out: {lost[0].strip()[:40]!r}",)
    table, more, complete = parse_rows(path, text.lines[begin:], begin + 1, style, text.ended)
    return NumberBlock(header, table, notes + more, complete and not text.cut)


def parse_rows(
    path: Path, lines: Sequence[str], first: int, style: "NumberStyle", ended: bool
) -> tuple[Array, tuple[str, ...], bool]:
    """Parse lines of numbers.

    Parameters
    ----------
    path : Path
        The file, for messages.
    lines : sequence of str
    first : int
        Number of the first line in the file, for messages.
    style : NumberStyle
    ended : bool
        Whether the last line ends with a line break.

    Returns
    -------
    table : ndarray, (M, C)
    notes : tuple of str
        What is left out, and what may be damaged.
    complete : bool
        Whether the last line is complete.

    Raises
    ------
    SpectrumFileError
        A line has another count of numbers than the line above it.
    """
    kept = [line for line in lines if line and not line.isspace() and not line.lstrip().startswith(COMMENTS)]
    notes: tuple[str, ...] = ()
    complete = True
    if not ended and len(kept) > 1 and lines and kept[-1] is lines[-1]:
        if _is_incomplete(kept, style):
            notes = (f"the file ends within its last line, which is left out: {kept[-1].strip()[:60]!r}",)
            kept, complete = kept[:-1], False
            if len(kept) < 2:
                raise SpectrumFileError(
                    f"{path}: line {first}: found 1 rows of numbers, expected a table; {notes[0]}"
                )
        else:
            notes = ("the last line has no line break; it is read as it is",)
    rows = style.normal(kept)
    try:
        table = np.loadtxt(rows, ndmin=2, comments=None, encoding=None)
    except ValueError:
        raise _misfit(path, lines, first, style) from None
    return table, notes + doubt_rows(rows, table), complete


@dataclass(frozen=True, slots=True)
class NumberStyle:
    """The notation of the numbers in a file."""

    decimal_comma: bool = False
    empty_fields: bool = False
    """Whether an empty field between two separators stands for a missing number."""
    fortran: bool = False
    """Whether exponents are written with the letter D."""
    quoted: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        return ("commas are read as decimal marks",) if self.decimal_comma else ()

    def normal(self, lines: Sequence[str]) -> Sequence[str]:
        """Return the lines with blanks as separators and points as decimal marks."""
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


def detect_style(lines: Sequence[str]) -> NumberStyle:
    """Detect the notation of numbers from a sample of lines, some of which may contain no numbers."""
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
    """Return whether commas are decimal marks: more lines then parse as several numbers than with points."""
    commas = points = 0
    for line in sample:
        tokens = [token for token in _SEPARATOR.split(line) if token]
        commas += len(tokens) > 1 and "," in line and all(_COMMA_NUMBER.fullmatch(token) for token in tokens)
        points += "." in line and _count(line, NumberStyle()) > 1
    return commas > points


def _count(line: str, style: NumberStyle) -> int:
    """Return the count of numbers in a line; 0 if the line contains anything else."""
    if not _NUMERIC_START.match(line.lstrip('" \t')) and line[:1] not in ",;":
        return 0
    tokens = style.normal([line])[0].split()
    return len(tokens) if all(_NUMBER.fullmatch(token) for token in tokens) else 0


def _find_block(path: Path, lines: Sequence[str], expected: str) -> tuple[int, NumberStyle]:
    """Return the index of the line at which the block of numbers begins, and the notation of its numbers."""
    sample = islice((line for line in lines if _NUMERIC_START.match(line.lstrip('" \t'))), 2 * SAMPLED)
    style = detect_style(list(sample))
    before, last = -1, 0
    counts: list[int] = []
    for i, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        count = _count(line, style)
        if count > 1 and count == last:
            return before, style
        counts += [count] * (count > 0)
        before, last = i, count
    if len(counts) > 1 and counts[-1] != counts[-2]:
        raise _misfit(path, lines, 1, style)
    raise SpectrumFileError(f"{path}: found {len(counts)} rows of numbers, {expected}")


def _refuse_unreadable_rows(path: Path, lines: Sequence[str], begin: int, style: NumberStyle) -> None:
    """Refuse a row directly above the block that differs from it only in values that are not numbers."""
    columns = _count(lines[begin], style)
    above = [line for line in lines[: begin - 1] if line.strip() and not line.lstrip().startswith(COMMENTS)]
    words_above = any(not _count(line, style) for line in above)
    commas = "," in lines[begin]
    for i in range(begin - 1, -1, -1):
        values = (style.normal([lines[i]])[0] if commas else lines[i]).split()
        numbers = [bool(_NUMBER.fullmatch(value)) for value in values]
        if len(values) != columns or all(numbers) or lines[i].lstrip().startswith(COMMENTS):
            return
        if numbers[0] or (sum(numbers) >= columns / 2 and not words_above):
            raise SpectrumFileError(f"{path}: line {i + 1}: found {lines[i].strip()[:60]!r}, expected numbers")


def _without_words(text: TextFile) -> TextFile | None:
    """Replace the values of columns without numbers, such as dates, by NaN; None if there is no such column.

    The columns are those of two rows near the end, since the last one may be incomplete.
    """
    rows = [line for line in text.lines if line.strip() and not line.lstrip().startswith(COMMENTS)][-3:]
    if len(rows) < 3:
        return None
    for separator in ("\t", ";", ",", None):
        first, second = ([_is_number(cell) for cell in row.split(separator)] for row in rows[:2])
        words = [i for i, numeric in enumerate(first) if not numeric]
        if first == second and words and len(first) - len(words) >= 2:
            break
    else:
        return None
    notes = tuple(
        f"column {i + 1} contains no numbers and is left out: {rows[0].split(separator)[i].strip()[:30]!r}"
        for i in words
    )
    lines = [_blank_out(line, separator, words, len(first)) for line in text.lines]
    return replace(text, lines=lines, notes=(*text.notes, *notes))


def _is_number(cell: str) -> bool:
    cell = cell.strip().strip('"')
    return not cell or bool(_NUMBER.fullmatch(cell) or _COMMA_NUMBER.fullmatch(cell))


def _blank_out(line: str, separator: str | None, words: Sequence[int], count: int) -> str:
    """Return a row with NaN in place of its words; other lines are unchanged."""
    cells = line.split(separator)
    others = [cell for i, cell in enumerate(cells) if i not in words]
    if len(cells) != count or line.lstrip().startswith(COMMENTS) or not all(map(_is_number, others)):
        return line
    return (separator or " ").join("nan" if i in words else cell for i, cell in enumerate(cells))


def _is_incomplete(kept: Sequence[str], style: NumberStyle) -> bool:
    """Return whether the last line, which has no line break, lacks part of its numbers.

    This holds if it has fewer numbers than the line before, a number that does not parse, or a last number that is
    shorter than that of every other line.
    """
    *others, last = style.normal([*kept[-SAMPLED - 1 : -1], kept[-1]])
    tokens = last.split()
    ends = [line.split() for line in others]
    if len(tokens) < len(ends[-1]) or not all(_NUMBER.fullmatch(token) for token in tokens):
        return True
    return len(tokens) == len(ends[-1]) and len(tokens[-1]) < min(len(row[-1]) for row in ends if row)


def _misfit(path: Path, lines: Sequence[str], first: int, style: NumberStyle) -> SpectrumFileError:
    """Return the error about the first line whose count of numbers differs from the lines above."""
    expected = 0
    for number, line in enumerate(lines, first):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        count = _count(line, style)
        if not count and expected:
            return SpectrumFileError(f"{path}: line {number}: found {line.strip()[:60]!r}, expected numbers")
        if expected and count != expected:
            return SpectrumFileError(f"{path}: line {number}: found {count} values, expected {expected} as above")
        expected = expected or count
    return SpectrumFileError(f"{path}: line {first}: found numbers that cannot be read, expected decimal numbers")
