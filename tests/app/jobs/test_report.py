"""The report of a session: its numbers are those of the tables, and no name does harm."""

import csv
import html
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from forked import run_command
from paged_documents import paged

from xas_agent.agent.types import InputError
from xas_agent.app.jobs.report import write_report
from xas_agent.app.jobs.report_data import FRAMES, Course, Measured
from xas_agent.models import card as cards

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>\u202e{{ 7*7 }}'


class Page(HTMLParser):
    """The elements of a page, and the texts of its table cells and paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1] and self.lasttag in ("td", "th"):
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames, with a decision at the first."""
    folder = tmp_path_factory.mktemp("session")
    rule = "rules: [{name: always, trigger: {kind: threshold, quantity: OS, above: 0}, action: notify}]"
    (folder / "config.yaml").write_text(f"model: {{use: [co-k]}}\n{rule}\n")
    run_command("run", "--frames", 3, "--config", folder / "config.yaml", "--out", folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def page(session: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "report.html"
    said = run_command("report", session, "--out", file).stdout
    assert said.splitlines() == [f"{session}: 3 frames, 1 decision", f"written {file}"]
    return file.read_text(encoding="utf-8")


def with_documents(session: Path, folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "documents.jsonl").write_text(text, encoding="utf-8")
    shutil.copy(session / "session.json", folder)
    return folder


def test_its_numbers_are_those_of_the_tables(session: Path, page: str):
    with (session / "descriptors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = Page(page).rows
    for name, unit in (("OS", " (e)"), ("CN", ""), ("mean_bond", " (Å)")):
        first, last = (float(rows[k][f"{name}_mean"]) for k in (0, -1))
        [told] = [row for row in found if row[0] == f"{name}{unit}" and len(row) == 8]
        assert told[1:4] == [f"{first:.3f}", f"{last:.3f}", f"{last - first:+.3f}"]
        assert told[7] == f"{float(rows[-1][f'{name}_lo']):.3f}…{float(rows[-1][f'{name}_hi']):.3f}"
    [e0] = [row for row in found if row[0] == "E0 (eV)"]
    assert e0[1:3] == [f"{float(rows[k]['e0_ev']):.2f}" for k in (0, -1)]
    assert e0[6] == "3"
    header = next(row for row in found if row[:2] == ["time", "frame"])
    frames = [row for row in found if len(row) == len(header) and row[1] in ("1", "2", "3")]
    at = header.index("OS")
    assert [row[at] for row in frames] == [f"{float(row['OS_mean']):.3f}" for row in rows]


def test_it_tells_decisions_rules_model_versions_and_citation(session: Path, page: str):
    with (session / "decisions.csv").open(newline="") as file:
        [decided] = csv.DictReader(file)
    found = Page(page)
    [told] = [row for row in found.rows if "always" in row]
    assert decided["reason"] in told[4]
    assert told[5].startswith(decided["status"])
    card = cards.read_card(cards.find("co-k"))
    assert {card.sha256 in found.text, card.limits[0] in found.text, card.licence in found.text} == {True}
    start = json.loads((session / "documents.jsonl").read_text().splitlines()[0])[1]
    assert start["config_sha256"] in found.text
    assert f"torch {start['versions']['torch']}" in found.text
    assert "kind: threshold" in found.text
    assert "The beamline was simulated" in found.text
    assert "If you use this software, please cite" in found.text
    assert all(one in found.text for one in card.cite)
    assert "Good for: OS, CN, OCN, MOOD, mean_bond of Co sites" in found.text
    assert "Not for: NNRS, of which it knows little. CN2, PSGO of mixtures of sites." in found.text


def test_it_loads_nothing_and_runs_nothing(page: str):
    found = Page(page)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    references = [
        value for _, attrs in found.tags for name, value in attrs.items() if name in ("src", "href", "srcset")
    ]
    assert references
    assert all(value and value.startswith(("data:image/svg+xml;base64,", "#")) for value in references)
    assert "url(" not in page
    assert "@import" not in page
    [policy] = [attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert all(attrs.get("alt") for tag, attrs in found.tags if tag == "img")


def test_hostile_names_are_texts(session: Path, tmp_path: Path):
    written = (session / "documents.jsonl").read_text()
    text = written.replace(json.dumps("LiCoO2 cathode"), json.dumps(HOSTILE))
    text = text.replace(json.dumps("always"), json.dumps(HOSTILE))
    assert text.count("evil.example") > 5
    folder = with_documents(session, tmp_path / HOSTILE.replace("/", "_")[:40], text)
    write_report([folder], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(page)
    assert not [tag for tag, attrs in found.tags if tag == "script" or "onerror" in attrs]
    assert html.escape("<script>alert(1)</script>") in page
    assert "{{ 7*7 }}" in found.text
    assert "\u202e" not in page
    sources = [attrs.get("src") for tag, attrs in found.tags if tag == "img"]
    assert not [source for source in sources if not (source or "").startswith("data:")]


def test_a_running_folder_has_a_report(session: Path, tmp_path: Path):
    lines = (session / "documents.jsonl").read_text().splitlines(keepends=True)
    first = next(k for k, line in enumerate(lines) if '"frame_uid"' in line and line.startswith('["event"'))
    folder = with_documents(session, tmp_path / "running", "".join(lines[: first + 1]) + lines[first + 1][:50])
    said = run_command("report", folder).stdout
    assert said.splitlines()[0] == f"{folder}: 1 frame, 0 decisions, still running or broken off"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The session was running when this was written" in page
    before = (folder / "documents.jsonl").read_bytes()
    (folder / "documents.jsonl").write_text("".join(lines))
    run_command("report", folder)  # replaces it
    assert "The session was running" not in (folder / "report.html").read_text(encoding="utf-8")
    assert before in (folder / "documents.jsonl").read_bytes() + before


def test_several_folders_are_parts_of_one_page(session: Path, tmp_path: Path):
    text = (session / "documents.jsonl").read_text()
    other = with_documents(session, tmp_path / "other", text.replace("LiCoO2 cathode", "LCO-2"))
    said = run_command("report", session, other, code=2).stderr
    assert "--out: expected a file, because several folders are named" in said
    run_command("report", session, other, "--out", tmp_path / "both.html")
    found = Page((tmp_path / "both.html").read_text(encoding="utf-8"))
    headings = re.findall(r"<h[1-4][^>]*>([^<]*)", (tmp_path / "both.html").read_text(encoding="utf-8"))
    assert headings[:3] == ["2 sessions", "LiCoO2 cathode", "What was measured"]
    assert "LCO-2" in headings
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {str(attrs["href"])[1:] for tag, attrs in found.tags if tag == "a"} <= set(ids)


def test_a_folder_without_settings_and_frames_has_a_report(session: Path, tmp_path: Path):
    start = (session / "documents.jsonl").read_text().splitlines(keepends=True)[0]
    folder = with_documents(session, tmp_path / "empty", start)
    (folder / "session.json").unlink()
    write_report([folder], folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    for said in (
        "No frame was answered",
        "does not keep the settings",
        "No rule decided anything",
        "source: not kept",
    ):
        assert said in page


def test_a_folder_without_documents_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"found no documents.jsonl; name the --out"):
        write_report([tmp_path], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_of_many_frames_the_table_has_some_evenly_and_the_last():
    measured = Measured("s", "s", "Co", "K")
    for number in range(1, 10_001):
        row = {
            "time": float(number),
            "seq_num": number,
            "scan_id": 1,
            "file": "",
            "flags": "",
            "OS_mean": number / 1e4,
        }
        measured.add(row)
    numbers = [row["seq_num"] for row in measured.table]
    assert FRAMES <= len(numbers) <= 2 * FRAMES + 2
    assert (numbers[0], numbers[-1]) == (1, 10_000)
    assert len({b - a for a, b in pairwise(numbers[:-1])}) == 1
    course = measured.courses["OS_mean"]
    assert (course.count, course.first, course.last, course.lowest) == (10_000, 1e-4, 1.0, 1e-4)


def test_estimates_of_unfamiliar_spectra_do_not_count():
    measured = Measured("s", "s", "Co", "K")
    for number, (value, score) in enumerate([(3.1, 0.2), (3.2, 0.3), (1.4, 2.5)]):
        about = {"time": float(number), "seq_num": number, "scan_id": 1, "file": "", "flags": ""}
        measured.add({**about, "OS_mean": value, "ood_score": score, "e0_ev": 7709.0 + number})
    course = measured.courses["OS_mean"]
    assert (course.count, course.last, course.lowest) == (2, 3.2, 3.1)
    assert measured.last_known["OS_mean"] == 3.2
    assert measured.courses["e0_ev"].count == measured.courses["ood_score"].count == measured.frames == 3


def test_what_is_no_number_does_not_count():
    course = Course()
    for value in (float("nan"), "x", None, 2.0, float("inf"), 4.0):
        course.add(value)
    assert (course.count, course.first, course.last, course.mean) == (2, 2.0, 4.0, 3.0)


def test_pages_in_the_file_are_read_like_their_events(session: Path, page: str, tmp_path: Path):
    folder = with_documents(session, tmp_path / session.name, paged((session / "documents.jsonl").read_text()))
    for file in session.iterdir():
        if not (folder / file.name).exists() and file.is_file():
            shutil.copy(file, folder)
    assert '["event_page"' in (folder / "documents.jsonl").read_text()
    out = tmp_path / "report.html"
    assert run_command("report", folder, "--out", out).stdout.startswith(f"{folder}: 3 frames, 1 decision\n")
    assert Page(out.read_text(encoding="utf-8")).rows == Page(page).rows
