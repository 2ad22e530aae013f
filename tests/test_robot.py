"""A beamline with a robot and the agent, in processes of their own, over ZMQ."""

import csv
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from forked import command, run_command
from lossy import lossy_proxy

from xas_agent.adapters.robot import RobotControl, RobotSettings
from xas_agent.adapters.robot.schema import RobotStatus
from xas_agent.adapters.zmq import ZMQControl, make_secret
from xas_agent.adapters.zmq.authentication import SECRET_VARIABLE
from xas_agent.agent.types.protocols import Reply

HEAT = {"target_c": 300.0, "ramp_c_per_min": 1e9}
DOSE = {"reagent": "LiPF6", "amount": 5.0, "unit": "uL"}
CONFIG = """
model: {{use: [co-k]}}
rules:
  - name: half charged
    trigger: &half {{kind: threshold, descriptor: OS, above: 3.5, window_frames: 21}}
    action: stop
  - {{name: away, trigger: *half, action: unload}}
  - {{name: another, trigger: *half, action: load, args: {{sample: next}}}}
control: {{enabled: true, allow: [stop, unload, load]}}
control_endpoint: {{address: "{control}"}}
robot: {{address: "{robot}", retry_s: 0.2}}
"""
HEATING = """
model: {{use: [co-k]}}
rules:
  - name: any
    trigger: {{kind: threshold, descriptor: OS, above: 1.0}}
    action: heat
    args: {{target_c: 900, ramp_c_per_min: 0.1}}
control: {{enabled: true, allow: [heat]}}
control_endpoint: {{address: "{control}"}}
robot: {{address: "{robot}"}}
"""
SILENT_AGENT = """
import sys
from xas_agent.adapters.robot import RobotControl, RobotSettings
control = RobotControl(RobotSettings(address=sys.argv[1]))
print(control.request("a", "heat", {"target_c": 300, "ramp_c_per_min": 1e9}, 30).status, flush=True)
sys.stdin.read()
"""


@contextmanager
def beamline(tmp_path: Path, *options: Any, robot: str = "") -> Iterator[dict[str, str]]:
    """Run a beamline with a robot; yield its addresses."""
    robot = robot or f"ipc://{tmp_path}/robot"
    line = command("sim", "--publish", "zmq://127.0.0.1:0", "--robot", robot, *options)
    with (tmp_path / "beamline.log").open("w") as log:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (tmp_path / "beamline.log").read_text()
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def status_of(address: str) -> RobotStatus:
    with closing(ZMQControl(address)) as asker:
        reply = asker.request(uuid.uuid4().hex, "status", {}, 10)
    return RobotStatus.model_validate(reply.data)


@pytest.mark.slow
def test_a_thousand_actions_through_a_lossy_connection_are_done_once(tmp_path):
    memory, actions = tmp_path / "memory.jsonl", 1000
    cycle = [("dose", DOSE), ("heat", HEAT), ("unload", {}), ("load", {"sample": "next"})]
    options = ["--samples", 251, "--change", 0, "--memory", memory, "--wait", 0]
    with (
        beamline(tmp_path, *options) as addresses,
        lossy_proxy(addresses["robot"], tmp_path) as (lossy, losses),
        closing(RobotControl(RobotSettings(address=lossy, retry_s=0.05))) as control,
    ):
        for n in range(actions):
            action, args = cycle[n % 4]
            assert control.request(str(n), action, args, 60) == Reply("acknowledged", "done"), n
        assert status_of(addresses["robot"]).sample == "A251"
    lines = [json.loads(line) for line in memory.read_text().splitlines()]
    for state in ("running", "done"):
        found = [(line["id"], line["action"]) for line in lines if line["state"] == state]
        assert found == [(str(n), cycle[n % 4][0]) for n in range(actions)]
    assert len(lines) == 2 * actions
    for fate in ("lost", "repeated"):
        assert losses.counts[fate] / losses.counts.total() == pytest.approx(0.1, abs=0.02)


@pytest.mark.slow
def test_a_killed_agent_brings_the_robot_into_its_safe_state(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    make_secret(secret)
    monkeypatch.setenv(SECRET_VARIABLE, secret.read_text().strip())
    options = ["--safe-after", 2, "--wait", 0, "--control-secret", secret]
    with beamline(tmp_path, *options, robot="zmq://127.0.0.1:0") as addresses:
        assert addresses["robot"].startswith("zmq://127.0.0.1:")
        line = [sys.executable, "-c", SILENT_AGENT, addresses["robot"]]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
            assert agent.stdout is not None
            assert agent.stdout.readline() == "acknowledged\n"
            assert status_of(addresses["robot"]).heater_on
            agent.kill()
        wait_until(lambda: status_of(addresses["robot"]).state == "safe")
        status = status_of(addresses["robot"])
    assert (status.heater_on, status.sample) == (False, "A1")
    assert status.reason.startswith("no heartbeat for 2")


@pytest.mark.slow
@pytest.mark.usefixtures("own_sockets")
def test_an_emergency_stop_ends_what_the_robot_does(tmp_path):
    """Beamline with robot, agent, and the commands of a person, each in a process of its own."""
    options = ["--samples", 2, "--frames", 400, "--period", 0.2, "--control", f"ipc://{tmp_path}/control"]
    with beamline(tmp_path, *options) as addresses:
        (tmp_path / "mine.yaml").write_text(HEATING.format(**addresses))
        line = command("run", "--config", "mine.yaml", "--source", addresses["documents"], "--out", "out")
        agent = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: status_of(addresses["robot"]).state == "busy", 100)
            assert status_of(addresses["robot"]).heater_on
            said = person("halt", "--as", "ada", "--why", "smoke")
            assert "stop acknowledged" in said
            assert "halt of the robot acknowledged: heat was ended" in said
            status = status_of(addresses["robot"])
            assert (status.state, status.heater_on, status.sample) == ("halted", False, "A1")
            assert status.reason == "emergency stop by ada: smoke"
            table = tmp_path / "out" / "decisions.csv"
            wait_until(lambda: "heat" in {row["action"] for row in answers(table)}, 30)
            [heated] = [row for row in answers(table) if row["action"] == "heat"]
            assert (heated["status"], heated["status_reason"]) == ("expired", f"halted: {status.reason}")
            assert "release of the robot acknowledged" in person("release", "--as", "ada")
            assert status_of(addresses["robot"]).state == "safe"
        finally:
            agent.terminate()
            agent.communicate(timeout=60)
    by = {row["action"]: (row["proposed_by"], row["status"]) for row in answers(table)}
    assert by == {
        "heat": ("", "expired"),
        "stop": ("ada", "acknowledged"),
        "halt": ("ada", "acknowledged"),
        "release": ("ada", "acknowledged"),
    }


def person(*words: str) -> str:
    return run_command(*words).stdout


@pytest.mark.slow
def test_the_agent_measures_one_sample_after_the_other(tmp_path):
    options = [
        "--samples",
        2,
        "--change",
        0.1,
        "--frames",
        40,
        "--period",
        0.1,
        "--control",
        f"ipc://{tmp_path}/control",
    ]
    with beamline(tmp_path, *options) as addresses:
        (tmp_path / "mine.yaml").write_text(CONFIG.format(**addresses))
        line = command("run", "--config", "mine.yaml", "--source", addresses["documents"], "--out", "out")
        agent = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        table = tmp_path / "out" / "decisions.csv"
        wait_until(
            lambda: table.exists() and table.read_text().count("another") >= 2 and len(answers(table)) == 6, 100
        )
        agent.terminate()
        said = agent.communicate(timeout=60)[1]
    assert [(row["sample"], row["action"], row["status"]) for row in answers(table)] == [
        ("A1", "stop", "acknowledged"),
        ("A1", "unload", "acknowledged"),
        ("A1", "load", "acknowledged"),
        ("A2", "stop", "acknowledged"),
        ("A2", "unload", "acknowledged"),
        ("A2", "load", "rejected"),
    ], said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["samples"]) == {"A1", "A2"}
    assert summary["not_carried_out"] == {"rejected": 1}


def test_options_of_the_robot_need_one(xa):
    assert "--samples, --change: no effect without --robot" in xa("sim", "--samples", 3, "--change", 1, code=2).stderr


def answers(table: Path) -> list[dict[str, str]]:
    if not table.exists():  # it begins with the first decision
        return []
    with table.open() as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["status"] not in ("proposed", "sent")]
