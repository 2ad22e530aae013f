"""``xas-agent doctor`` on this machine: what is wrong is said, with what to do, and makes the exit code."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from contextlib import closing
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from forked import run_command

from xas_agent.app.jobs import doctor_machine, doctor_setup
from xas_agent.app.jobs.doctor import EXTRAS
from xas_agent.app.jobs.finding import Finding

ROOT = Path(__file__).resolve().parents[3]
DEVELOPMENT = {"test", "docs", "dev", "all"}


def found(*args: object, code: int = 0) -> dict[str, list[Finding]]:
    """The findings by what was checked."""
    content = json.loads(run_command("doctor", "--json", *args, code=code).stdout)
    assert content["ok"] is (code == 0)
    by_check: dict[str, list[Finding]] = {}
    for line in content["findings"]:
        by_check.setdefault(line["check"], []).append(Finding(**line))
    return by_check


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_machine_that_is_ready(tmp_path):
    shown = run_command("doctor", "--out", tmp_path / "night1", columns=80).stdout
    lines = shown.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    states = {line.split()[0] for line in lines[: lines.index("")] if line[0] != " "}
    assert states <= {"ok", "off", "warn"}
    for check in ("python", "torch", "models", "port", "clock", "memory", "disk", "sockets", "sessions"):
        assert re.search(rf"^(ok|warn|off) +{check} ", shown, re.MULTILINE), check
    assert lines[lines.index("") + 1].startswith("ready")
    assert not (tmp_path / "night1").exists()
    assert not list(tmp_path.iterdir())  # the trial file is gone


def test_a_terminal_of_another_encoding_is_warned_and_served():
    code = """
import sys
from xas_agent.app.commands.doctor import _say
from xas_agent.app.jobs.doctor_machine import terminal
[finding] = terminal()
_say(finding)
"""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.decode("latin-1").startswith("warn  terminal")
    assert "PYTHONUTF8=1" in done.stdout.decode("latin-1")


def test_what_a_config_needs_and_cannot_have(tmp_path):
    port = free_port()
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        taken = listening.getsockname()[1]
        (tmp_path / "mine.yaml").write_text(
            f"source: {{address: 'zmq://127.0.0.1:{port}'}}\n"
            f"publish: {{address: 'zmq://127.0.0.1:{taken}'}}\n"
            f"control_endpoint: {{address: 'ipc://{tmp_path}/control'}}\n"
            f"health: 127.0.0.1:{taken}\n"
            "model: {use: [co-k]}\n"
            f"notify: [{{command: [no-such-program]}}, {{webhook: 'http://127.0.0.1:{port}/T0/secret'}}]\n"
            "rules: [{name: r, trigger: {kind: threshold, quantity: OSS, above: 3}}]\n"
        )
        by_check = found("--config", tmp_path / "mine.yaml", code=1)
    [source], [publish], [control] = by_check["source"], by_check["publish"], by_check["control_endpoint"]
    assert source.state == "fail"
    assert "refused" in source.text
    assert "key source" in source.remedy
    assert publish.state == "warn"
    assert "a port is open, but nothing says within 3 s that it speaks ZMQ" in publish.text
    assert control.state == "fail"
    assert [f.state for f in by_check["port"]][-1] == "fail"
    webhook, command = by_check["notify"]
    assert webhook.text.startswith(f"http://127.0.0.1:{port}: ")
    assert "no-such-program was not found" in command.text
    assert "'OSS'" in by_check["rules"][0].text
    assert by_check["config"][0].state == "ok"


def test_a_model_that_the_config_names_and_that_is_not_there(tmp_path):
    (tmp_path / "mine.yaml").write_text("model: {use: [no-such-model]}\n")
    by_check = found("--config", tmp_path / "mine.yaml", code=1)
    assert [(f.state, "no model 'no-such-model'" in f.text) for f in by_check["model"]] == [("fail", True)]
    assert "torch" not in by_check


def test_a_config_that_is_wrong_is_one_of_the_lines(tmp_path):
    (tmp_path / "mine.yaml").write_text("control: {enabeld: true}\n")
    [finding] = found("--config", tmp_path / "mine.yaml", code=1)["config"]
    assert "unknown key control.enabeld" in finding.text


def test_a_changed_model_is_found(tmp_path, monkeypatch):
    from xas_agent.models import card

    folder = tmp_path / "co-k"
    folder.mkdir()
    (folder / "card.yaml").write_text((card.find("co-k") / "card.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "model.ts").write_bytes(b"other")
    monkeypatch.setattr(card, "installed", lambda: {"co-k": folder})
    [finding] = doctor_setup.files_of_models()
    assert finding.state == "fail"
    assert "does not match its card" in finding.text


def test_a_folder_without_room_or_right(tmp_path, monkeypatch):
    if os.getuid():
        tmp_path.chmod(0o500)
        [finding] = doctor_machine.disk(tmp_path)
        assert finding.state == "fail"
        tmp_path.chmod(0o700)
    monkeypatch.setattr(doctor_machine, "_LOW_FREE_GB", 1e9)
    assert next(doctor_machine.disk(tmp_path)).state == "warn"
    monkeypatch.setattr(doctor_machine, "_LEAST_FREE_GB", 1e9)
    assert next(doctor_machine.disk(tmp_path)).state == "fail"


def test_a_network_file_system_is_named(tmp_path, monkeypatch):
    assert doctor_machine.file_system(Path("/proc")) == "proc"
    monkeypatch.setattr(doctor_machine, "file_system", lambda folder: "nfs4")
    assert any("journal.sqlite" in f.text for f in doctor_machine.disk(tmp_path))


@pytest.mark.parametrize(("state", "expected"), [((True, 0.002), "ok"), ((False, 16.0), "warn"), (None, "ok")])
def test_a_clock_that_nobody_sets(state, expected, monkeypatch):
    monkeypatch.setattr(doctor_machine, "kernel_clock", lambda: state)
    [finding] = doctor_machine.clock()
    assert finding.state == expected


def test_missing_and_old_packages(monkeypatch):
    versions = {"numpy": "1.0", "scipy": "99.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor_machine, "version", version)
    monkeypatch.setattr(
        doctor_machine, "requires", lambda _: ["numpy>=1.26", "scipy>=1.11", "torch", 'tiled; extra == "tiled"']
    )
    [finding] = doctor_machine.packages()
    assert finding.state == "fail"
    assert "missing: torch; numpy 1.0, expected >=1.26" in finding.text
    by_extra = {f.check: f for f in doctor_setup.extras(None)}
    assert list(by_extra) == ["[tiled]"]
    assert by_extra["[tiled]"].state == "off"
    assert by_extra["[tiled]"].remedy == "pip install 'xas-agent[tiled]'"


def test_every_extra_for_users_is_known():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - DEVELOPMENT


def test_a_killed_session_is_found_and_left_alone(tmp_path):
    """Only a command to a session removes what a killed one left."""
    code = """
import socket
from xas_agent.app.ask import sockets_folder
socket.socket(socket.AF_UNIX).bind(str(sockets_folder() / "77.sock"))
"""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    done = subprocess.run(
        [sys.executable, "-c", "from xas_agent.app.jobs.doctor_setup import sockets; print(*sockets(), sep='\\n')"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert "process 77" in done.stdout
    assert (tmp_path / "xas-agent" / "77.sock").exists()


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "night1").touch()
    [disk] = found("--out", tmp_path / "night1" / "raw", code=1)["disk"]
    assert (disk.state, disk.text) == ("fail", f"{tmp_path / 'night1'}: found a file, expected a folder")
