"""The tutorial notebook runs as it stands, and its page has all that it shows."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def load() -> Any:
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "gen" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(notebook: Any) -> list[str]:
    """The texts of all outputs, and for a figure that there is one."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            widget = "application/vnd.jupyter.widget-view+json" in data
            figure = "figure" if "image/png" in data or widget else data.get("text/plain", "")
            found.append(output.get("text", figure))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_gives_what_it_shows(path):
    kept, new = texts(nbformat.read(path, as_version=4)), texts(load().execute(path))
    assert len(new) == len(kept)
    for before, now in zip(kept, new, strict=True):
        assert NUMBER.sub("#", now) == NUMBER.sub("#", before)
        numbers = [list(map(float, NUMBER.findall(text))) for text in (now, before)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.011)  # one in the last digit


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_as_a_page_has_its_texts_and_figures(path):
    notebook = nbformat.read(path, as_version=4)
    page = load().page(path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert page.count("<img ") == sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert page.count("```python") == sum(cell.cell_type == "code" for cell in notebook.cells)
    assert all(text.strip() in page for text in texts(notebook) if text != "figure")
    assert "widget-view" not in path.read_text(encoding="utf-8")
    assert "/tmp/" not in page


def test_there_is_a_notebook():
    assert NOTEBOOKS
