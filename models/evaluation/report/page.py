"""The HTML page of a report: one file, without scripts and external resources."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

_LONG_CELL_CHARACTERS = 40
"""Length above which a table's cell is broken into lines, in characters."""

# No raw HTML and no images: names in the text come from files, and the page must not load anything.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page."""

    slug: str
    uri: str
    """Data URI of the picture."""
    alt: str
    width: int
    """Width, CSS pixels; narrow windows shrink the figure until it would be illegible, and then scroll."""
    caption: str
    """Caption in Markdown."""


@dataclass(frozen=True)
class PageTable:
    """A table of the page."""

    slug: str
    caption: str
    """Caption in Markdown."""
    columns: Sequence[tuple[str, bool]]
    """Name of each column, and whether its cells are numbers."""
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class PagePart:
    """A section at any depth."""

    number: tuple[int, ...]
    title: str
    text: str
    """Text in Markdown."""
    figures: Sequence[PageFigure]
    tables: Sequence[PageTable]

    @property
    def anchor(self) -> str:
        """Target of links to the section."""
        return "s" + "-".join(map(str, self.number))

    @property
    def level(self) -> int:
        """Level of the HTML heading."""
        return min(len(self.number) + 1, 6)


def render_page(title: str, lead: str, parts: Sequence[PagePart]) -> str:
    """Return the HTML page.

    Parameters
    ----------
    title : plain text
    lead : Markdown
    parts : all sections in reading order; subsections follow their section
    """
    return _template().render(title=title, lead=lead, parts=parts, long=_LONG_CELL_CHARACTERS)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__ or "", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["markdown"] = lambda text: Markup(_MARKDOWN.render(text))
    environment.filters["inline_markdown"] = lambda text: Markup(_MARKDOWN.renderInline(text))
    return environment.get_template("page.html.jinja")
