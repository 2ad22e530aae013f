"""The dashboard's page in a real browser: what it shows, what it lets a person do, and to whom it is usable."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
from browser import DESKTOP, PHONE, Dashboard, Looked, chromium, looking, needs_chromium
from deadline import wait_until
from forked import command
from playwright.sync_api import Browser, Page, Route, expect
from shown_session import Written
from watched import Watched, WhiteLine

from xas_agent import XASAgent
from xas_agent.app.config import Config
from xas_agent.app.operator import OperatorServer

pytestmark = needs_chromium
AXE = Path(__file__).parents[2] / "data" / "axe" / "axe.min.js"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><b>LCO</b>"
RULE = {"name": "<i>high</i>", "trigger": {"kind": "threshold", "quantity": "OS", "above": 1.5}, "action": "stop"}
HEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def record(folder: Path, sample: str, *heights: float, model: str = "Co") -> None:
    """Write the documents of a session that decided once and ended."""
    folder.mkdir()
    config = Config.model_validate({"rules": [RULE], "control": {"enabled": False}})
    with (folder / "documents.jsonl").open("w") as file:

        def write(name: str, doc: Any) -> None:
            print(json.dumps([name, doc], default=lambda value: value.tolist()), file=file)

        agent = XASAgent(config, [WhiteLine(model)])
        agent.subscribe(write)
        for document in Watched(model, *heights, sample_name=sample).stop().docs:
            agent(*document)
        agent.close()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("sessions")
    record(folder / "charge", HOSTILE, *HEIGHTS)
    record(folder / "discharge", "LCO 2", *HEIGHTS[::-1])
    with Dashboard(folder) as started:
        yield started


def charge(dashboard: Dashboard) -> str:
    return f"{dashboard.address}#s=charge"


def drawn(page: Page, *charts: str) -> None:
    for chart in charts:
        page.locator(f"#{chart}").scroll_into_view_if_needed()
        page.locator(f"#{chart}[data-drawn] canvas").first.wait_for()


def test_an_ended_session_is_shown_whole(browser, dashboard):
    with looking(browser, charge(dashboard)) as (page, errors):
        expect(page.locator("#pill-word")).to_have_text("Ended")
        expect(page.locator("#fact-frame")).to_have_text(str(len(HEIGHTS)))
        expect(page.locator("#fact-element")).to_have_text("Co")
        drawn(page, "series-chart", "map-chart", "spectra-chart", "raw-chart")
        expect(page.locator("#raw-text")).to_contain_text("edge step 0.75")
        expect(page.locator("#series-chart")).to_have_attribute(
            "aria-label", re.compile(r"8 frames; OS from 1\.\d+ e to")
        )
        page.locator("#series-table summary").click()
        expect(page.locator("#series-table tbody tr")).to_have_count(len(HEIGHTS))
        expect(page.locator("#quality-body")).to_contain_text("Nothing was set aside")
        assert errors == []


def test_names_of_documents_are_shown_as_text(browser, dashboard):
    with looking(browser, charge(dashboard)) as (page, errors):
        expect(page.locator("#fact-sample")).to_have_attribute("title", HOSTILE)
        expect(page.locator("#about-body")).to_contain_text(HOSTILE)
        page.locator("#decision-list button").first.click()
        expect(page.locator("#evidence-title")).to_contain_text("<i>high</i>")
        assert page.locator("body").locator("b, i, img").count() == 0
        assert page.title() != "taken"
        assert errors == []


def test_a_decision_shows_its_evidence_with_the_alignment(browser, dashboard):
    with looking(browser, charge(dashboard)) as (page, errors):
        page.locator("#decision-list button").first.click()
        sheet = page.locator("#evidence")
        expect(sheet.locator(".lead")).to_contain_text("above 1.5 e")
        frames = sheet.locator(".frame")
        expect(frames.first).to_contain_text("frame")
        drawn(page, "evidence-raw", "evidence-aligned")
        expect(page.locator("#evidence-text")).to_contain_text("E0 77")
        page.keyboard.press("Escape")
        expect(sheet).to_be_hidden()
        assert errors == []


def test_a_chosen_frame_stays_chosen(browser, dashboard):
    with looking(browser, charge(dashboard)) as (page, errors):
        slider = page.locator("#pick")
        expect(slider).to_have_value(str(len(HEIGHTS)))
        slider.focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#follow")).not_to_be_checked()
        expect(page.locator("#raw-title")).to_have_text(f"Frame {len(HEIGHTS) - 1} as measured")
        assert errors == []


def test_a_screen_reader_is_told_the_name_of_each_control_and_not_of_each_frame(browser, dashboard):
    with looking(browser, charge(dashboard)) as (page, _):
        slider = page.get_by_role("slider", name="Frame")
        expect(slider).to_have_attribute("aria-valuetext", re.compile(rf"frame {len(HEIGHTS)}, "))
        for part in page.locator("[role=status], [aria-live], output").all():
            assert part.get_attribute("id") in ("message", "said", "toasts")


def test_labels_of_decisions_share_the_room_above_the_curves(browser, dashboard):
    with looking(browser, charge(dashboard)) as (page, _):

        def labels(*decisions: tuple[str, float]) -> list[Any]:
            given = [{"action": action, "px": px} for action, px in decisions]
            code = "async (given) => (await import('./static/series.js')).labelsOf(given, 500, 12)"
            return [found and (found["text"], found["side"]) for found in page.evaluate(code, given)]

        assert labels(("stop", 0), ("load", 3), ("load", 5))[0] == ("stop, load", "right")
        assert labels(("load", 30), ("notify", 60))[:2] == [None, ("notify", "right")]
        assert labels(("set", 200), ("notify", 220)) == [("set", "left"), ("notify", "right")]
        assert labels(("stop", 495)) == [("stop", "left")]


def test_a_clock_that_is_set_back_turns_no_axis_round(browser, dashboard):
    code = """async (times) => {
      const rows = times.map((time, at) => ({ n: at + 1, uid: `f${at}`, series: "s", time, OS_mean: 3 + at, ood_score: 0.1 }));
      const session = { rows, last: rows.at(-1), decisions: new Map(), byUid: new Map(), info: { descriptors: [{ name: "OS", unit: "e" }], rules: [] } };
      const colours = { size: 12, series: ["#000"] };
      const { echarts } = (await import("./static/series.js")).seriesOption(session, { panels: new Set(["OS"]), abscissa: "time" }, colours, 800);
      return [echarts.xAxis[0].min, echarts.xAxis[0].max, echarts.series.find((one) => one.name === "s" || one.data?.length > 2).data.map(([x]) => x)];
    }"""  # noqa: E501
    with looking(browser, charge(dashboard)) as (page, _):
        assert page.evaluate(code, [10, 11, 5, 6]) == [5000, 11000, [5000, 6000, 10000, 11000]]


def test_a_frame_that_comes_while_the_history_loads_hides_none(browser, tmp_path):
    session = Written(tmp_path / "night1")
    for _ in range(3):
        session.frame()
    with Dashboard(tmp_path / "night1") as dashboard, looking(browser, "about:blank") as (page, errors):
        held: list[Route] = []
        page.route("**/quality", lambda route: held.append(route))
        page.goto(dashboard.address)
        wait_until(lambda: page.evaluate("true") and held != [])
        expect(page.locator("#link")).to_have_attribute("data-link", "live")  # else the frame comes with the history
        session.frame()
        expect(page.locator("#fact-frame")).to_have_text("4")
        held[0].continue_()
        page.locator("#series-table summary").click()
        expect(page.locator("#series-table tbody tr")).to_have_count(4)
        assert errors == []
    session.end()


@pytest.mark.slow
def test_an_agent_that_does_not_answer_can_still_be_stopped(browser, tmp_path, own_sockets):
    session, go_on = Written(tmp_path / "night1"), threading.Event()
    session.frame()
    agent, halted = XASAgent(Config(), [WhiteLine("Co")]), threading.Event()
    about = {"connected": True, "last_frame_age_s": 1.0}
    server = OperatorServer(agent, lambda: {"out": str(session.folder)}, lambda: about, None)
    server.start()
    agent.halt = lambda by, why="": halted.set()
    with Dashboard(session.folder) as dashboard, looking(browser, dashboard.with_token) as (page, errors):
        expect(page.locator("#pill-word")).to_have_text("Live")
        with ThreadPoolExecutor(1) as threads:
            threads.submit(agent.perform, lambda _: go_on.wait(120), 120)
            expect(page.locator("#pill-word")).to_have_text("No answer")
            page.locator("[data-command=halt]").focus()
            for _ in range(3):
                page.keyboard.down("Enter")  # held: the second and third are repetitions
            expect(page.locator("#confirm")).to_be_visible()
            assert not halted.is_set()
            page.keyboard.up("Enter")
            page.keyboard.press("Enter")
            assert halted.wait(60)
            go_on.set()
        expect(page.locator("#pill-word")).to_have_text("HALTED")
        assert errors == []
    server.close()
    agent.close()
    session.end()


def test_two_sessions_stand_side_by_side(browser, dashboard):
    with looking(browser, f"{dashboard.address}#compare=charge,discharge") as (page, errors):
        columns = page.locator("#compare-board > section")
        expect(columns).to_have_count(2)
        for column in (columns.nth(0), columns.nth(1)):
            expect(column.locator(".big-number")).to_contain_text(re.compile(r"\d\.\d\d"))
            expect(column.locator("canvas")).to_have_count(2)
        page.locator("#compare-chosen input").nth(1).uncheck()
        expect(columns).to_have_count(1)
        assert errors == []


def test_colours_are_remembered(browser, dashboard):
    with looking(browser, charge(dashboard), colours="dark") as (page, _):
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_text("Colours: light")
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, dashboard, size, colours: Literal["light", "dark"]):
    with looking(browser, charge(dashboard), size, colours) as (page, _):
        expect(page.locator("#fact-frame")).to_have_text(str(len(HEIGHTS)))
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert found(page, "document") == []
        page.locator("#decision-list button").first.click()
        page.locator("#evidence .frame").first.wait_for()
        assert found(page, "'#evidence'") == []
        page.keyboard.press("Escape")
        page.evaluate("location.hash = 'compare=charge,discharge'")
        expect(page.locator("#compare-board > section")).to_have_count(2)
        assert found(page, "document") == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def found(page: Page, where: str) -> list[str]:
    """Findings of axe that are serious, in one line each."""
    result = page.evaluate(f"axe.run({where})")
    return [
        f"{v['id']}: {v['help']}: {v['nodes'][0]['html']}"
        for v in result["violations"]
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.slow
def test_the_page_that_asks_for_the_token_lets_its_owner_in(browser, tmp_path):
    record(tmp_path / "charge", "LCO", *HEIGHTS)
    with (
        Dashboard(tmp_path / "charge", host="0.0.0.0") as dashboard,
        looking(browser, f"http://127.0.0.1:{dashboard.port}/") as (page, _),
    ):
        page.locator("#token").fill(dashboard.with_token.partition("token=")[2])
        page.get_by_role("button").click()
        expect(page.locator("#fact-frame")).to_have_text(str(len(HEIGHTS)))
        drawn(page, "series-chart")


# ------------------------------------------------------------------ a running session

FRAMES = 150
CONFIRM = f"""
model: {{use: [co-k], threads: 1}}
simulation: {{frames: {FRAMES}, frame_period_s: 0.3, experiment: {{kind: charge, charge_x: 0.95}}}}
rules:
  - name: half charged
    trigger: {{kind: threshold, quantity: OS, above: 3.2}}
    action: stop
control: {{enabled: true, allow: [stop], authority: confirm}}
"""


@pytest.fixture
def running(tmp_path: Path, own_sockets: None) -> Iterator["subprocess.Popen[str]"]:
    """The embedded beamline and its agent, whose rule waits for a person; its folder is ``out``."""
    (tmp_path / "confirm.yaml").write_text(CONFIRM)
    line = command("run", "--config", "confirm.yaml", "--out", "out")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(line, cwd=tmp_path, stdout=log, stderr=log, text=True, env=environment) as process,
    ):
        try:
            wait_until((tmp_path / "out" / "documents.jsonl").is_file, 100)
            yield process
        finally:
            process.kill()


def frame(page: Page) -> int:
    text = page.locator("#fact-frame").inner_text()
    return int(text) if text.isdigit() else 0


def advance(page: Page) -> None:
    before = frame(page)
    wait_until(lambda: frame(page) > before)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_is_followed_paused_and_stopped_from_the_page(browser, running, tmp_path):
    with Dashboard(tmp_path / "out") as dashboard, looking(browser, dashboard.with_token) as (page, errors):
        expect(page).to_have_url(dashboard.address)  # the token is no longer in it
        expect(page.locator("#pill-word")).to_have_text("Live")
        advance(page)
        expect(page.locator("#waiting")).to_contain_text("half charged")
        expect(page.locator("#waiting")).to_contain_text("s for approval")  # it expires then
        _pause(page)
        _see_the_evidence(page)
        page.locator("[data-command=resume]").click()
        expect(page.locator("#pill-word")).to_have_text("Live")
        _approve(page)
        expect(page.locator("#pill-word")).to_have_text("Ended")
        last = page.locator(".decision", has_text="half charged")
        expect(last.locator(".status")).to_contain_text("done")
        assert errors == []
        assert frame(page) < FRAMES
    assert '"by": "anna"' in (tmp_path / "out" / "audit.jsonl").read_text()


def _pause(page: Page) -> None:
    page.locator("[data-command=pause]").click()
    expect(page.locator("#pill-word")).to_have_text("PAUSED")
    expect(page.locator("#alarm")).to_contain_text("PAUSED")


def _see_the_evidence(page: Page) -> None:
    page.locator("#waiting").get_by_text("Evidence").click()
    drawn(page, "evidence-raw", "evidence-aligned")
    page.locator("#evidence-close").click()


def _approve(page: Page) -> None:
    page.locator("#waiting").get_by_text("Approve").click()
    page.locator("#confirm-by").fill("anna")
    page.locator("#confirm-yes").click()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_broken_connection_is_shown_and_mended(browser, running, tmp_path):
    with Dashboard(tmp_path / "out") as first, looking(browser, first.address) as looked:
        page = looked.page
        expect(page.locator("#pill-word")).to_have_text("Live")
        advance(page)
        _refuse_without_a_token(looked)
        first.close()
        expect(page.locator("#pill-word")).to_have_text("Connection lost")
        expect(page.locator("#judged .stale-word").first).to_be_visible()
        with Dashboard(tmp_path / "out", port=first.port):
            expect(page.locator("#pill-word")).to_have_text("Live")
            expect(page.locator("#judged .stale-word")).to_have_count(0)
            advance(page)
            page.locator("#series-table summary").click()
            numbers = page.locator("#series-table tbody th").all_inner_texts()
            assert numbers == [str(n) for n in range(int(numbers[0]), int(numbers[-1]) - 1, -1)]


def _refuse_without_a_token(looked: Looked) -> None:
    stop = looked.page.locator("[data-command=halt]")
    expect(stop).to_have_attribute("aria-disabled", "true")
    expect(looked.page.locator("#hint")).to_contain_text("need the token")
    stop.click(force=True)  # which Playwright takes for disabled, as a screen reader does
    expect(looked.page.locator("#ask-token")).to_be_visible()
    looked.page.keyboard.press("Escape")
