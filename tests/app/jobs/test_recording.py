"""Rules on what a beamline has recorded: the agent answers it, and decides as it would have done then."""

import csv
import json
import os
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import event_model
import numpy as np
import pytest
import yaml
from forked import run_command

from xas_agent.adapters.zmq import ControlServer
from xas_agent.agent.decide import Compared, Rule
from xas_agent.agent.publish import Answered
from xas_agent.agent.types import InputError, Reply
from xas_agent.app.config import load_config
from xas_agent.app.jobs.recording import Recording, answer, with_relative
from xas_agent.app.jobs.rehearsal_figure import draw_rehearsal
from xas_agent.app.jobs.rehearse import Judgement, decided, rehearse
from xas_agent.sim_beamline.spectra import ReferenceSpectra

RELATIVE = np.arange(-60.0, 110.1, 0.5)
EDGES = {"Co": 7709.0, "Ni": 8333.0}
START, STEP_S = 1.7e9, 60.0
LITHIUM = np.linspace(1.0, 0.3, 12)
BROKEN = 7
"""Number of a scan without an edge."""
MODELS = {"use": ["co-k", "ni-k"]}


def spectra() -> list[np.ndarray]:
    """Return μ of a charge, on the same energies relative to the edge for each absorber."""
    reference = ReferenceSpectra(broadening_ev=1.0)
    return [0.4 + 1.3 * reference.cathode(EDGES["Co"] + RELATIVE, x) for x in LITHIUM]


def scans() -> list[tuple[str, float, np.ndarray]]:
    """Return absorber, voltage and μ of the scans of a sample, Co and Ni in turn."""
    found = [(element, 3.4 + 0.1 * n, mu) for n, mu in enumerate(spectra()) for element in EDGES]
    found[BROKEN] = *found[BROKEN][:2], np.full(len(RELATIVE), 0.5)
    return found


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the documents of a sample with two absorbers, a run per scan."""
    path = tmp_path_factory.mktemp("recorded") / "night.jsonl"
    keys = {name: {"source": "test", "dtype": "array", "shape": [len(RELATIVE)]} for name in ("energy", "mu")}
    keys["voltage"] = {"source": "test", "dtype": "number", "shape": []}
    with path.open("w") as file:
        for number, (element, voltage, mu) in enumerate(scans()):
            time = START + STEP_S * number
            known = {"element": element, "edge": "K", "sample_name": "cell", "scan_id": number}
            run = event_model.compose_run(time=time, metadata=known)
            stream = run.compose_descriptor(name="primary", data_keys=keys)
            data = {"energy": EDGES[element] + RELATIVE, "mu": mu, "voltage": voltage}
            event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, time), time=time)
            made = [("start", run.start_doc), ("descriptor", stream.descriptor_doc), ("event", event)]
            made += [("stop", run.compose_stop(time=time + 1))]
            file.writelines(json.dumps(pair, cls=event_model.NumpyEncoder) + "\n" for pair in made)
    return path


@pytest.fixture(scope="module")
def rules(documents: Path) -> Path:
    """Return a config with rules for one absorber, for each, for an anchored value, for notes and for silence."""
    line = {"kind": "threshold", "window_frames": 7}
    charged = {"kind": "threshold", "quantity": "readings.voltage", "above": 3.95}
    found = [
        {"name": "line", "element": "Co", "trigger": {**line, "quantity": "OS", "above": 3.3}},
        {"name": "known", "element": "Co", "trigger": {**line, "quantity": "OS_anchored", "above": 3.25}},
        {"name": "nickel", "element": "Ni", "edge": "K", "trigger": charged, "action": "stop"},
        {"name": "each", "trigger": charged},
        {"name": "refused", "trigger": {"kind": "set_aside", "frames": 1}},
        {"name": "silent", "trigger": {"kind": "quiet", "seconds": 1.5 * STEP_S}},
    ]
    anchors = [{"frame": "first", "element": "Co", "OS_mean": 3.0}]
    path = documents.with_name("rules.yaml")
    path.write_text(yaml.safe_dump({"model": MODELS, "anchors": anchors, "rules": found}))
    return path


@pytest.fixture(scope="module")
def answered(documents: Path, rules: Path) -> Recording:
    return answer(documents, load_config(rules))


def test_rules_decide_on_a_recording_as_the_agent_that_watched_it(documents: Path, rules: Path, answered, tmp_path):
    run_command("run", "--source", documents, "--config", rules, "--out", tmp_path / "live")
    with (tmp_path / "live" / "decisions.csv").open(newline="") as file:
        live = sorted(csv.DictReader(file), key=lambda row: (row["rule"], float(row["time"])))
    made = sorted(decided(load_config(rules).rules, answered), key=lambda d: (d.rule, d.time))
    told = [(row["rule"], float(row["time"]), row["reason"]) for row in live]
    assert told == [(d.rule, d.time, d.reason) for d in made]
    # Other batches of frames round a network's answers otherwise.
    assert [float(row["confidence"]) for row in live] == pytest.approx([d.confidence for d in made], abs=1e-4)
    counts = {name: sum(d.rule == name for d in made) for name in ("line", "known", "nickel", "each", "refused")}
    assert counts == {"line": 1, "known": 1, "nickel": 1, "each": 2, "refused": 1}
    assert len(made) == sum(counts.values())


@pytest.mark.slow
def test_nobody_is_asked_because_of_what_was_recorded(documents: Path, rules: Path, tmp_path):
    """The plan that runs now is another one."""
    asked: list[str] = []
    server = ControlServer(
        f"ipc://{tmp_path}/control", lambda action, args: asked.append(action) or Reply("rejected")
    )
    with closing(server):
        config = yaml.safe_load(rules.read_text())
        config |= {"control": {"enabled": True, "allow": ["stop"]}, "control_endpoint": {"address": server.address}}
        (tmp_path / "acting.yaml").write_text(yaml.safe_dump(config))
        arguments = ("--source", documents, "--config", tmp_path / "acting.yaml", "--out", tmp_path / "out")
        said = run_command("run", *arguments).stderr
    with (tmp_path / "out" / "decisions.csv").open(newline="") as file:
        statuses = {(row["action"], row["status"]) for row in csv.DictReader(file)}
    assert {status for action, status in statuses if action != "notify"} == {"proposed"}
    assert "the documents are recorded: rules only propose" in said
    assert not asked


@pytest.mark.slow
def test_a_recording_is_told_by_its_own_times_and_kept_for_the_next_rehearsal(documents, rules, tmp_path):
    done = run_command("rules", "test", rules, documents, "--out", tmp_path / "kept")
    written, _, said = done.stdout.partition("\n\n")
    assert written == f"written {tmp_path}/kept/: xas-agent rules test {rules} {tmp_path}/kept is instant"
    nickel, _each = [line for line in said.splitlines() if "decided" in line and "(13.00 min)" in line]
    at = datetime.fromtimestamp(START + 13 * STEP_S, UTC)
    assert f"of cell, {at:%Y-%m-%d %H:%M:%S} UTC" in nickel
    assert run_command("rules", "test", rules, tmp_path / "kept").stdout == said
    assert not (tmp_path / "kept" / "decisions.csv").read_text().strip().splitlines()[1:]
    refused = run_command("rules", "test", rules, tmp_path / "kept", "--element", "Co", code=2)
    assert "--element: no effect on what an agent has answered" in refused.stderr


def test_anchored_values_of_a_folder_are_those_that_the_agent_would_have_published(rules: Path, answered: Recording):
    def bare(item: Answered) -> Answered:
        frame, estimate, quantities = item
        found = {name: d for name, d in estimate.descriptors.items() if name != "OS_anchored"}
        return frame, replace(estimate, descriptors=found), quantities

    config = load_config(rules)
    [known] = [rule for rule in config.rules if rule.name == "known"]
    lacking = replace(answered, items=[bare(item) if isinstance(item, tuple) else item for item in answered.items])
    assert not lacking.points("OS_anchored", known)
    expected = answered.points("OS_anchored", known)
    assert with_relative(lacking, config).points("OS_anchored", known) == expected
    assert len(expected) > 5
    with pytest.raises(InputError, match="has OS_anchored; it needs anchors, which a frame meets: rehearse on"):
        rehearse([known], lacking)


def test_an_absorber_that_was_not_measured_is_named(rules: Path, answered: Recording, tmp_path: Path):
    path = tmp_path / "iron.yaml"
    path.write_text(rules.read_text().replace("element: Ni", "element: Fe").replace("ni-k", "fe-k"))
    with pytest.raises(InputError, match="rule nickel: no frame of the recording is of Fe K; found Co K, Ni K"):
        rehearse(load_config(path).rules, answered)


def test_files_of_a_folder_are_judged_in_the_order_of_their_times(tmp_path: Path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number, mu in enumerate(spectra()):
        path = folder / f"scan{number:02}.dat"
        rows = zip(EDGES["Co"] + RELATIVE, 1e5 * np.exp(mu / 2), 1e5 * np.exp(-mu / 2), strict=True)
        time = datetime.fromtimestamp(START + STEP_S * number, UTC)
        header = "# XDI/1.0\n# Column.1: mono\n# Column.2: one\n# Column.3: behind\n"
        header += f"# Scan.start_time: {time:%Y-%m-%dT%H:%M:%S}+00:00\n# ---\n"
        path.write_text(header + "".join("{} {} {}\n".format(*row) for row in rows))
        os.utime(path, (START - number, START - number))  # as after a copy
    trigger = {"kind": "threshold", "quantity": "OS", "above": 3.3, "window_frames": 7}
    config = tmp_path / "rules.yaml"
    config.write_text(yaml.safe_dump({"model": MODELS, "rules": [{"name": "line", "trigger": trigger}]}))
    columns = ["--column", "energy=mono", "--column", "i0=one", "--column", "it=behind"]
    done = run_command("rules", "test", config, folder, "--element", "Co", "--edge", "K", *columns)
    [said] = [line for line in done.stdout.splitlines() if "decided" in line]
    assert "decided at frame 7 (6.00 min)" in said


def test_a_folder_of_spectra_and_times_is_judged_by_these_times(tmp_path: Path):
    np.savez(tmp_path / "spectra.npz", energy=EDGES["Co"] + RELATIVE, norm=(np.array(spectra()) - 0.4) / 1.3)
    times = [datetime.fromtimestamp(START + STEP_S * n, UTC).isoformat() for n in range(len(LITHIUM))]
    (tmp_path / "series.csv").write_text("\n".join(["start", *times]))
    rate = {"kind": "rate", "quantity": "OS", "above_per_hour": 3.0, "window_frames": 7}
    config = load_config({"model": MODELS, "rules": [{"name": "fast", "trigger": rate}]})
    recording = answer(tmp_path, config, element="Co", edge="K")
    assert [frame.time for frame, *_ in recording.frames] == pytest.approx([START + STEP_S * n for n in range(12)])
    [decision] = decided(config.rules, recording)
    assert START < decision.time <= START + 12 * STEP_S


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "cu-k"], "no frame could be answered: 24 set aside"),
        (["--column", "energy=mono"], "--column: no effect without a folder of measured files"),
    ],
)
def test_a_recording_that_cannot_be_answered_is_an_error(documents: Path, tmp_path: Path, options, said):
    trigger = {"kind": "threshold", "quantity": "OS", "above": 3.3}
    config = tmp_path / "rules.yaml"
    config.write_text(yaml.safe_dump({"rules": [{"name": "line", "trigger": trigger}]}))
    assert said in run_command("rules", "test", config, documents, *options, code=2).stderr


KINDS = [
    {"kind": "threshold", "quantity": "OS_anchored", "above": 3.25, "window_frames": 7},
    {"kind": "band", "quantity": "OS", "low": 3.2, "high": 3.4},
    {"kind": "plateau", "quantity": "OS", "tolerance": 0.5, "frames": 7},
    {"kind": "rate", "quantity": "OS", "above_per_hour": 0.5, "window_frames": 7},
    {"kind": "extremum", "quantity": "OS", "of": "maximum", "drop": 0.1, "window_frames": 7},
    {"kind": "change", "quantity": "OS", "baseline": "line"},
    {"kind": "unfamiliar"},
    {"kind": "set_aside", "frames": 1},
    {"kind": "not", "of": {"kind": "threshold", "quantity": "OS", "above": 3.3}},
]


def test_every_kind_of_rule_is_drawn(answered: Recording, tmp_path: Path):
    rules = [Rule.model_validate({"name": t["kind"], "element": "Co", "trigger": t}) for t in KINDS]
    draw_rehearsal(tmp_path / "all.png", rehearse(rules, answered), answered)
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_judged_is_kept_for_each_frame_of_a_stage(answered: Recording):
    above = {"kind": "threshold", "quantity": "readings.voltage", "above": 3.65}
    line = {**above, "above": 4.55, "window_frames": 7}
    up = {"name": "up", "trigger": above, "stage": "charge", "go_to": "hold", "element": "Co"}
    hold = {"name": "hold", "trigger": {"kind": "not", "of": line}, "stage": "hold", "element": "Co"}
    judged: list[Judgement] = []
    first, _ = decided([Rule.model_validate(rule) for rule in (up, hold)], answered, judged)
    before, after = ([j for j in judged if j.rule == name] for name in ("up", "hold"))
    assert before[-1].time == first.time
    assert before[-1].compared == Compared(first.evidence[-1][1], (3.65,))
    assert after[0].time == first.time + 2 * STEP_S  # the next frame of Co
    assert [j.part for j in after] == [1] * len(after)
    assert [j.compared is None for j in after[:7]] == [True] * 6 + [False]  # the window is full
