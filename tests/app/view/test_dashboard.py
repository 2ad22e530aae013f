"""A session with its dashboard: what a person sees and does while it runs, and after it."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from forked import run_command
from logs import capture_logs
from shown_session import Shown, shown

import xas_agent.app.dashboard as module
from xas_agent.agent.types import InputError
from xas_agent.app.children import command_of, environment
from xas_agent.app.commands.shared import WithDashboard
from xas_agent.app.dashboard import Dashboard, require_extra
from xas_agent.app.view.address import address_of

ROOT = Path(__file__).parents[3]
CONFIRM = """
model: {use: [co-k]}
rules:
  - name: charging
    trigger: {kind: threshold, quantity: OS, above: 3.0}
    action: stop
control: {enabled: true, allow: [stop, pause, resume], authority: confirm}
"""


def about(told: str) -> tuple[int, str]:
    """Return port and token of the line that tells where a dashboard is."""
    address, _, token = told.split()[1].partition("?token=")
    return int(address.rstrip("/").rpartition(":")[2]), token


@contextmanager
def session(*args: object) -> Iterator[Shown]:
    """Run a session with a dashboard until the block ends."""
    line = command_of("xas_agent", "run", "--dashboard", "127.0.0.1:0", *args)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = subprocess.Popen(line, env=environment(), **streams)  # type: ignore[call-overload]
    try:
        assert process.stderr
        told = next(line for line in process.stderr if line.startswith("dashboard "))
        yield Shown(*about(told), process)
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_person_approves_in_the_dashboard_and_the_experiment_stops(tmp_path: Path):
    (tmp_path / "confirm.yaml").write_text(CONFIRM)
    out = tmp_path / "out"
    with session("--config", tmp_path / "confirm.yaml", "--out", out) as dashboard:
        decisions = "/api/sessions/out/decisions"
        wait_until(lambda: any(decision["can_approve"] for decision in dashboard.json(decisions)), 120)
        [waiting] = dashboard.json(decisions)
        state = dashboard.json("/api/sessions/out/state")
        assert (state["live"], state["connected"], state["pending"]) == (True, True, [waiting["id"]])
        assert {sink["name"] for sink in state["sinks"]} >= {"tables and picture", "documents.jsonl", "audit.jsonl"}
        [rule] = state["rules"]
        assert (rule["name"], rule["quantity"], rule["level"], rule["unit"]) == ("charging", "OS", 3.0, "e")
        assert rule["distance"] == pytest.approx(rule["level"] - rule["value"])
        [described] = dashboard.json("/api/sessions/out")["rules"]
        assert (described["levels"], described["quantity"]) == ([3.0], "OS")
        with dashboard.events("out") as events:
            assert dashboard.order("out", command="approve", id=waiting["id"], by="ada")[1]["ok"] is True
            statuses = (data["status"] for _, name, data in events if name == "decision")
            assert next(status for status in statuses if status == "acknowledged")
        dashboard.process.wait(120)
        assert dashboard.process.returncode == 0
    commands = [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]
    assert [(c["command"], c["by"]) for c in commands if "command" in c] == [("approve", "ada")]
    with shown(out, "--port", 0) as again:
        assert again.token == dashboard.token
        [decision] = again.json(decisions)
        steps = [(step["status"], step.get("by")) for step in decision["history"]]
        assert steps == [("proposed", None), ("approved", "ada"), ("sent", None), ("acknowledged", None)]
        assert decision["evidence"][0]["quantity"] == "OS"
        uid = decision["evidence"][-1]["uid"]
        spectrum = again.json(f"/api/sessions/out/spectra/{uid}")
        assert len(spectrum["measured"]["mu"]) == len(spectrum["measured"]["post_edge"]) > 50
        probabilities = again.json("/api/sessions/out/frames?limit=1")[0]["probabilities"]["OS"]
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_the_dashboard_is_there_before_the_session_and_ends_with_it(tmp_path: Path):
    dashboard = Dashboard(tmp_path, "127.0.0.1:0")
    process = dashboard._process
    port, token = about(dashboard.lines[0])
    there = Shown(port, token, process)  # type: ignore[arg-type]
    assert there.json("/api/sessions")[0]["frames"] == 0, "asked at once, and answered when the child listens"
    assert f"xas-agent view {tmp_path}" in dashboard.close()
    assert process.poll() is not None
    assert (tmp_path / module.LOG).read_text() == ""


def test_the_dashboard_ends_when_its_session_is_killed(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from xas_agent.app.dashboard import Dashboard;"
        "d = Dashboard(Path(sys.argv[1]), '127.0.0.1:0'); print(d._process.pid, flush=True); input()"
    )
    line = [sys.executable, "-P", "-c", code, str(tmp_path)]
    parent = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_until(lambda: not running(pid))


def test_a_session_says_that_its_dashboard_was_killed(tmp_path: Path):
    with capture_logs() as logs:
        dashboard = Dashboard(tmp_path, "127.0.0.1:0")
        dashboard._process.kill()
        wait_until(lambda: any("dashboard has ended" in entry["event"] for entry in logs))
    assert f"xas-agent view {tmp_path}" in str(logs)
    assert f"xas-agent view {tmp_path}" in dashboard.close()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "fastapi" else object())
    with pytest.raises(InputError, match=r"found no fastapi, .* pip install 'xas-agent\[dashboard\]'"):
        require_extra()


def test_the_extra_has_what_is_looked_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dashboard"]
    names = {requirement.partition(">=")[0] for requirement in extras}
    assert names >= {"fastapi", "uvicorn", "pyarrow"}


def test_the_dashboard_needs_a_folder(tmp_path: Path):
    recording = tmp_path / "a.jsonl"
    recording.write_text('["start", {"uid": "a", "time": 1.0}]\n')
    assert "needs --out" in run_command("run", "--source", recording, "--dashboard", code=2).stderr


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (["--dashboard"], ["--dashboard", ":"]),
        (["--dashboard", "0.0.0.0:80"], ["--dashboard", "0.0.0.0:80"]),
        (["--dashboard", "rec.jsonl"], ["--dashboard", ":", "rec.jsonl"]),
        (["--dashboard", "--out", "x"], ["--dashboard", ":", "--out", "x"]),
        (["--out", "x"], ["--out", "x"]),
    ],
)
def test_the_option_may_stand_without_an_address(
    given: list[str], understood: list[str], monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []
    monkeypatch.setattr("typer.core.TyperCommand.parse_args", lambda self, ctx, args: seen.append(args) or [])
    WithDashboard("run").parse_args(None, given)  # type: ignore[arg-type]
    assert seen == [understood]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        (":9000", ("127.0.0.1", 9000)),
        ("", ("127.0.0.1", None)),
        ("hutch", ("hutch", None)),
        ("[::1]", ("::1", None)),
    ],
)
def test_addresses(text: str, address: tuple[str, int | None]):
    assert address_of(text, "--bind") == address
    with pytest.raises(InputError, match="expected HOST:PORT"):
        address_of("127.0.0.1:99999", "--bind")
