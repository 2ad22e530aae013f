"""Tables and picture of a folder, made again, or an error that says what to do."""

import os
from pathlib import Path

import pytest
from forked import run_command
from full_disk import full_disk
from logs import capture_logs

from xas_agent.agent.types import InputError
from xas_agent.app.about import write_about
from xas_agent.app.config import load_config
from xas_agent.app.jobs.rebuild import rebuild, rules_of
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.output.opening import lock_folder


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("session") / "out"
    run_command("run", "--frames", 2, "--out", out)
    return out


@pytest.fixture
def folder(session: Path, tmp_path: Path) -> Path:
    """A folder with the documents of the session alone."""
    os.link(session / "documents.jsonl", tmp_path / "documents.jsonl")
    return tmp_path


def test_the_documents_alone_give_tables_and_picture(session: Path, folder: Path) -> None:
    recorder = rebuild(folder)
    # On a busy machine a third frame is answered before the session has ended.
    assert recorder.frames == len((session / "descriptors.csv").read_text().splitlines()) - 1 >= 2
    for name in ("descriptors.csv", "decisions.csv"):
        assert (folder / name).read_bytes() == (session / name).read_bytes()
    made = {"documents.jsonl", "descriptors.csv", "decisions.csv", "operando.png", ".lock"}
    assert {path.name for path in folder.iterdir()} == made
    lock_folder(folder).release()  # it is free again


@pytest.mark.parametrize("name", ["out", "none"])
def test_a_folder_without_documents_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    said = run_command("rebuild", tmp_path / name, code=2).stderr
    assert f"{tmp_path / name}: found no documents.jsonl; name the --out of a session" in said
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


@pytest.mark.parametrize("line", ['["event", {}]', '["start", {"uid": []}]'])
def test_documents_of_something_else_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"found a document that no agent writes .*; name the --out of a session"):
        rebuild(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"documents.jsonl", ".lock"}


def test_documents_without_their_starts_leave_the_earlier_tables(session: Path, tmp_path: Path) -> None:
    """As where somebody has emptied the file while the session ran."""
    lines = (session / "documents.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "documents.jsonl").write_bytes(b"".join(line for line in lines if line.startswith(b'["event')))
    (tmp_path / "descriptors.csv").write_text("earlier")
    with capture_logs() as logs, pytest.raises(InputError, match="found no frame that can be read; the tables are"):
        rebuild(tmp_path)
    assert [line["event"] for line in logs] == ["events passed over"]
    assert (tmp_path / "descriptors.csv").read_text() == "earlier"


@pytest.mark.parametrize("size", [10, 5000])
def test_a_full_disk_leaves_the_earlier_files(size: int, folder: Path) -> None:
    (folder / "descriptors.csv").write_text("earlier")
    with full_disk(size), pytest.raises(InputError, match=r"(make space|mend this), and repeat the command"):
        rebuild(folder)
    assert (folder / "descriptors.csv").read_text() == "earlier"
    assert not list(folder.glob(".rebuilt*"))


def test_a_truth_file_that_was_cut_off_at_once_counts_as_none(session: Path, folder: Path) -> None:
    (folder / "truth.jsonl").write_text('["start", {')
    assert rebuild(folder).frames == len((session / "descriptors.csv").read_text().splitlines()) - 1
    assert (folder / "operando.png").is_file()


@pytest.mark.parametrize("name", ["default", "stories/plateau", "stories/robot", "decisions/stages", "beamlines/qas"])
def test_the_rules_are_those_of_the_session(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    write_about(tmp_path, config, "a test", {})
    assert rules_of(tmp_path) == config.rules


@pytest.mark.parametrize("text", ["", "[]", '{"config": 1}', '{"config": {"rules": [{"name": "a"}]}}'])
def test_a_session_that_cannot_be_read_has_no_rules(text: str, tmp_path: Path) -> None:
    assert rules_of(tmp_path) == ()
    (tmp_path / "session.json").write_text(text)
    assert rules_of(tmp_path) == ()


def test_what_a_session_wrote_with_another_config_is_kept(tmp_path: Path) -> None:
    first, second = load_config("default"), load_config("stories/alarm")
    folder = OutputFolder(tmp_path)
    for config in (first, first, second):
        folder.keep_earlier(config.sha256)
        write_about(tmp_path, config, "a test", {})
    folder.release()
    kept = tmp_path / f"session-{first.sha256[:12]}.json"
    assert {path.name for path in tmp_path.glob("session*.json")} == {"session.json", kept.name}
    assert first.sha256 in kept.read_text()
    assert rules_of(tmp_path) == second.rules
