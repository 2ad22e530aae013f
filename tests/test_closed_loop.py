"""Test the whole loop: beamline process, ZMQ, agent, model, rule, control. The charge stops at half the lithium."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from forked import run_command
from valid import check_document

FRAMES = 60
SUMMARY = {
    "frames", "frames_set_aside", "decisions", "stopped_by", "x_target", "x_true_at_stop", "x_open_loop_end",
    "latency_ms", "model", "wall_s", "flags",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 4])
def test_the_rule_stops_the_charge_at_half_the_lithium(seed, tmp_path):
    out = tmp_path / "out"
    process = run_command("run", "--seed", seed, "--frames", FRAMES, "--out", out, "--strict")

    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) >= SUMMARY
    assert summary["stopped_by"] == "half charged"
    assert summary["x_target"] == 0.5
    assert abs(summary["x_true_at_stop"] - 0.5) <= 0.05
    assert summary["x_open_loop_end"] < 0.2
    assert 20 < summary["frames"] < FRAMES
    assert summary["frames_set_aside"] == {}
    assert summary["decisions"] == 1
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert summary["model"]["name"] == "co-k"
    assert f"x_true_at_stop     {summary['x_true_at_stop']}" in process.stdout

    check_documents(out / "documents.jsonl", summary["frames"])
    check_tables(out, summary["frames"])
    assert (out / "operando.png").stat().st_size > 10_000


def check_documents(path: Path, frames: int) -> None:
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    streams, events = {}, {}
    for name, doc in documents:
        check_document(name, doc)
        if name == "descriptor":
            streams[doc["uid"]] = doc["name"]
        if name == "event":
            events.setdefault(streams[doc["descriptor"]], []).append(doc)
    (start,), (stop,) = ([doc for name, doc in documents if name == n] for n in ("start", "stop"))
    assert stop["run_start"] == start["uid"]
    assert stop["exit_status"] == "success"
    assert documents[-1][0] == "stop"
    assert [e["seq_num"] for e in events["descriptors"]] == list(range(1, frames + 1))
    assert [e["data"]["status"] for e in events["decisions"]] == ["proposed", "sent", "acknowledged"]
    evidence = [uid for uid, _ in json.loads(events["decisions"][0]["data"]["evidence"])]
    assert set(evidence) <= {e["data"]["frame_uid"] for e in events["descriptors"]}


def check_tables(out: Path, frames: int) -> None:
    with (out / "descriptors.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [int(r["seq_num"]) for r in rows] == list(range(1, frames + 1))
    assert float(rows[-1]["OS_mean"]) == pytest.approx(3.5, abs=0.15)
    assert np.corrcoef([float(r["OS_mean"]) for r in rows], range(frames))[0, 1] > 0.95
    sample_parameters = {"voltage", "temperature", "electrode_mass_mg"}  # from the robot, with the sample
    assert sample_parameters < set(rows[0])
    with (out / "decisions.csv").open(newline="") as f:
        (decision,) = csv.DictReader(f)
    assert (decision["rule"], decision["action"], decision["status"]) == ("half charged", "stop", "acknowledged")
    assert "above 3.5 e" in decision["reason"]
