"""The live widget: what it sends, when, and what a browser shows of it."""

import importlib.util
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from app_history import many
from deadline import wait_until
from recorded_frames import frame

from xas_agent import widget
from xas_agent.agent.types import InputError
from xas_agent.app.notebook.view import view_of
from xas_agent.app.output.data_frames import Results

pytest.importorskip("anywidget")
GEN = Path(__file__).parents[3] / "docs" / "gen" / "notebooks.py"


def pause(history: Any, run: str = "cathode") -> None:
    data = {"id": "1", "rule": "hold", "action": "pause", "args": "{}", "reason": "OS 3.41 e above 3.4 e"}
    data |= {"evidence": "[]", "confidence": 0.9, "status": "acknowledged", "status_reason": "", "status_time": 9.0}
    names = {"by": "", "sample": run, "scan_id": 0, "file": "", "element": "Co"}
    history("event", {"descriptor": f"decisions/{run}", "time": 9.0, "data": data | names})


def test_a_view_has_series_spectra_and_state():
    history = many(4, aside=1)
    pause(history)
    view = view_of(Results(history))
    assert view["title"] == "OS (e)"
    [series] = view["series"]
    assert series["x"] == [0, 1, 2, 3]
    assert series["y"][3] == pytest.approx(3.16)
    assert series["hi"][0] - series["lo"][0] == pytest.approx(2 * 1.645 * 0.01, rel=0.01)
    assert [line["name"] for line in view["spectra"]] == ["first (frame 0)", "latest", "latest − first"]
    assert view["spectra"][2]["y"] == [3.0, 0.0]
    assert view["state"].startswith("running · 4 frames · 1 set aside (NaN in data) · OS 3.16 ± 0.02 (repeats)")
    assert view["paused"] == "by hold: OS 3.41 e above 3.4 e"
    assert "pause by hold, OS 3.41 e above 3.4 e (acknowledged)" in view["decision"]


def test_a_view_before_the_first_frame_says_so():
    view = view_of(Results(many(0, samples=())))
    assert (view["state"], view["decision"]) == ("waiting for a run · 0 frames", "no decision yet")
    assert view["series"] == view["spectra"] == []


def test_a_long_series_is_thinned_and_its_size_bounded():
    view = view_of(Results(many(3000)))
    [series] = view["series"]
    assert len(series["x"]) == 500
    assert (series["x"][0], series["x"][-1]) == (0, pytest.approx(2999 / 60))  # the first and the latest
    assert len(json.dumps(view, allow_nan=False)) < 60_000


def test_a_value_that_is_missing_is_null():
    history = many(2)
    frame(history, 2, "cathode", OS_mean=math.nan, OS_lo=math.nan, OS_hi=math.nan, OS_sd_frame=0.01)
    assert view_of(Results(history))["series"][0]["y"][2] is None
    assert view_of(Results(history), "voltage")["series"][0]["y"] == [3.8, 3.81, None]


def test_the_widget_follows_what_comes():
    history = many(1)
    live = widget(Results(history), every_s=0.01)
    try:
        assert live.view["state"].startswith("running · 1 frame ·")
        frame(history, 1, "cathode", OS_mean=3.2, OS_lo=2.6, OS_hi=3.8, OS_sd_frame=0.01)
        wait_until(lambda: live.view["state"].startswith("running · 2 frames"), 10)
    finally:
        live.close()
    wait_until(lambda: not live._thread.is_alive(), 10)


def test_nothing_is_sent_while_nothing_comes():
    live = widget(Results(many(1)), every_s=100)
    sent: list[object] = []
    live.observe(lambda change: sent.append(change.new), "view")
    live.refresh()
    live.refresh()
    live.close()
    assert not sent


def test_the_widget_follows_a_folder_that_another_process_fills(tmp_path):
    whole = tmp_path / "documents.jsonl"
    start = {"uid": "a", "parent_uid": "run", "xas_agent": True, "model": {"name": "co-k", "sha256": "1"}}
    whole.write_text(json.dumps(["start", start]) + "\n")
    live = widget(tmp_path, every_s=0.01)
    try:
        assert live.view["state"] == "running · 0 frames"
        with whole.open("a") as file:
            file.write(json.dumps(["stop", {"uid": "b", "run_start": "a"}]) + "\n")
        wait_until(lambda: live.view["state"] == "ended · 0 frames", 10)
        shutil.rmtree(tmp_path)
        wait_until(lambda: "No such file" in live.view["state"], 10)
    finally:
        live.close()


def test_a_folder_without_documents_is_told(tmp_path):
    with pytest.raises(InputError, match="expected the --out of a session"):
        widget(tmp_path)


def load_notebook() -> Any:
    spec = importlib.util.spec_from_file_location("notebooks", GEN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("no chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def shown(browser):
    """Show a view in Chromium with the widget's own script; nothing may be loaded or fail."""
    page = browser.new_page(viewport={"width": 1000, "height": 500})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)

    def show(view: dict[str, Any]) -> Any:
        page.set_content(load_notebook().page_of(view))
        page.wait_for_function("window.listeners !== undefined")
        return page

    yield show
    page.close()
    assert not wrong


def test_a_browser_shows_the_view_and_its_changes(shown):
    history = many(5, samples=("cathode A", "cathode B"))
    page = shown(view_of(Results(history)))
    assert page.locator("figure").count() == 2
    series = page.locator("figure").nth(0)
    assert series.locator("polyline").count() == series.locator("polygon").count() == 2
    assert "latest" in (series.locator("svg").get_attribute("aria-label") or "")
    assert "cathode B" in series.locator(".xas-legend").inner_text()
    assert not page.locator(".xas-paused").is_visible()
    pause(history, "cathode A")
    page.evaluate("view => window.model.set(view)", view_of(Results(history)))
    assert page.locator(".xas-paused").inner_text() == "PAUSED by hold: OS 3.41 e above 3.4 e"
    assert "pause by hold" in page.locator(".xas-decision").inner_text()
    page.locator("figure svg").first.hover()
    assert "cathode A" in series.locator(".xas-readout").inner_text()
    page.evaluate("window.end()")
    assert page.evaluate("window.listeners.length") == 0


def test_a_browser_shows_nothing_yet(shown):
    page = shown(view_of(Results(many(0, samples=()))))
    assert page.locator("figure").nth(0).inner_text().count("nothing yet") == 1
    assert page.locator("polyline").count() == 0


def test_names_are_text_and_never_markup(shown):
    page = shown(view_of(Results(many(2, samples=("<img src=x onerror=alert(1)>", "b")))))
    assert page.locator("img").count() == 0
    assert "<img src=x" in page.locator(".xas-agent").inner_text()


def test_a_phone_shows_all_of_it(browser):
    page = browser.new_page(viewport={"width": 360, "height": 700})
    page.set_content(load_notebook().page_of(view_of(Results(many(5)))))
    page.wait_for_function("window.listeners !== undefined")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
