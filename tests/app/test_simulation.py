"""The config's simulation: the stories that ship, what it refuses, and what the embedded beamline makes of it."""

import json
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from forked import command, run_command

from xas_agent.adapters.files import FileSource
from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSource
from xas_agent.agent.decide import Controls
from xas_agent.agent.types import Estimator, Reply
from xas_agent.app.config import Config, ConfigError, load_config
from xas_agent.app.embedded import Comparison, CrewedControl, gain, open_loop
from xas_agent.app.output.recorder import Recorder
from xas_agent.app.output.truth import Truth
from xas_agent.app.session import Session
from xas_agent.app.wiring import check_rules, load_models
from xas_agent.sim_beamline.experiments import AlarmSettings, MagazineSettings
from xas_agent.sim_beamline.settings import BeamlineSettings

FOLDER = Path(__file__).parents[2] / "configs" / "stories"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIMULATION = {"experiment": {"kind": "charge"}, "frames": 2}


def test_the_stories_are_six():
    assert NAMES == ["alarm", "charge", "damage", "plateau", "recount", "robot"]


@pytest.fixture(scope="module")
def models() -> Sequence[Estimator]:
    return load_models(Config())


@pytest.mark.parametrize("name", NAMES)
def test_a_story_may_do_what_its_rules_request(name, models, caplog):
    config = load_config(f"stories/{name}")
    assert config.simulation is not None
    assert config.control.enabled
    assert {rule.action for rule in config.rules} - {"notify"} == {*config.control.allow}
    check_rules(config, [model for model in models if model.name in config.model.use])
    assert not caplog.records
    settable = config.simulation.experiment.begin(0).knobs
    for signal, (least, most) in config.control.settable.items():
        assert settable[signal].low <= least < most <= settable[signal].high


@pytest.mark.parametrize("name", NAMES)
def test_a_story_says_that_its_physics_is_simple_and_shows_its_experiment(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert "A simple model." in text
    assert yaml.safe_load(text)["simulation"]["experiment"]["kind"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source": {"address": "zmq://localhost:1"}}, "found simulation and source, expected one of them"),
        ({"control_endpoint": {"address": "ipc:///tmp/c"}}, "found simulation and control_endpoint"),
        ({"simulation": {"experiment": {"kind": "alchemy"}}}, "charge.*reduction.*magazine"),
        ({"simulation": {"experiment": {"kind": "damage", "spotz": 3}}}, "unknown key simulation.*spotz.*spots"),
        ({"simulation": {"frames": 0}}, "key simulation.frames: found 0"),
        (
            {"simulation": {"experiment": {"kind": "titration", "weak_first": 41, "weak_last": 45}, "frames": 40}},
            "found weak_first 41 and weak_last 45 with frames 40, expected at least 2 states",
        ),
        (
            {"simulation": {"experiment": {"kind": "titration", "weak_first": 9, "weak_last": 9}}},
            "found weak_first 9 and weak_last 9 with frames 80, expected at least 2 states",
        ),
        (
            {"simulation": {"experiment": {"kind": "alarm", "first_frame": 20}, "frames": 19}},
            "found first_frame 20 with frames 19",
        ),
    ],
)  # fmt: skip
def test_a_simulation_that_cannot_be_is_refused_with_its_key(keys, message):
    with pytest.raises(ConfigError, match=message):
        load_config({"simulation": SIMULATION, **keys})


def test_a_simulation_beside_a_source_is_refused(tmp_path):
    said = run_command("run", "--config", "stories/charge", "--folder", tmp_path, code=2).stderr
    assert "simulation in stories/charge: no effect beside a source" in said
    said = run_command("run", "--config", "stories/charge", "--source", "zmq://127.0.0.1:9", code=2).stderr
    assert "found simulation and source" in said


def test_sim_refuses_a_config_without_simulation_and_samples_for_an_experiment_that_has_them():
    assert "found no simulation" in run_command("sim", "--config", "default", code=2).stderr
    said = run_command("sim", "--config", "stories/robot", "--samples", 3, code=2).stderr
    assert "--samples: no effect for an experiment with samples of its own" in said


@pytest.mark.slow
def test_sim_serves_the_robot_of_an_experiment_with_samples(tmp_path):
    line = command("sim", "--config", "stories/robot", "--publish", "zmq://127.0.0.1:0")
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert {*json.loads(process.stdout.readline())} == {"control", "robot", "documents"}
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.slow
def test_sim_records_what_it_publishes(tmp_path):
    """What a subscriber hears is what the file has."""
    record = tmp_path / "recorded.jsonl"
    line = command("sim", "--frames", 2, "--period", 0, "--record", record, "--publish", "zmq://127.0.0.1:0")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        heard: list[tuple[str, str]] = []
        with closing(ZMQSource(ZMQEndpoint(address=addresses["documents"]))) as source:
            for name, doc in source:
                heard.append((name, doc["uid"]))
                if name == "stop" and len(heard) > 2:
                    break
        process.wait(30)
    finally:
        process.kill()
        process.communicate()
    recorded = [(name, doc["uid"]) for name, doc in FileSource(record)]
    assert recorded[: len(heard)] == heard
    assert recorded[-1][0] == "stop"


def test_notify_reaches_the_crew_beside_a_robot():
    class Robot:
        actions = ("load",)

        def request(self, *_: object, **__: object) -> Reply:
            return Reply("acknowledged", "robot")

        def close(self) -> None: ...

    crew = CrewedControl("ipc:///nowhere")
    controls = Controls(Robot(), other=crew)
    assert {*controls.actions} == {"load", "notify"}
    assert controls.request("1", "load", {}, 1.0).reason == "robot"
    assert controls.request("2", "notify", {}, 0.1).status == "expired"  # from the beamline, which is not there
    controls.close()


def test_the_gain_is_that_of_both_truths():
    simulation = BeamlineSettings(experiment=AlarmSettings(first_frame=2, last_frame=5), frames=6)
    opened = open_loop(simulation)
    assert [row["frame"] for row in opened.rows] == [1, 2, 3, 4, 5, 6, 6]
    closed = Truth(rows=[{**row, "foil": row["frame"] == 2} for row in opened.rows])
    found = gain(simulation, opened, closed, Recorder())
    assert (found["open"], found["closed"], found["amount"]) == (4, 1, 3)
    assert json.dumps(found)


@pytest.mark.parametrize("stopped_by", [None, "operator", "half charged"])
def test_a_story_that_did_not_end_by_its_rules_compares_nothing(stopped_by):
    simulation = BeamlineSettings(experiment=AlarmSettings(first_frame=2, last_frame=5), frames=6)
    opened, recorder = open_loop(simulation), Recorder()
    closed, run = Truth(rows=opened.rows[:3]), opened.rows[0]["run"]
    recorder.stopped |= {} if stopped_by is None else {run: stopped_by}
    found = Comparison(simulation, closed)(recorder)
    said = {None: "ended early: nothing is compared", "operator": "stopped by a person: nothing is compared"}
    assert found["gained"] == said.get(stopped_by, "2 frames without the foil")
    assert ("amount" in found) == (stopped_by == "half charged")


def test_a_story_without_a_frame_compares_nothing():
    simulation = BeamlineSettings(experiment=AlarmSettings(first_frame=2, last_frame=5), frames=6)
    found = gain(simulation, open_loop(simulation), Truth(), Recorder())
    assert found == {"gained": "ended early: nothing is compared"}


def test_the_true_values_of_several_runs_are_kept_apart():
    simulation = BeamlineSettings(experiment=MagazineSettings(compositions=(1.0, 0.5)), frames=4)
    truth = open_loop(simulation)
    runs = list(dict.fromkeys(run for run, _ in truth.by_frame()))
    assert len(runs) == 2
    rows = [{"run_uid": run, "seq_num": number} for run in (*runs, "other") for number in (1, 2)]
    first, again, second, _, *unknown = truth.x_of(rows)
    assert {first, second} == {1.0, 0.5}
    assert first == again
    assert unknown == [None, None]
    assert [truth.x_at_end(run) for run in (*runs, "other")] == [first, second, None]


@pytest.mark.parametrize(
    ("stopped", "x"),
    [({"a": "full"}, 1.0), ({"b": "full"}, 0.5), ({}, None), ({"a": "full", "b": "full"}, None)],
)
def test_the_x_at_the_stop_is_that_of_the_run_that_was_stopped(stopped, x):
    truth = Truth(rows=[{"x": x, "frame": 1, "run": run} for run, x in (("a", 1.0), ("b", 0.5))])
    with Session(load_config({"model": {"use": ["co-k"]}}), None, truth=truth) as session:
        session.recorder.stopped |= stopped
    assert session.summary()["x_true_at_stop"] == x
