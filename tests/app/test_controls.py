"""Decisions reach the control that takes them: the plan, the robot, and whom to tell."""

import re
import sys
from contextlib import closing
from typing import Any

import pytest
import yaml
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.utils import RunEngineInterrupted
from deadline import wait_until
from logs import capture_logs

from xas_agent import XASAgent, load_config
from xas_agent.adapters.files import FileSink
from xas_agent.adapters.robot import RobotServer
from xas_agent.agent.types.settings import ConfigError
from xas_agent.app.jobs.doctor_setup import reached
from xas_agent.sim_beamline.beamline import detectors
from xas_agent.sim_beamline.sample_changer import SampleChanger

HIGH = {"kind": "threshold", "descriptor": "OS", "above": 2.5, "dwell_frames": 2, "max_ood": None}
MD = {"element": "Co", "edge": "K", "sample_name": "cathode"}
DOSE = {"reagent": "LiPF6", "amount": 5.0, "unit": "uL"}


def rule(action: str, args: Any = None) -> dict[str, Any]:
    return {"name": action, "trigger": HIGH, "action": action, "args": args or {}}


def config(**keys: Any) -> dict[str, Any]:
    return {"model": {"use": ["co-k"], "threads": 1}, **keys}


def watch(settings: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Measure until the plan is stopped; return status and reason of each action."""
    RE, answers = RunEngine({}), {}
    with XASAgent.from_config(settings, RE=RE) as agent:

        def keep(name: str, doc: dict[str, Any]) -> None:
            if name == "event" and "status" in doc["data"]:
                answers[doc["data"]["action"]] = doc["data"]["status"], doc["data"]["status_reason"]

        agent.subscribe(keep)
        RE.subscribe(agent)
        with pytest.raises(RunEngineInterrupted):
            RE(count(detectors(), 2000, delay=0.05, md=MD))
        assert agent.wait(60)
    return answers


def test_each_decision_reaches_its_control(tmp_path):
    told = tmp_path / "told"
    keep = f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())"
    changer = SampleChanger(["A1", "A2"], 0.0)
    with closing(RobotServer(f"ipc://{tmp_path}/robot", changer)) as robot:
        answers = watch(
            config(
                rules=[
                    rule("stop"),
                    rule("notify"),
                    rule("dose", DOSE),
                    rule("heat", {"target_c": 80, "ramp_c_per_min": 1}),
                ],
                control={"enabled": True, "allow": ["stop", "dose"]},
                robot={"address": robot.address},
                notify=[{"command": [sys.executable, "-c", keep]}],
            )
        )
    assert answers == {
        "stop": ("acknowledged", "stopped"),
        "notify": ("acknowledged", f"command {sys.executable}"),
        "dose": ("acknowledged", "done"),
        "heat": ("rejected", "heat is not among the allowed actions"),
    }
    assert '"sample": "cathode"' in told.read_text()


def test_a_destination_that_hangs_does_not_delay_a_stop(tmp_path):
    """The command ends only after the plan was stopped."""
    stopped = tmp_path / "stopped"
    hang = f"import os, time\nwhile not os.path.exists({str(stopped)!r}): time.sleep(0.01)"
    settings = config(
        rules=[rule("notify"), rule("stop")],
        control={"enabled": True, "allow": ["stop"]},
        notify=[{"command": [sys.executable, "-c", hang], "timeout_s": 60}],
    )
    RE, answers = RunEngine({}), {}
    with XASAgent.from_config(settings, RE=RE) as agent:
        agent.subscribe(
            lambda name, doc: (
                answers.update({doc["data"]["action"]: doc["data"]["status"]})
                if "status" in doc.get("data", {})
                else None
            )
        )
        RE.subscribe(agent)
        with pytest.raises(RunEngineInterrupted):
            RE(count(detectors(), 2000, delay=0.05, md=MD))
        # The command still hangs, so that its note stays "sent".
        wait_until(lambda: answers == {"stop": "acknowledged", "notify": "sent"})
        stopped.touch()
        assert agent.wait(60)
    assert answers == {"stop": "acknowledged", "notify": "acknowledged"}


def test_a_destination_that_fails_is_reported():
    settings = config(
        rules=[rule("notify"), rule("stop")],
        control={"enabled": True, "allow": ["stop"]},
        notify=[{"command": ["/no/such/program"]}],
    )
    with capture_logs() as lines:
        answers = watch(settings)
    assert answers["notify"] == (
        "rejected",
        "command /no/such/program: cannot be run: No such file or directory",
    )
    assert answers["stop"][0] == "acknowledged"
    assert any(line["event"] == "notification failed" for line in lines)


@pytest.mark.parametrize("destinations", [[], [{"command": ["true"]}]])
def test_rules_that_tell_nobody_are_warned_of_once(destinations: list[dict[str, Any]]):
    with capture_logs() as lines:
        XASAgent.from_config(config(rules=[rule("notify"), rule("stop")], notify=destinations)).close()
    said = [(line["rules"], line["log_level"]) for line in lines if line["event"] == "nobody is told"]
    assert said == ([] if destinations else [("notify", "warning")])


NATS, KAFKA = "nats://127.0.0.1:4222/events", "kafka://127.0.0.1:9092/answers"


@pytest.mark.parametrize(
    ("source", "sink", "warned"),
    [
        ({"nats": {"address": NATS}}, {"kafka": KAFKA}, True),
        ({"nats": {"address": NATS}}, {"nats": NATS}, False),
        ({"kafka": {"address": KAFKA}}, {"kafka": KAFKA}, False),
        ({"kafka": {"address": KAFKA}}, {"nats": NATS}, False),
        ({"source": {"address": "tcp://127.0.0.1:5578"}}, {"kafka": KAFKA}, False),
    ],
)
def test_brokers_that_do_not_keep_out_a_second_answer_are_warned_of_once(
    source: dict[str, Any], sink: dict[str, Any], warned: bool
):
    settings = load_config({**source, "publish": sink})
    with capture_logs() as lines:
        XASAgent(settings, []).close()
    said = [line["log_level"] for line in lines if line["event"] == "frames may be answered twice"]
    assert said == ["warning"] * warned
    found = [line for line in reached(settings, 0.1) if "cut off from NATS" in line.text]
    assert [line.state for line in found] == ["warn"] * warned


def test_arguments_that_a_robot_refuses_are_refused_with_the_config():
    with pytest.raises(
        ConfigError, match=r"args of rule 'dose' that a robot refuses: dose\.args\.unit: Field required"
    ):
        load_config({"rules": [rule("dose", {"reagent": "a", "amount": 1})]})


SET = {"signal": "furnace", "value": 500}


@pytest.mark.parametrize(
    ("action", "args", "settable", "message"),
    [
        ("set", {"signal": "furnace"}, {}, "rule 'set' with args of set: key value: missing"),
        ("set", {**SET, "value": True}, {}, "rule 'set' with args of set: key value: found True"),
        ("set", SET, {}, "furnace is not among the signals in control.settable"),
        ("set", SET, {"furnace": [20, 400]}, "500 for furnace is outside 20 … 400"),
        ("set", SET, {"furnace": [400, 20]}, "found 400 … 20 for 'furnace', expected the smallest value first"),
        ("repeat_frame", {"count_factor": 0}, {}, "rule 'repeat_frame' with args of repeat_frame: key count_factor"),
        ("repeat_frame", {"counts": 2}, {}, "rule 'repeat_frame' with args of repeat_frame: unknown key counts"),
        ("repeat_frame", {"frame": 2}, {}, "with args of repeat_frame: found frame, which the agent fills in"),
    ],
)
def test_a_rule_that_would_be_rejected_is_refused_with_the_config(action, args, settable, message):
    control = {"enabled": True, "allow": ["set", "repeat_frame"], "settable": settable}
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config({"rules": [rule(action, args)], "control": control})


@pytest.mark.slow
def test_a_replay_tells_nobody(tmp_path, xa):
    recording, told = tmp_path / "scan.jsonl", tmp_path / "told"
    with closing(FileSink(recording)) as sink:
        RE = RunEngine({})
        RE.subscribe(sink)
        RE(count(detectors(), 4, md=MD))
    notify = [{"command": [sys.executable, "-c", f"open({str(told)!r}, 'w')"]}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config(rules=[rule("notify")], notify=notify)))
    done = xa("replay", recording, "--config", tmp_path / "mine.yaml", "--speed", "max", "--out", tmp_path / "out")
    assert "robot and notify of the config are not used" in done.stderr
    assert "status=acknowledged" in done.stderr
    assert not told.exists()


def test_a_simulated_experiment_moves_no_robot_and_tells_nobody():
    settings = load_config({"robot": {"address": "ipc:///robot"}, "notify": [{"command": ["a"]}]})
    assert settings.simulated().robot is None
    assert settings.simulated().notify == ()
    assert settings.simulated() == load_config({})
