"""Every option that is given acts, or is refused; a session that its source ends says so."""

import json
import os

import pytest
import typer
from full_disk import full_disk

from xas_agent.adapters.files.folder import FolderSource
from xas_agent.app.commands.shared import _show, check_folder_of, conclude, settings_of
from xas_agent.app.config import load_config
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.session import Session


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "--folder", "{}", "--preset", "bmm"), "--preset: no effect without a source"),
        (("run", "--preset", "bmm"), "--preset: no effect without a source"),
        (("run", "--folder", "{}", "--config", "{}/mine.yaml"), "--folder and the source of"),
        (("run", "--folder", "{}", "--seed", "0"), "--seed: no effect without the embedded beamline"),
        (("run", "--config", "{}/mine.yaml", "--seed", "3"), "--seed: no effect without the embedded beamline"),
        (("run", "--folder", "{}", "--out", "{}/."), ", which the agent reads; expected another folder"),
        (("run", "--column", "energy=e"), "--column: no effect without --folder"),
        (("run", "--folder", "{}", "--connect-timeout", "0"), "--connect-timeout: no effect"),
        (("replay", "{}/mine.jsonl", "--noise", "0.1"), "--noise: no effect with documents"),
        (("evaluate", "cu-k", "--data", "{}", "--split", "val", "--jobs", "2"), "--jobs: no effect with --split"),
        (("evaluate", "cu-k", "--data", "{}", "--quick", "--config", "a.yaml"), "--config: no effect with --quick"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(xa, tmp_path, args, said):
    (tmp_path / "mine.yaml").write_text("source: {address: 'zmq://127.0.0.1:9'}\n")
    (tmp_path / "mine.jsonl").touch()
    assert said in xa(*(arg.format(tmp_path) for arg in args), code=2).stderr


def test_a_protected_folder_is_told_before_the_work(tmp_path, capsys, monkeypatch):
    check_folder_of("--out", tmp_path / "agent.yaml")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(typer.Exit):
        check_folder_of("--out", tmp_path / "agent.yaml")
    assert f"{tmp_path} may not be written; name another" in capsys.readouterr().err


def test_a_source_that_fails_leaves_whole_files_and_an_error(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    source = FolderSource(tmp_path / "in")
    (tmp_path / "in").rmdir()
    config, output = load_config({"model": {"use": ["co-k"], "threads": 1}}), OutputFolder(tmp_path / "out")
    with Session(config, output) as session:
        session.watch(source)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 0
    with pytest.raises(typer.Exit) as ended:
        conclude(session, strict=False)
    assert ended.value.exit_code == 2
    assert f"xas-agent: {tmp_path / 'in'}: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hurried", "code", "said"),
    [
        (False, 1, "xas-agent: the disk did not take all; see the log, and make space"),
        (True, 130, "xas-agent: ended by a second signal; not answered: nothing"),
    ],
)
def test_of_a_full_disk_and_a_second_signal_the_signal_counts(hurried, code, said, tmp_path, capsys):
    config, output = load_config({"model": {"use": ["co-k"], "threads": 1}}), OutputFolder(tmp_path / "out")
    with full_disk(10), Session(config, output) as session:
        output.documents("start", {"uid": "r"})
        if hurried:
            session.hurried.set()
    with pytest.raises(typer.Exit) as ended:
        conclude(session, strict=False)
    assert ended.value.exit_code == code
    stdout, stderr = capsys.readouterr()
    last = stderr.splitlines()[-1]
    assert last.startswith(said)
    assert f"not whole in {tmp_path / 'out'}: decisions.csv, descriptors.csv, documents.jsonl, " in last
    assert "; not written: documents 1; xas-agent rebuild" in last
    assert "not_written        documents 1" in stdout


def test_lines_of_the_summary_are_short_and_no_word_is_cut(capsys):
    word = "x" * 70
    _show("key", f"{'word ' * 20}{word} end")
    _show("empty", "")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "key".ljust(19) + "word " * 11 + "word"
    assert lines[2:] == [" " * 19 + word, " " * 19 + "end", "empty".ljust(19)]


@pytest.mark.parametrize("address", ["zmq://127.0.0.1:9", "tcp://127.0.0.1:9", "127.0.0.1:9", "ipc:///run/documents"])
def test_each_form_of_a_zmq_address_is_a_source(address):
    settings = settings_of(None, None, None, None, source=address)
    assert settings.source is not None
    assert settings.source.address == address


def test_an_unknown_kind_of_source_names_all_kinds(capsys):
    with pytest.raises(typer.Exit):
        settings_of(None, None, None, None, source="foo://127.0.0.1:9")
    assert (
        "found 'foo://127.0.0.1:9', expected zmq://, ipc://, tiled://, nats://, kafka://" in capsys.readouterr().err
    )
