"""The page that shows a report: one HTML file, without scripts and without anything from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

LONG = 40
"""Characters from which a table's cell is broken into lines."""

# No raw HTML and no images: names in the text come from files, and the page asks for nothing from outside.
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page shows it."""

    slug: str
    uri: str
    """Data URI of its picture."""
    alt: str
    width: int
    """CSS pixels; the page shrinks it, but not beyond reading: from there on it scrolls."""
    caption: str
    """Markdown."""


@dataclass(frozen=True)
class PageTable:
    """A table as the page shows it."""

    slug: str
    caption: str
    """Markdown."""
    columns: Sequence[tuple[str, bool]]
    """(name, whether its cells are numbers)"""
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class PagePart:
    """A section, at whichever depth."""

    number: tuple[int, ...]
    title: str
    text: str
    """Markdown."""
    figures: Sequence[PageFigure]
    tables: Sequence[PageTable]

    @property
    def anchor(self) -> str:
        """Of links to it."""
        return "s" + "-".join(map(str, self.number))

    @property
    def level(self) -> int:
        """Of its heading."""
        return min(len(self.number) + 1, 6)


def render_page(title: str, lead: str, parts: Sequence[PagePart]) -> str:
    """Return the HTML page.

    Parameters
    ----------
    title : plain text
    lead : Markdown
    parts : all sections in reading order, subsections behind their section
    """
    return _template().render(title=title, lead=lead, parts=parts, long=LONG)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__ or "", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["markdown"] = lambda text: Markup(MARKDOWN.render(text))
    environment.filters["inline_markdown"] = lambda text: Markup(MARKDOWN.renderInline(text))
    return environment.get_template("page.html.jinja")
