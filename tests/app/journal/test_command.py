"""``xas-agent run`` in the folder of an earlier session."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest
from deadline import wait_until
from forked import run_command

from xas_agent.adapters.files import FileSink
from xas_agent.app.journal import JOURNAL, Journal

CONFIG = "model: {use: [co-k], threads: 1}\n"


def record(path: Path, frames: int, *, stop: bool = True) -> None:
    """Write a run of whole spectra of a Co edge."""
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"})
    about = {"source": "test", "dtype": "array", "shape": [201]}
    stream = run.compose_descriptor(name="primary", data_keys=dict.fromkeys(("energy", "mu"), about))
    sink, energy = FileSink(path), np.linspace(7640, 7860, 201)
    sink("start", run.start_doc)
    sink("descriptor", stream.descriptor_doc)
    for k in range(frames):
        mu = 0.5 + np.arctan(energy - 7720 - 0.001 * k) / np.pi + 0.3 * np.exp(-(((energy - 7725) / 4) ** 2))
        data = {"energy": energy, "mu": mu}
        sink("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 1.8e9 + k), validate=False))
    if stop:
        sink("stop", run.compose_stop())
    sink.close()


def documents(out: Path) -> list[Any]:
    return [json.loads(line) for line in (out / "documents.jsonl").read_text().splitlines()]


def frames(out: Path) -> list[int]:
    return [d["data"]["frame_seq_num"] for name, d in documents(out) if name == "event" and "ood_score" in d["data"]]


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A config, a recording and the folder of a session that has read it."""
    config, recording, out = tmp_path / "mine.yaml", tmp_path / "run.jsonl", tmp_path / "out"
    config.write_text(CONFIG)
    record(recording, 3)
    run_command("run", "--config", config, "--source", recording, "--out", out)
    return config, recording, out


@pytest.mark.slow
def test_the_same_command_goes_on_and_doubles_nothing(begun: tuple[Path, Path, Path]):
    config, recording, out = begun
    before, table = documents(out), (out / "descriptors.csv").read_text()
    with (out / "documents.jsonl").open("ab") as file:
        file.write(b'["event", {"uid')
    said = run_command("run", "--config", config, "--source", recording, "--out", out).stderr
    assert "incomplete document cut" in said
    assert "going on" in said
    assert documents(out) == before
    assert (out / "descriptors.csv").read_text() == table
    later = recording.with_name("later.jsonl")
    record(later, 2)
    with recording.open("ab") as file:
        file.write(later.read_bytes())
    run_command("run", "--resume", out)  # with the options of before
    assert frames(out) == [1, 2, 3, 1, 2]
    assert documents(out)[: len(before)] == before
    assert json.loads((out / "summary.json").read_text())["frames"] == 5


def test_a_session_whose_source_never_answered_may_be_given_otherwise(tmp_path: Path):
    for timeout, source in ((0.05, "zmq://127.0.0.1:9"), (0.06, "zmq://127.0.0.1:9"), (0.06, "zmq://127.0.0.1:10")):
        said = run_command(
            "run", "--source", source, "--connect-timeout", timeout, "--out", tmp_path / "out", code=3
        ).stderr
        assert "nothing answered within" in said


@pytest.mark.slow
def test_another_source_or_config_is_refused(begun: tuple[Path, Path, Path], tmp_path: Path):
    _, recording, out = begun
    other = tmp_path / "other.yaml"
    other.write_text(CONFIG + "serving: {spectra: false}\n")
    refused = run_command("run", "--config", other, "--source", recording, "--out", out, code=2).stderr
    assert "another config, expected the same command" in refused
    assert "--resume" in refused
    run_command("run", "--config", other, "--source", recording, "--resume", out)
    refused = run_command("run", "--config", other, "--resume", out, code=2).stderr
    assert "found options without a source; give all options of the session, or --resume alone" in refused
    again = tmp_path / "again.jsonl"
    again.write_bytes(recording.read_bytes())
    refused = run_command("run", "--config", other, "--source", again, "--resume", out, code=2).stderr
    assert "another source" in refused
    assert "found no journal.sqlite" in run_command("run", "--resume", tmp_path, code=2).stderr
    record(recording, 1)
    refused = run_command("run", "--resume", out, code=2).stderr
    assert f"{recording}: found {recording.stat().st_size} bytes, expected the file of before" in refused


def test_a_folder_without_a_whole_session_is_refused_or_begun(begun: tuple[Path, Path, Path], tmp_path: Path):
    config, recording, out = begun
    young = tmp_path / "young"
    young.mkdir()
    Journal(young / JOURNAL).close()
    assert "did not begin; repeat its command with --out" in run_command("run", "--resume", young, code=2).stderr
    (young / "documents.jsonl").write_bytes(b'["start", {"uid')
    run_command("run", "--config", config, "--source", recording, "--out", young)
    assert frames(young) == [1, 2, 3]
    (out / "documents.jsonl").unlink()
    refused = run_command("run", "--config", config, "--source", recording, "--out", out, code=2).stderr
    assert "documents.jsonl: found no documents" in refused
    assert "bring it back, or name another --out" in refused


@pytest.mark.slow
def test_documents_that_the_journal_lacks_are_not_answered_again(begun: tuple[Path, Path, Path], tmp_path: Path):
    """The journal is the one of an earlier moment, as after a full disk or without its journal.sqlite-wal."""
    config, recording, out = begun
    earlier, later = (out / JOURNAL).read_bytes(), tmp_path / "later.jsonl"
    record(later, 2, stop=False)
    with recording.open("ab") as file:
        file.write(later.read_bytes())
    run_command("run", "--resume", out)
    before, table = documents(out), (out / "descriptors.csv").read_text()
    (out / JOURNAL).write_bytes(earlier)
    refused = run_command("run", "--config", config, "--source", recording, "--out", out, code=2).stderr
    assert "documents that the journal beside it lacks" in refused
    assert "name another --out" in refused
    assert documents(out) == before
    assert (out / "descriptors.csv").read_text() == table


@pytest.mark.slow
def test_a_session_that_ended_repeats_no_note(tmp_path: Path):
    """A run that never stopped ends with part of a step scan, and has a stream that cannot be read."""
    recording, out = tmp_path / "run.jsonl", tmp_path / "out"
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"})
    about = {"source": "test", "dtype": "number", "shape": []}
    keys = dict.fromkeys(("energy", "I0", "It"), about)
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    sink = FileSink(recording)
    sink("start", run.start_doc)
    sink("descriptor", stream.descriptor_doc)
    for number in range(40):
        data = {"energy": 7640.0 + number, "I0": 1e6, "It": 1e5}
        sink("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 1.8e9), validate=False))
    sink("event", {"descriptor": stream.descriptor_doc["uid"], "seq_num": "none", "data": {}})
    sink.close()
    run_command("run", "--source", recording, "--out", out, "--model", "co-k")
    before = documents(out)
    notes = [d["data"]["reason"] for name, d in before if name == "event"]
    assert sorted(notes) == ["malformed document", "run never stopped"]
    for _ in range(2):
        run_command("run", "--resume", out)
        assert documents(out) == before


@pytest.mark.slow
def test_a_session_that_served_its_frames_reads_no_more(tmp_path: Path):
    recording, out = tmp_path / "run.jsonl", tmp_path / "out"
    record(recording, 3, stop=False)
    command = ("run", "--source", recording, "--out", out, "--model", "co-k", "--frames", 3)
    run_command(*command)
    before, later = documents(out), tmp_path / "later.jsonl"
    record(later, 3)
    with recording.open("ab") as file:
        file.write(later.read_bytes())
    assert "the requested number of frames was served before" in run_command(*command).stderr
    assert documents(out) == before
    run_command(*command[:-1], 6)
    assert frames(out) == [1, 2, 3, 1, 2, 3]


@pytest.mark.slow
def test_a_session_answers_as_many_frames_as_it_was_asked_to_and_the_others_when_it_goes_on(tmp_path: Path):
    """All eight wait while the model loads."""
    recording, out = tmp_path / "run.jsonl", tmp_path / "out"
    record(recording, 8)
    command = ("run", "--source", recording, "--out", out, "--model", "co-k", "--frames")
    for asked in (2, 5):
        assert f"frames             {asked}\n" in run_command(*command, asked).stdout
        assert frames(out) == [*range(1, asked + 1)]
        assert len((out / "descriptors.csv").read_text().splitlines()) == 1 + asked
        assert json.loads((out / "summary.json").read_text())["frames"] == asked
        assert documents(out)[-1][1]["exit_status"] == "abort"
    run_command(*command, 100)
    assert frames(out) == [*range(1, 9)]
    assert documents(out)[-1][1]["exit_status"] == "success"


def test_frames_that_are_set_aside_count_and_the_session_ends(tmp_path: Path):
    """Their notes wait until a frame shows the model, which none does within the limit."""
    recording, out = tmp_path / "run.jsonl", tmp_path / "out"
    run = event_model.compose_run(metadata={"plan_name": "scan"})
    about = {"source": "test", "dtype": "array", "shape": [201]}
    stream = run.compose_descriptor(name="primary", data_keys=dict.fromkeys(("energy", "mu"), about))
    sink = FileSink(recording)
    sink("start", run.start_doc)
    sink("descriptor", stream.descriptor_doc)
    for k in range(5):
        data = {"energy": np.linspace(100, 200, 201), "mu": np.linspace(0, 1, 201)}
        sink("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 1.8e9 + k), validate=False))
    sink.close()
    run_command("run", "--source", recording, "--out", out, "--frames", 3)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 0
    assert sum(summary["frames_set_aside"].values()) == 3


@pytest.mark.slow
def test_resume_alone_takes_strict_as_well(tmp_path: Path):
    recording, out = tmp_path / "run.jsonl", tmp_path / "out"
    record(recording, 2, stop=False)
    with recording.open("a") as file:
        file.write('["event", {}]\n')
    run_command("run", "--source", recording, "--out", out, "--model", "co-k", code=0)
    before = documents(out)
    assert run_command("run", "--resume", out, "--strict", code=4).returncode == 4
    assert documents(out) == before


@pytest.mark.slow
def test_a_killed_session_goes_on_under_another_config_in_a_new_run(tmp_path: Path):
    config, recording, out = tmp_path / "mine.yaml", tmp_path / "run.jsonl", tmp_path / "out"
    config.write_text(CONFIG)
    record(recording, 3000)
    line = [sys.executable, "-m", "xas_agent", "run", "--config", config, "--source", recording, "--out", out]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: (out / "documents.jsonl").exists() and len(documents(out)) > 20, 100)
        os.kill(process.pid, signal.SIGKILL)
    config.write_text(CONFIG + "serving: {spectra: false}\n")
    run_command("run", "--config", config, "--source", recording, "--resume", out)
    assert frames(out) == list(range(1, 3001))
    starts = [doc for name, doc in documents(out) if name == "start"]
    stops = [doc for name, doc in documents(out) if name == "stop"]
    assert len({doc["config_sha256"] for doc in starts}) == len(starts) == 2
    assert [doc["exit_status"] for doc in stops] == ["abort", "success"]
    assert "another config" in stops[0]["reason"]
