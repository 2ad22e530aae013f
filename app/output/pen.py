"""Lines of text that fit a terminal: complete numbers, shortened names, and ASCII if there is no Unicode."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

_ASCII = str.maketrans({
    **{"…": "..", "±": "+-", "−": "-", "–": "-", "—": "-", "·": "*", "•": "*", "×": "x", "→": "->", "°": "deg "},
    **{"≤": "<=", "≥": ">=", "µ": "u", "μ": "u", "σ": "sd", "Å": "A", "²": "2", "³": "3"},
    **{"━": "#", "─": "-", "╌": "-", "│": "|", "┤": "|", "’": "'", "“": '"', "”": '"'},
})  # fmt: skip
GAP = 2
"""Number of cells between two columns."""
_LEAST_NAME = 8
"""Smallest width of a column of names, in cells."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    cells: Sequence[str]
    keep: int = 0
    """Rank of the column: those with the lowest rank are dropped first if the table is too wide."""
    right: bool = True
    most: int | None = None
    """Width, in cells, to which its texts may be shortened; None for numbers, which are never cut."""
    styles: Sequence[str] = ()
    """Style of each cell."""


@dataclass(frozen=True)
class Field:
    """A piece of a line that is shown completely or not at all."""

    text: str
    keep: int = 0
    """Rank of the field: those with the lowest rank are dropped first if there is no room."""
    style: str = ""


@dataclass(frozen=True)
class Pen:
    """Writes lines of at most ``width`` cells.

    Control and formatting characters in names are removed, since they could move the cursor or reverse the text.
    """

    width: int
    ascii: bool = False
    """Whether the terminal supports only ASCII characters."""

    def plain(self, text: str) -> str:
        """Return a text in the characters of the terminal, on one line."""
        if text.isascii() and text.isprintable():
            return text
        text = "".join(c if c.isprintable() else " " * c.isspace() for c in text)
        if not self.ascii:
            return text
        decomposed = unicodedata.normalize("NFKD", text.translate(_ASCII))
        kept = "".join(c for c in decomposed if not unicodedata.combining(c))
        return kept.encode("ascii", "replace").decode()

    def cut(self, text: str, width: int | None = None) -> str:
        """Return a text of at most ``width`` cells (default: the line) that ends with a complete word."""
        width = self.width if width is None else width
        text = self.plain(text)
        if cell_len(text) <= width:
            return text
        mark = self.plain("…")
        room = max(width - len(mark) - 1, 0)
        short = set_cell_size(text, room)
        if text[len(short) : len(short) + 1].strip() and " " in short[room // 3 :]:
            short = short[: short.rindex(" ")]
        return set_cell_size(f"{short.rstrip()} {mark}", width).rstrip()

    def name(self, text: str, width: int) -> str:
        """Return a name of at most ``width`` cells that keeps its beginning and its end."""
        text = self.plain(text)
        if cell_len(text) <= width:
            return text
        mark = self.plain("…")
        end = max((width - len(mark)) // 2, 0)
        begin = max(width - len(mark) - end, 0)
        tail = text[len(text) - end :] if end else ""
        while cell_len(tail) > end:
            tail = tail[1:]
        return set_cell_size(set_cell_size(text, begin).rstrip() + mark + tail, width).rstrip()

    def line(self, text: str, style: str = "") -> Text:
        """Return a line."""
        return _line([(self.cut(text), style)])

    def between(self, left: str, right: str, style: str = "") -> Text:
        """Return a line with a text at each end; the left one is shortened like a name."""
        right = self.plain(right)
        room = self.width - cell_len(right) - GAP
        if room < _LEAST_NAME:
            return _line([(self.name(left, self.width), style)])
        left = self.name(left, room)
        return _line([(left, style), (" " * (self.width - cell_len(left) - cell_len(right)) + right, "dim")])

    def wrap(self, text: str, rows: int, indent: int = 0, style: str = "") -> list[Text]:
        """Return a text on at most ``rows`` lines; the last line is cut if needed."""
        words, lines, used = self.plain(text).split(), list[str](), 0
        while words[used:] and len(lines) < rows:
            room = self.width - (indent if lines else 0)
            if len(lines) == rows - 1:
                lines.append(self.cut(" ".join(words[used:]), room))
                break
            end = used + 1
            while end < len(words) and cell_len(" ".join(words[used : end + 1])) <= room:
                end += 1
            lines.append(self.cut(" ".join(words[used:end]), room))
            used = end
        return [_line([(" " * indent * bool(k) + line, style)]) for k, line in enumerate(lines)]

    def flow(self, fields: Sequence[Field], rows: int = 1, indent: int = 0) -> list[Text]:
        """Return fields side by side on at most ``rows`` lines; fields that do not fit are left out."""
        shown = [Field(self.plain(f.text), f.keep, f.style) for f in fields if f.text]
        while shown:
            lines: list[list[Field]] = [[]]
            used = -GAP
            for field in shown:
                needed = GAP + cell_len(field.text)
                if lines[-1] and used + needed > self.width - indent:
                    lines.append([])
                    used = -GAP
                lines[-1].append(field)
                used += needed
            too_long = any(cell_len(f.text) > self.width - indent for f in shown)
            if len(lines) <= rows and not too_long:
                return [self._joined(line, indent) for line in lines]
            if len(shown) == 1:
                return [_line([(" " * indent + self.cut(shown[0].text, self.width - indent), shown[0].style)])]
            least = min(f.keep for f in shown)
            last = max(k for k, f in enumerate(shown) if f.keep == least)
            shown.pop(last)
        return []

    @staticmethod
    def _joined(fields: Sequence[Field], indent: int) -> Text:
        parts = [(" " * (GAP if k else indent), "") for k in range(len(fields))]
        return _line([part for k, f in enumerate(fields) for part in (parts[k], (f.text, f.style))])

    def fits(self, columns: Sequence[Column]) -> bool:
        """Return whether a table of all columns, with shortened texts, fits."""
        return self._needed(self._plain_columns(columns)) <= self.width

    def table(self, columns: Sequence[Column], rows: int) -> list[Text]:
        """Return a table of at most ``rows`` lines including its header; columns that do not fit are left out."""
        shown = self._plain_columns(columns)
        while len(shown) > 1 and self._needed(shown) > self.width:
            shown.remove(min(shown, key=lambda c: c.keep))
        widths = [_width(c) for c in shown]
        for k, column in enumerate(shown):  # texts are shortened in their order to the available width
            over = sum(widths) + GAP * (len(widths) - 1) - self.width
            if over > 0 and column.most is not None:
                widths[k] = max(widths[k] - over, min(column.most, widths[k]), 1)
        lines = [
            _line([(self._cell(c, c.title, w, k), "bold dim") for k, (c, w) in enumerate(_paired(shown, widths))])
        ]
        for number in range(min(rows - 1, max((len(c.cells) for c in shown), default=0))):
            cells = [
                (self._cell(c, c.cells[number], w, k), c.styles[number] if c.styles else "")
                for k, (c, w) in enumerate(_paired(shown, widths))
            ]
            lines.append(_line(cells))
        for line in lines:
            line.rstrip()
        return lines[:rows]

    def bar(self, part: float, width: int) -> str:
        """Return a bar that is filled to a share, 0…1."""
        full = round(min(max(part, 0.0), 1.0) * width)
        return self.plain("━" * full + "─" * (width - full))

    def _plain_columns(self, columns: Sequence[Column]) -> list[Column]:
        return [
            Column(self.plain(c.title), [self.plain(cell) for cell in c.cells], c.keep, c.right, c.most, c.styles)
            for c in columns
        ]

    @staticmethod
    def _needed(columns: Sequence[Column]) -> int:
        """Return the smallest width of a table, in cells."""
        widths = [_width(c) if c.most is None else min(_width(c), c.most) for c in columns]
        return sum(widths) + GAP * (len(columns) - 1)

    def _cell(self, column: Column, text: str, width: int, number: int) -> str:
        gap = " " * (GAP if number else 0)
        if cell_len(text) > width:
            text = self.cut(text, width) if " " in text.strip() else self.name(text, width)
        blank = " " * (width - cell_len(text))
        return gap + (blank + text if column.right else text + blank)


def _paired(columns: Sequence[Column], widths: Sequence[int]) -> list[tuple[Column, int]]:
    return list(zip(columns, widths, strict=True))


def _width(column: Column) -> int:
    return max(cell_len(text) for text in (column.title, *column.cells))


def _line(parts: Sequence[tuple[str, str]]) -> Text:
    text = Text(no_wrap=True, overflow="crop", end="")
    for part, style in parts:
        text.append(part, style or None)
    return text


def beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    """Return two columns of lines side by side; the left one has ``width`` cells."""
    lines: list[Text] = []
    for number in range(max(len(left), len(right))):
        line = left[number].copy() if number < len(left) else _line([])
        if number < len(right):
            line.append(" " * (width - line.cell_len))
            line.append_text(right[number])
        lines.append(line)
    return lines


def duration(seconds: float) -> str:
    """Return a duration as a person would say it.

    >>> duration(0.42), duration(12.3), duration(200), duration(7500), duration(200000)
    ('0.4 s', '12 s', '3 min 20 s', '2 h 05 min', '2 d 07 h')
    """
    if not math.isfinite(seconds):
        return f"{seconds} s"
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for size, unit, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {small}"
    return f"{whole} s"


def needs_ascii(encoding: str, environment: Mapping[str, str]) -> bool:
    """Return whether a terminal shows only ASCII, according to the stream's encoding or the locale C.

    ``LC_CTYPE`` is no evidence: in the locale C, Python itself sets it to ``C.UTF-8``.
    """
    ctype = environment.get("LC_CTYPE", "")
    locale = environment.get("LC_ALL") or (ctype if ctype != "C.UTF-8" else "") or environment.get("LANG", "")
    return not encoding.lower().startswith("utf") or locale in ("C", "POSIX")
