"""Each story that ships runs as a user runs it, only faster: beamline process, agent, rule, request, and the gain."""

import csv
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from deadline import wait_until
from forked import run_command

from xas_agent.app.ask import ask

FOLDER = Path(__file__).parents[1] / "configs" / "stories"
REQUESTS = {
    "alarm": ["notify", "stop"],
    "charge": ["stop"],
    "damage": ["set"],
    "plateau": ["set"],
    "recount": ["repeat_frame"],
    "robot": ["notify", "stop", "unload", "load"],
}
SEED = 1


def run_story(name: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, str]], str]:
    """Run a story at a multiple of its pace; return its summary, its decisions and what it printed."""
    config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    config["simulation"]["frame_period_s"] = 0.2 if name == "recount" else 0.1  # its requests must come in time
    (folder / "story.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    out = folder / "out"
    printed = run_command("run", "--config", folder / "story.yaml", "--seed", SEED, "--out", out).stdout
    with (out / "decisions.csv").open(encoding="utf-8") as file:
        decisions = list(csv.DictReader(file))
    assert (out / "operando.png").stat().st_size > 10_000
    return json.loads((out / "summary.json").read_text(encoding="utf-8")), decisions, printed


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_the_closed_loop_gains(name, tmp_path):
    summary, decisions, printed = run_story(name, tmp_path)
    gain = summary["gain"]
    assert gain["amount"] > 0
    for line in ("open loop", "closed loop", "gained"):
        assert f"{line:18} {gain[line].split(' ', 1)[0]}" in printed
    if name == "recount":  # at this pace some requests come when the next frame has begun
        decisions = [row for row in decisions if "the plan is at" not in row["status_reason"]]
        decisions = [row for row in decisions if "by now" not in row["status_reason"]]
    assert {row["status"] for row in decisions} == {"acknowledged"}
    assert {row["action"] for row in decisions} == {*REQUESTS[name]}
    stopped = {row["run_uid"] for row in decisions if row["action"] == "stop"}
    assert (summary["x_true_at_stop"] is None) == (len(stopped) != 1)
    assert "does not answer" not in (tmp_path / "out" / "log.jsonl").read_text(encoding="utf-8")
    simulated = json.loads((tmp_path / "out" / "simulation.json").read_text(encoding="utf-8"))["simulation"]
    assert simulated["seed"] == SEED


@pytest.mark.slow
def test_a_session_that_ends_before_its_experiment_compares_nothing(tmp_path):
    config = yaml.safe_load((FOLDER / "charge.yaml").read_text(encoding="utf-8"))
    config["simulation"]["frame_period_s"] = 0.05
    (tmp_path / "story.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = run_command("run", "--config", tmp_path / "story.yaml", "--frames", 3, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["gain"] is None
    assert "gained" not in done.stdout


@pytest.mark.slow
def test_a_story_that_a_person_stopped_compares_nothing(tmp_path, own_sockets):
    """It would otherwise be the gain of the person, not that of the rules."""

    def stop() -> None:
        wait_until(lambda: (tmp_path / "out" / "descriptors.csv").is_file())
        stopped.append(ask("stop", by="ada")["decision"]["status"])

    stopped: list[str] = []
    person = threading.Thread(target=stop)
    person.start()
    summary, decisions, printed = run_story("charge", tmp_path)
    person.join()
    assert stopped == ["acknowledged"]
    assert [row["rule"] for row in decisions] == ["operator"]
    assert summary["gain"] == {"gained": "stopped by a person: nothing is compared"}
    assert "gained             stopped by a person: nothing is compared\n" in printed
    assert "open loop" not in printed
