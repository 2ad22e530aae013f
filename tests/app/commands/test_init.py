"""``xas-agent init``: configs that load, rules that do nothing unasked, and commands that work as printed."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked import run_command
from made_scans import ENERGY, columns, documents, saved

from xas_agent.app.config import load_config
from xas_agent.models import card


@pytest.fixture
def recording(tmp_path, monkeypatch) -> Path:
    """A scan of NiO with odd names, in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    return saved(Path("recorded.jsonl"), documents(columns(), plan_name="xafs", motors=["mono_bragg_e"]))


def written(*args: object) -> tuple[str, str]:
    """What the command prints, within 80 columns but for commands, and the config."""
    shown = run_command("init", *args, columns=80).stdout
    assert max(map(len, shown.splitlines())) <= 80
    text = Path("agent.yaml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    return shown, text


def commands(shown: str) -> list[list[str]]:
    lines = shown.replace(" \\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("  xas-agent ") and "HOST" not in line]


@pytest.mark.slow
def test_a_recording_with_odd_names(recording):
    shown, text = written(recording)
    config = load_config("agent.yaml")
    assert (config.fields.energy, config.fields.it) == ("mono_bragg_e", "ic_dn_V")
    assert (config.fields.element, config.fields.edge) == ("Ni", "K")
    assert config.model.use == ("ni-k",)
    assert not config.control.enabled
    assert [rule.action for rule in config.rules] == ["pause"]
    assert text.count("#") > 15  # it explains itself
    for words in commands(shown):
        if words[1] != "doctor":
            run_command(*words[1:])
    assert "frames" in Path("trial/summary.json").read_text()


@pytest.mark.slow
def test_files_whose_columns_need_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = columns()
    Path("scans").mkdir()
    np.savetxt("scans/a.dat", np.column_stack(list(data.values())), header=" ".join(data))
    shown, text = written("scans/a.dat", "--above", 2)
    assert "mono_bragg_e" not in text  # columns of files are named by the command
    rehearse, run = commands(shown)[2:]
    assert "--column" in run
    assert "OS above 2" in run_command(*rehearse[1:]).stdout
    assert ENERGY.size == len(data["mono_bragg_e"])
    assert "frames             1" in run_command(*run[1:], "--frames", 1).stdout


def test_the_simulated_beamline_needs_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown, _ = written()
    assert load_config("agent.yaml").rules[0].trigger.above == 3.3
    assert commands(shown)[-1] == ["xas-agent", "run", "--config", "agent.yaml", "--out", "night1"]


def test_a_live_beamline_that_does_not_measure_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--action", "stop", "--authority", "confirm", "--below", 2.5, "--quantity", "OS", "--model", "ni-k")
    written("zmq://beamline:5578", "--no-look", "--control", "ipc:///tmp/control", "--preset", "bmm", *options)
    config = load_config("agent.yaml")
    assert config.source is not None
    assert config.source.address == "zmq://beamline:5578"
    assert config.preset == "bmm"
    assert config.control.authority_for("stop") == "confirm"
    assert config.control_endpoint is not None
    content = yaml.safe_load(Path("agent.yaml").read_text())
    assert content["rules"][0]["trigger"]["below"] == 2.5
    assert "stop" in run_command("rules", "explain", "agent.yaml").stdout


def test_a_recording_that_is_not_looked_at(recording):
    shown, _ = written(recording, "--no-look", "--element", "ni", "--edge", "K", "--action", "notify")
    assert load_config("agent.yaml").rules[0].action == "notify"
    assert ["--source", "recorded.jsonl"] in [words[4:6] for words in commands(shown)]


def test_a_named_model_is_that_of_the_config_and_of_what_is_said(recording):
    shutil.copytree(card.find("ni-k"), "mine")
    shown, _ = written(recording, "--model", "mine")
    assert load_config("agent.yaml").model.use == ("mine",)
    assert [line for line in shown.splitlines() if line.startswith("Model: ")] == ["Model: mine, as named"]


def test_a_queue_server_takes_the_requests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written("tiled://localhost:8000/raw", "--no-look", "--control", "tcp://localhost:60615")
    config = load_config("agent.yaml")
    assert config.queue_server is not None
    assert config.tiled is not None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--above", 3, "--below", 2), "expected one of them"),
        (("--element", "Zn", "no-such.jsonl", "--no-look"), "no model for Zn"),
        (("--quantity", "OS", "--out", "no-such/agent.yaml"), "found no folder no-such"),
        (("no-such.jsonl",), "no-such.jsonl"),
        (("--quantity", "OSS"), "found OSS, expected a descriptor: OS, CN"),
        (
            ("--element", "Co", "x.jsonl", "--no-look", "--model", "fe-k"),
            "found a model of Fe K, but the spectra are Co",
        ),
        (("--model", "cu-k"), "found a model of Cu K, but the spectra are Co K"),
    ],
)
def test_what_cannot_be_used_writes_nothing(args, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in run_command("init", *args, code=2).stderr
    assert not Path("agent.yaml").exists()


def test_an_existing_config_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("agent.yaml").write_text("rules: []\n")
    assert "existing file" in run_command("init", code=2).stderr
    assert Path("agent.yaml").read_text() == "rules: []\n"


def test_on_a_terminal_it_asks(recording):
    """Answers typed at a terminal: the source, Enter for the element, and a rule below a level."""
    answers = [b"recorded.jsonl\n", b"\n", b"mean_bond\n", b"<2.0\n", b"jump\n", b"stop\n", b"confirm\n"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "xas_agent", "init"])
    said, until = b"", time.monotonic() + 90
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            said += os.read(terminal, 4096)
        except OSError:  # the command has ended
            break
        if answers and re.search(rb": $", said):
            os.write(terminal, answers.pop(0))
            said += b"\n"
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, said.decode()
    assert not answers
    assert b"found 'jump', expected pause or stop or notify" in said
    config = load_config("agent.yaml")
    assert config.fields.element == "Ni"
    [rule] = config.rules
    assert (rule.name, rule.action) == ("mean_bond below 2", "stop")
    assert config.control.authority_for("stop") == "confirm"


def test_its_output_is_not_asked_for_without_a_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "xas_agent", "init"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Where do the spectra come from" not in done.stdout
