"""``xas-agent rules`` on rules and recordings of the tests' own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked import run_command
from jsonschema import Draft202012Validator

from xas_agent import configs
from xas_agent.adapters.files import FileSink
from xas_agent.agent.publish import AgentRun, Provenance
from xas_agent.agent.types import DescriptorEstimate, Estimate, Frame, Reason, Scan, SetAside

CONFIGS = Path(configs.__file__).parent
RULE = {
    "name": "half charged",
    "trigger": {"kind": "threshold", "quantity": "OS", "above": 3.5, "window_frames": 7},
    "action": "stop",
}
ALARM = {"name": "trouble", "trigger": {"kind": "set_aside", "frames": 2}}


def invoked(*arguments: str, code: int = 0) -> str:
    done = run_command("rules", *arguments, code=code, columns=200)
    return done.stdout + done.stderr


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"rules": [RULE, ALARM]}))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    charge(tmp_path)
    return tmp_path / "documents.jsonl"


def test_runs_that_name_no_sample_are_pointed_out(rules: Path, tmp_path: Path):
    sink = FileSink(tmp_path / "documents.jsonl")
    for number in range(1, 3):
        uid = f"run{number}"
        run = AgentRun({"uid": uid, "time": 0.0}, Provenance("co-k", "", "", units={"OS": "e"}), sink)
        frame = Frame(uid, uid, 1, 60.0 * number, np.arange(3.0), np.arange(3.0), scan=Scan(scan_id=number))
        os = DescriptorEstimate(3.6, 3.3, 3.9, 3.0, 0.9, sd_frame=0.01)
        run.frame(replace(frame, element="Co", edge="K"), {"noise": 0.01}, Estimate({"OS": os}, 0.2), None, 1.0)
        run.close()
    sink.close()
    said = invoked("test", str(rules), str(tmp_path / "documents.jsonl"))
    assert "The 2 runs name no sample, so that each is a series of its own" in said


def charge(folder: Path, began: float = 0.0, unset: int | None = None, rise: float = 0.01) -> None:
    """Write the documents of a charge from 3 to 4 e in 101 frames, one a minute, with two frames set aside.

    The time of frame ``unset`` is 0; ``rise`` is the change from frame to frame, e.
    """
    sink = FileSink(folder / "documents.jsonl")
    cell, model = Scan("cell", "cell"), Provenance("co-k", "", "", units={"OS": "e"})
    run = AgentRun({"uid": "watched", "time": began}, model, sink, scan=cell)
    for n in range(101):
        value = 3.004 + rise * n
        time = 0.0 if n == unset else began + 60.0 * n
        frame = Frame(f"f{n}", "watched", n + 1, time, np.arange(3.0), np.arange(3.0), scan=cell)
        frame = replace(frame, element="Co", edge="K", readings={"voltage": 3.5})
        os = DescriptorEstimate(value, value - 0.3, value + 0.3, 3.0, 0.9, sd_frame=0.01)
        run.frame(frame, {"noise": 0.01}, Estimate({"OS": os}, 0.2), None, 1.0)
        if n in (70, 71):
            run.set_aside(SetAside("watched", f"lost{n}", began + 60.0 * n, Reason.NO_PRE_EDGE))
    run.close()
    sink.close()


def test_rehearsal_says_when_and_why_and_what_neighbours_do(rules: Path, recording: Path, tmp_path: Path):
    said = invoked("test", str(rules), str(recording), "--figure", str(tmp_path / "seen.png"))
    assert "decided at frame 51 (50.00 min) of cell, 1970-01-01 00:50:00 UTC" in said
    assert "OS 3.504 e (3.2…3.8) above 3.5 e for 1 frame by" in said
    assert "decided at 71.00 min of cell, 1970-01-01 01:11:00 UTC" in said
    assert f"2 frames set aside within 600 s ({Reason.NO_PRE_EDGE}), bar 2" in said
    [later] = [line for line in said.splitlines() if line.startswith("above 3.55")]
    assert later.split() == ["above", "3.55", "1", "frame", "56", "(55.00", "min)", "0.51", "+5.00", "min"]
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")


def test_where_nothing_happens_a_level_changes_by_the_scatter_of_a_frame(rules: Path, tmp_path: Path):
    charge(tmp_path, rise=0.0)
    said = invoked("test", str(rules), str(tmp_path / "documents.jsonl"))
    assert [line.split()[1] for line in said.splitlines() if line.startswith("above 3")] == ["3.49", "3.51"]


@pytest.mark.parametrize(("name", "said"), [("none/seen.png", "found no folder"), ("", "found a folder")])
def test_a_figure_that_cannot_be_written_is_an_error_before_the_work(rules, tmp_path, name, said):
    found = invoked("test", str(rules), str(tmp_path / "no recording"), "--figure", str(tmp_path / name), code=2)
    assert said in found.replace("\n", " ")


def test_a_frame_without_a_time_is_left_out(rules: Path, tmp_path: Path):
    charge(tmp_path, began=1.7e9, unset=20)
    said = invoked("test", str(rules), str(tmp_path / "documents.jsonl"))
    assert "decided at frame 51 (50.00 min) of cell, 2023-11-14" in said
    assert "frames are left out of the rehearsal" in said


def test_rule_that_never_decides_says_so(recording: Path, tmp_path: Path):
    path = tmp_path / "never.yaml"
    path.write_text(yaml.safe_dump({"rules": [{**RULE, "trigger": {**RULE["trigger"], "above": 4.4}}]}))
    said = invoked("test", str(path), str(recording))
    assert "It would not have decided before the recording ends." in said
    assert "  closest: OS 4 of 4.4 e\n" in said
    assert "never" not in said
    assert "not yet: not before the recording ends" in said


def test_how_close_each_condition_came(recording: Path, tmp_path: Path):
    parts = [
        {"kind": "threshold", "quantity": "OS", "above": 3.5},
        {"kind": "band", "quantity": "OS", "low": 4.2, "high": 4.5},
        {"kind": "rate", "quantity": "OS", "above_per_hour": 2.0},
        {"kind": "plateau", "quantity": "OS", "tolerance": 0.01, "frames": 7},
        {"kind": "extremum", "quantity": "OS", "of": "maximum", "drop": 0.5},
        {"kind": "not", "of": {"kind": "threshold", "quantity": "noise", "below": 0.02}},
        {"kind": "threshold", "quantity": "OS", "above": 3.0, "window_frames": 100},
        {"kind": "set_aside", "frames": 3},
        {"kind": "quiet", "seconds": 90},
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"rules": [{"name": "a", "trigger": {"kind": "all", "of": parts}}]}))
    [said] = [line for line in invoked("test", str(path), str(recording)).splitlines() if "closest" in line]
    assert said.removeprefix("  closest: ").split("; ") == [
        "OS 4 of 3.5 e (reached)",
        "OS 4 of 4.2…4.5 e",
        "OS, rate (e/h), 0.6 of 2",
        "OS, change in 6 min (e), 0.06 of ± 0.01",
        "OS, from its maximum, 0 of 0.5 e",
        "not noise 0.01 of 0.02 (held)",
        "OS 4 of 3 e (reached)",
        "2 of 3 frames set aside in 600 s",
        "no frame for 60 s of 90 s",
    ]


def test_rule_that_ended_its_recording_says_why_later_decisions_are_missing(recording: Path, rules: Path):
    table = "id,rule,action,status\n1,trouble,stop,acknowledged\n"
    (recording.parent / "decisions.csv").write_text(table)
    said = invoked("test", str(rules), str(recording.parent))
    assert said.count("not yet: not before the recording ends") == 1
    assert "This rule stopped the recorded experiment" in said
    (recording.parent / "decisions.csv").write_text(table.replace("acknowledged", "rejected"))
    assert "This rule stopped" not in invoked("test", str(rules), str(recording.parent))


def test_relative_values_that_a_recording_lacks_are_computed_or_said_how_to_get(recording: Path, tmp_path: Path):
    path = tmp_path / "rules.yaml"
    trigger = {"kind": "threshold", "quantity": "OS_change", "above": 0.3}
    config = {"model": {"use": ["co-k"]}, "rules": [{"name": "changed", "trigger": trigger}]}
    path.write_text(yaml.safe_dump(config))
    lacking = invoked("test", str(path), str(recording), code=2)
    assert "no frame of the recording has OS_change; it needs relative: {change: [OS]}, in the config" in lacking
    path.write_text(yaml.safe_dump({**config, "relative": {"change": ["OS"]}}))
    said = invoked("test", str(path), str(recording))
    # The estimates follow the truth with the slope of the model's card, 0.81.
    assert "decided at frame 26 (25.00 min)" in said
    assert "above 0.3 e" in said


def test_a_reading_that_a_recording_lacks_is_named_with_similar_ones(recording: Path, tmp_path: Path):
    path = tmp_path / "rules.yaml"
    trigger = {"kind": "threshold", "quantity": "readings.Voltage", "above": 4.1}
    path.write_text(yaml.safe_dump({"rules": [{"name": "full", "trigger": trigger}]}))
    said = invoked("test", str(path), str(recording), code=2)
    assert "rule full: no frame of the recording has readings.Voltage; similar: readings.voltage" in said


def test_rules_in_words(rules: Path):
    said = invoked("explain", str(rules), "--model", "co-k")
    sentence = "The agent requests stop, once per run, when OS is above 3.5 e, by a line through 7 frames."
    assert f"half charged: {sentence}" in said
    assert "Advice only" in said
    assert "when 2 frames within 600 s are set aside or missing." in said


def test_rules_in_words_with_what_becomes_of_their_decisions(tmp_path: Path):
    heat = {"signal": "furnace", "value": 300}
    above = {"kind": "threshold", "quantity": "OS", "above": 3.5}
    rules = [
        {"name": "a", "element": "Co", "edge": "K", "trigger": above, "action": "set", "args": heat},
        {"name": "c", "element": "co", "stage": "s", "trigger": above, "action": "stop"},
        {"name": "d", "trigger": above, "action": "pause"},
        {"name": "e", "trigger": above, "action": "resume"},
        {"name": "f", "trigger": above, "action": "repeat_frame"},
        {"name": "g", "trigger": above},
    ]
    control = {
        "enabled": True,
        "allow": ["set", "stop", "pause"],
        "settable": {"furnace": [20, 500]},
        "authority_of": {"stop": "confirm", "pause": "advise", "repeat_frame": "confirm"},
        "limits": {"set": {"per_run": 3, "per_hour": 2}},
    }
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"rules": rules, "control": control}))
    said = invoked("explain", str(tmp_path / "rules.yaml"), "--model", "co-k").splitlines()
    when = "once per run, when OS is above 3.5 e."
    assert said == [
        f"a: For Co K, the agent requests set (signal: furnace, value: 300), {when}",
        "  control.settable lets furnace be set to 20 … 500.",
        "  Of all rules together, at most 3 per run and 2 per hour of set are sent.",
        "  It is sent at once.",
        f"c: For Co in stage s, the agent requests stop, {when}",
        "  A person must approve it within 600 s.",
        f"d: The agent requests pause, {when}",
        "  Advice only, by control.authority_of.",
        f"e: The agent requests resume, {when}",
        "  It would be rejected: control.allow lacks resume.",
        f"f: The agent requests repeat_frame, {when}",
        "  It would be rejected: control.allow lacks repeat_frame.",
        f"g: The agent requests notify, {when}",
        "  Nobody is told: the config names no destination (it is logged and published).",
    ]


def test_rules_in_words_say_who_is_told_and_join_clauses(tmp_path: Path):
    line = {"kind": "threshold", "quantity": "OS", "above": 3.5, "window_frames": 7}
    volts = {"kind": "threshold", "quantity": "readings.voltage", "above": 4.2}
    rules = [{"name": "a", "trigger": {"kind": "all", "of": [line, volts]}}]
    rules += [{"name": "b", "trigger": {"kind": "any", "of": [volts, line]}}]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"rules": rules, "notify": [{"command": ["notify-send", "xas-agent"]}]}))
    both, either = "OS is above 3.5 e, by a line through 7 frames", "readings.voltage is above 4.2"
    assert invoked("explain", str(path), "--model", "co-k").splitlines() == [
        f"a: The agent requests notify, once per run, when {both}, and {either}.",
        "  Told: command notify-send.",
        f"b: The agent requests notify, once per run, when {either} or {both}.",
        "  Told: command notify-send.",
    ]


def test_a_rule_for_an_absorber_without_a_model_is_an_error(tmp_path: Path):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"rules": [{**RULE, "element": "Ni"}]}))
    assert "found Ni, expected an absorber of the models: Co K" in invoked(
        "explain", str(path), "--model", "co-k", code=2
    )


def test_unknown_quantity_is_an_error_with_similar_ones(tmp_path: Path):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"rules": [{**RULE, "trigger": {**RULE["trigger"], "quantity": "Os"}}]}))
    assert "found quantity 'Os'" in invoked("explain", str(path), "--model", "co-k", code=2)


@pytest.mark.parametrize(
    ("quantity", "said"),
    [
        ("OS_change", "rule 'half charged': OS_change needs relative: {change: [OS]} in the config"),
        ("OS_rate_lo", "OS_rate_lo needs relative: {rate: [OS]} in the config"),
        ("position", "position needs relative: {references: [first, FILE]} in the config"),
        ("voltage", "a reading, which would be readings.voltage"),
    ],
)
def test_a_quantity_that_a_setting_or_a_prefix_would_give_names_it(tmp_path: Path, quantity: str, said: str):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"rules": [{**RULE, "trigger": {**RULE["trigger"], "quantity": quantity}}]}))
    assert said in invoked("explain", str(path), "--model", "co-k", code=2)


def test_a_rule_on_anchored_values_without_anchors_is_explained_with_a_warning(tmp_path: Path):
    path = tmp_path / "anchored.yaml"
    config = {"rules": [{**RULE, "trigger": {**RULE["trigger"], "quantity": "OS_anchored"}}]}
    path.write_text(yaml.safe_dump(config))
    assert "rule waits for anchors" in invoked("explain", str(path), "--model", "co-k")
    path.write_text(yaml.safe_dump({**config, "anchors": [{"frame": "first", "OS_mean": 3.0}]}))
    assert "rule waits for anchors" not in invoked("explain", str(path), "--model", "co-k")


@pytest.mark.parametrize("content", ["x_target: 0.5\n", "# Settings for scan.dat, which needs none.\n"])
def test_a_config_without_rules_is_explained_but_not_rehearsed(tmp_path: Path, content: str):
    """As inspect proposes it, and as doctor finds it valid and names rules explain."""
    config = tmp_path / "none.yaml"
    config.write_text(content)
    said = invoked("explain", str(config))
    assert said == f"{config} has no rules: the agent publishes its estimates and decides nothing\n"
    assert "expected at least one rule" in invoked("test", str(config), str(tmp_path), code=2)


def test_a_folder_without_documents(tmp_path: Path, rules: Path):
    (tmp_path / "empty").mkdir()
    said = invoked("test", str(rules), str(tmp_path / "empty"), "--model", "co-k", code=2)
    assert "no frame could be answered: nothing that can be read" in said


def test_schema_accepts_the_rules_and_names_the_kinds():
    schema = json.loads(invoked("schema"))
    kinds = schema["$defs"]["Rule"]["properties"]["trigger"]["discriminator"]["mapping"]
    assert {"threshold", "change", "all", "then"} <= set(kinds)
    assert {"quantity", "above"} <= set(schema["$defs"]["Threshold"]["properties"])
    accepts = Draft202012Validator(schema).validate
    for shipped in (CONFIGS / kind for kind in ("beamlines", "decisions", "stories")):
        for config in shipped.glob("*.yaml"):
            accepts(yaml.safe_load(config.read_text()))
    accepts({"health": "127.0.0.1:9000", "publish": {"tiled": "http://localhost:8000"}})


def test_triggers_are_listed_with_their_keys():
    said = invoked("triggers", "quiet")
    assert said.startswith("quiet: No frame has come for a time, while the run has not stopped.\n")
    [seconds] = [line for line in said.splitlines() if line.startswith("seconds")]
    assert seconds.split()[1:8] == ["number,", ">", "0", "required", "s", "Time", "without"]
    schema = json.loads(invoked("schema"))["$defs"]["Rule"]["properties"]["trigger"]["discriminator"]["mapping"]
    every = invoked("triggers")
    assert [kind for kind in schema if f"\n{kind}: " not in f"\n{every}"] == []
    assert "`" not in every
    assert "found kind 'treshold', expected one of threshold, band" in invoked("triggers", "treshold", code=2)
