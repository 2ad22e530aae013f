"""A report opens by itself, says what it was given, and is replaced whole or not at all."""

from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from xas_agent.models.evaluation.report.page import _MARKDOWN
from xas_agent.models.evaluation.report.write import Section, cells, plain, slug, write

HOSTILE = '<script src="http://evil/x.js">|`*_[x](javascript:alert(1)) ![i](http://evil/i.png) & $\\frac$'


def drawing(points=10):
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot(np.random.default_rng(0).random(points), ".", label="Li<sub>x</sub>")
    axes.set_title("a <b> & c")
    return figure


def sections():
    numbers = pd.DataFrame({"F1": [0.5, np.nan], "training (s)": [0.00123, 4567.8], "rows": [12, 123456]})
    names = pd.DataFrame({"OS": [0.912345]}, index=pd.Index([HOSTILE], name="competitor"))
    inner = Section("Inside", tables={"names": names}, captions={"names": plain(HOSTILE)})
    return [
        Section(
            f"First {HOSTILE}",
            f"What was **found** by {plain(HOSTILE)}, see [a paper](https://doi.org/10.1/1).\n\n{HOSTILE}",
            tables={"numbers": numbers},
            figures={"small": drawing(), "dots": drawing(8000)},
            captions={"small": "A *figure*."},
            sections=[inner],
        )
    ]


class Page(HTMLParser):
    """All tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_asks_for_nothing_and_runs_nothing(tmp_path):
    text = write(tmp_path, f"Report {HOSTILE}", f"All of {plain(HOSTILE)}.", sections()).read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "base", "form", "sub"} & {tag for tag, _ in page.tags}
    assert not {tag for tag, _ in page.tags if tag == "link"}
    anchors = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        if "src" in attrs:
            assert attrs["src"].startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
        if "href" in attrs:
            assert tag == "a"
            assert (
                attrs["href"].startswith("https://doi.org/")
                or attrs["href"][1:] in anchors
                or "evil" in attrs["href"]
            )
            assert "javascript" not in attrs["href"]
    assert "url(" not in text
    assert "@import" not in text
    assert HOSTILE in page.text  # in a table, a title and a caption, as it stands
    assert [t for t, _ in page.tags].count("img") == 2
    assert "data:image/png" in text  # 8000 points as SVG would be heavy
    assert "data:image/svg+xml" in text


def test_everything_is_written_and_tables_come_back(tmp_path):
    given_sections = sections()
    write(tmp_path, "Report", "Lead.", given_sections)
    numbers, names = given_sections[0].tables["numbers"], given_sections[0].sections[0].tables["names"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables/numbers.csv"), numbers)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables/names.csv", index_col=0), names)
    for name in ("small", "dots"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "a &lt;b&gt; &amp; c" in (tmp_path / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## 1 First" in markdown
    assert "### 1.1 Inside" in markdown
    assert "![small](figures/small.png)" in markdown
    shown = _MARKDOWN.render(markdown)
    assert Page(shown).tags.count(("table", {})) == 2
    assert "123,456" in shown


def test_the_same_sections_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, "Report", "Lead.", sections())
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 8
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


class Unprintable(Figure):
    def savefig(self, *args, **kwargs):
        raise RuntimeError("out of ink")


def test_a_failed_report_leaves_the_good_one(tmp_path):
    page = write(tmp_path, "Report", "Good.", sections())
    (tmp_path / "mine.txt").write_text("stays")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    broken = [Section("One", tables={"new": pd.DataFrame({"a": [1]})}, figures={"bad": Unprintable()})]
    with pytest.raises(RuntimeError, match="out of ink"):
        write(tmp_path, "Report", "Bad.", broken)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    write(tmp_path, "Report", "Newer.", [Section("Only", "text")])
    assert "Newer." in page.read_text(encoding="utf-8")
    assert (tmp_path / "mine.txt").exists()
    assert not list((tmp_path / "tables").iterdir())  # the old report's do not stay
    assert not list(tmp_path.glob(".report-*"))


@pytest.mark.parametrize("name", ["../up", "a/b", "", "a b", ".hidden"])
def test_slugs_are_file_names(tmp_path, name):
    with pytest.raises(ValueError, match="slug"):
        write(tmp_path, "Report", "", [Section("One", tables={name: pd.DataFrame()})])


def test_a_slug_stands_once(tmp_path):
    table = {"same": pd.DataFrame({"a": [1]})}
    with pytest.raises(ValueError, match="twice"):
        write(tmp_path, "Report", "", [Section("One", tables=table), Section("Two", tables=table)])
    assert slug("FT-Transformer (σ = 0.02)") == "ft-transformer-0-02"


def test_numbers_are_written_to_be_read():
    def texts(name, values):
        return cells(pd.Series(values, name=name))

    assert texts("F1", [0.91234, -0.5, np.nan, 1.0]) == ["0.912", "−0.500", "–", "1.000"]
    assert texts("R²", [0.9, -1234.5, 0.00001]) == ["0.900", "−1,234", "1e-05"]
    assert texts("training (s)", [0.0123456, 12.345, 4567.8]) == ["0.0123", "12.3", "4,568"]
    assert texts("rows", [1234567, 3]) == ["1,234,567", "3"]
    assert texts("rows", [12.0, np.nan]) == ["12", "–"]
    assert texts("frozen", [True, False]) == ["True", "False"]
    assert texts("name", ["a", None]) == ["a", "–"]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30))
def test_plain_text_is_shown_as_it_stands(text):
    shown = Page(_MARKDOWN.render(plain(text))).text
    assert shown.split() == text.split()
    assert matplotlib.rcParams["svg.hashsalt"] is None
