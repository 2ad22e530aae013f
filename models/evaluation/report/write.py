"""A report as a folder: ``report.md``, ``report.html`` (one self-contained file), ``tables`` and ``figures``.

The same sections give the same bytes.
"""

import base64
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype
from tabulate import tabulate

from .page import PageFigure, PagePart, PageTable, render_page

_MAX_SVG_BYTES = 300_000
"""Size above which the HTML page contains a figure's PNG instead, bytes."""
_PNG_DPI = 160


@dataclass
class Section:
    """One question of the report."""

    title: str
    text: str = ""
    """Text in Markdown. Names from files must go through :func:`plain`."""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Tables by slug, which is unique in the report: letters, digits, ``-`` and ``_``."""
    figures: dict[str, Figure] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    """Captions in Markdown, by the slug of a table or figure."""
    sections: list["Section"] = field(default_factory=list)


def write(folder: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write the report and return the path of its HTML page.

    An error leaves an earlier report unchanged. ``tables`` and ``figures`` are replaced, other files in ``folder``
    remain.

    Raises
    ------
    ValueError
        A slug is not a valid file name, or is used twice.
    """
    _check_slugs(sections)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as name:
        new = Path(name)
        pictures = _write_parts(new, sections)
        (new / "report.md").write_text(_markdown(title, lead, sections), encoding="utf-8")
        (new / "report.html").write_text(render_page(title, lead, list(_parts(sections, pictures))), encoding="utf-8")
        for part in ("tables", "figures"):
            if (folder / part).exists():
                (folder / part).rename(new / f"old {part}")
            (new / part).rename(folder / part)
        for page in ("report.md", "report.html"):
            (new / page).replace(folder / page)
    return folder / "report.html"


def plain(text: object) -> str:
    """Escape ``text`` for Markdown, in a sentence or in a cell."""
    line = re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(str(text).split()))
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", line)


def slug(text: str) -> str:
    """Return a name as the slug of a table or figure: ``Random Forest`` → ``random-forest``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _walk(sections: Sequence[Section], number: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Section]]:
    for k, section in enumerate(sections, 1):
        yield (*number, k), section
        yield from _walk(section.sections, (*number, k))


def _check_slugs(sections: Sequence[Section]) -> None:
    tables = [s for _, section in _walk(sections) for s in section.tables]
    figures = [s for _, section in _walk(sections) for s in section.figures]
    for slugs in (tables, figures):
        for s in slugs:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", s):
                raise ValueError(f"slug {s!r}: expected letters, digits, - and _")
            if slugs.count(s) > 1:
                raise ValueError(f"slug {s!r} stands twice in the report")


# --- files ------------------------------------------------------------


def _write_parts(folder: Path, sections: Sequence[Section]) -> dict[str, str]:
    """Write all tables and figures; return the data URI of each figure."""
    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    uris: dict[str, str] = {}
    for _, section in _walk(sections):
        for s, table in section.tables.items():
            _columns(table).to_csv(folder / "tables" / f"{s}.csv", index=False, lineterminator="\n")
        for s, figure in section.figures.items():
            svg, png = _drawn(figure, s)
            (folder / "figures" / f"{s}.svg").write_bytes(svg)
            (folder / "figures" / f"{s}.png").write_bytes(png)
            kind, data = ("svg+xml", svg) if len(svg) <= _MAX_SVG_BYTES else ("png", png)
            uris[s] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return uris


def _drawn(figure: Figure, salt: str) -> tuple[bytes, bytes]:
    """Render a figure as SVG, with text as text, and as PNG."""
    svg, png = BytesIO(), BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(svg, format="svg", dpi=_PNG_DPI, metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def _columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with a named index as columns."""
    unnamed = isinstance(table.index, pd.RangeIndex) and table.index.name is None
    flat = table if unnamed else table.reset_index()
    return flat.set_axis([str(c) for c in flat.columns], axis="columns")


# --- numbers ------------------------------------------------------------


def cells(column: pd.Series) -> list[str]:
    """Return the texts of a column's cells.

    Counts have thousands separators. Numbers whose column ends in a unit in brackets, ``training (s)``, have three
    significant figures; other numbers, the scores, have three decimals. A dash stands for a missing value.
    """
    values = column.tolist()
    known = [v for v in values if not pd.isna(v)]
    if not is_numeric_dtype(column) or is_bool_dtype(column):
        return ["–" if pd.isna(v) else str(v) for v in values]
    whole = is_integer_dtype(column) or (max(map(abs, known), default=0) > 1 and all(v == int(v) for v in known))
    measured = str(column.name).rstrip().endswith(")")

    def text(v: float) -> str:
        if whole:
            shown = f"{int(v):,}"
        elif measured or abs(v) >= 1000 or 0 < abs(v) < 0.0005:
            shown = f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}"
        else:
            shown = f"{v:.3f}"
        return shown.replace("-", "−", 1) if shown.startswith("-") else shown

    return ["–" if pd.isna(v) else text(v) for v in values]


# --- Markdown ------------------------------------------------------------


def _markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    parts = [f"# {plain(title)}", lead]
    for number, section in _walk(sections):
        parts += [f"{'#' * min(len(number) + 1, 6)} {_number(number)} {plain(section.title)}", section.text]
        for s in section.figures:
            parts += [f"![{plain(s)}](figures/{s}.png)", section.captions.get(s, "")]
        for s, table in section.tables.items():
            parts += [section.captions.get(s, ""), _markdown_table(table), f"[{s}.csv](tables/{s}.csv)"]
    return "\n\n".join(p.strip() for p in parts if p.strip()) + "\n"


def _markdown_table(table: pd.DataFrame) -> str:
    flat = _columns(table)
    texts = [[plain(t) if not numeric else t for t in column] for column, numeric in _texts(flat)]
    return tabulate(
        list(zip(*texts, strict=True)),
        headers=[plain(c) for c in flat.columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["right" if numeric else "left" for _, numeric in _texts(flat)] if len(flat) else None,
    )


def _texts(flat: pd.DataFrame) -> Iterator[tuple[list[str], bool]]:
    """Yield the texts of each column, and whether they are numbers."""
    for k in range(flat.shape[1]):
        column = flat.iloc[:, k]
        yield cells(column), is_numeric_dtype(column) and not is_bool_dtype(column)


def _number(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))


# --- HTML ------------------------------------------------------------


def _parts(sections: Sequence[Section], pictures: dict[str, str]) -> Iterator[PagePart]:
    for number, section in _walk(sections):
        figures = [_page_figure(section, s, pictures[s]) for s in section.figures]
        tables = [_page_table(section, s, t) for s, t in section.tables.items()]
        yield PagePart(number, section.title, section.text, figures, tables)


def _page_figure(section: Section, s: str, uri: str) -> PageFigure:
    caption = section.captions.get(s, "")
    alt = re.sub(r"[*_`\\]", "", caption) or s
    return PageFigure(s, uri, alt, round(96 * section.figures[s].get_figwidth()), caption)


def _page_table(section: Section, s: str, table: pd.DataFrame) -> PageTable:
    flat = _columns(table)
    texts, numeric = zip(*_texts(flat), strict=True) if len(flat.columns) else ((), ())
    columns = list(zip(map(str, flat.columns), numeric, strict=True))
    return PageTable(s, section.captions.get(s, ""), columns, list(zip(*texts, strict=True)))
