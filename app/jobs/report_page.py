"""The HTML page of a report: one file, without scripts and external resources."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ..._version import __version__

_PACKAGE = __name__.partition(".")[0]
Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of texts; columns of numbers are aligned to the right."""

    caption: str
    header: Row
    rows: Sequence[Row]
    numbers: frozenset[int] = frozenset()
    """Indices of the columns of numbers, from 0."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    uri: str
    text: str
    """Description of the figure for readers who cannot see it."""
    caption: str


@dataclass
class Section:
    """A section of a session's report."""

    title: str
    texts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    parts: list[Table | Picture] = field(default_factory=list)
    codes: list[tuple[str, str]] = field(default_factory=list)
    """Titles and texts that are shown verbatim."""


@dataclass(frozen=True)
class SessionReport:
    """The report on one session."""

    title: str
    lead: str
    simulated: bool
    unfinished: bool
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def render(reports: Sequence[SessionReport]) -> str:
    """Return the HTML page."""
    title = reports[0].title if len(reports) == 1 else f"{len(reports)} sessions"
    return _template().render(
        title=title, reports=reports, made=in_words(time.time()), version=__version__, cite=_citation()
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__ or "", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template("report.html.jinja")


def plain(text: object) -> str:
    """Return a text without unprintable characters, such as marks that change the direction of writing."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in str(text))


def in_words(seconds: float) -> str:
    """Return a time, Unix s, in the time zone of this machine; a dash if it is unknown."""
    if not math.isfinite(seconds):
        return "–"
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _citation() -> list[str]:
    """Return how to cite the software, from CITATION.cff."""
    cff = yaml.safe_load((files(_PACKAGE) / "CITATION.cff").read_text(encoding="utf-8"))
    authors = ", ".join(_author(one) for one in cff["authors"])
    said = [f"{authors}: {cff['title']}, version {cff['version']} ({cff['date-released']}), {cff['license']}."]
    for one in cff.get("references", []):
        where = " ".join(str(one[key]) for key in ("journal", "volume", "start") if key in one)
        year, doi = f" ({one['year']})" if "year" in one else "", f", doi {one['doi']}" if "doi" in one else ""
        authors = ", ".join(_author(author) for author in one["authors"])
        said.append(
            f"{authors}: {one['title']}{', ' if where else ''}{where}{year}{doi}. {one.get('notes', '')}".strip()
        )
    return [str(cff["message"]), *said]


def _author(one: Mapping[str, str]) -> str:
    return one.get("name") or f"{one['given-names']} {one['family-names']}"
