"""Two samples in turn, through the command line: each has its own window, and every output names it."""

import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import event_model
import numpy as np
import pytest

from xas_agent.sim_beamline.spectra import ReferenceSpectra

ENERGY = 7709.0 + np.arange(-60.0, 110.1, 0.5)
LITHIUM = {"charged": (1.0, 0.8, 0.6, 0.4), "pri$tine [0]": (1.0, 1.0, 1.0, 1.0)}
CONFIG = """
model: {use: [co-k]}
rules:
  - {name: oxidised, trigger: {kind: threshold, descriptor: OS, above: 3.25, dwell_frames: 2}}
"""

Run = Callable[..., CompletedProcess[str]]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scans() -> list[tuple[str, np.ndarray]]:
    """The samples in turn and μ of their scans."""
    reference = ReferenceSpectra(broadening_ev=1.0)
    turns = [(sample, x[k]) for k in range(4) for sample, x in LITHIUM.items()]
    return [(sample, 0.4 + 1.3 * reference.cathode(ENERGY, x)) for sample, x in turns]


def record(path: Path, **metadata: Any) -> None:
    """Write a run per scan, its sample named as at BMM."""
    keys = {name: {"source": "test", "dtype": "array", "shape": [len(ENERGY)]} for name in ("energy", "mu")}
    with path.open("w") as file:
        for number, (sample, mu) in enumerate(scans()):
            time = 1.7e9 + 60.0 * number
            xdi = {"Sample": {"name": sample}, "_filename": f"scan.{number:03}"}
            start = {"element": "Co", "edge": "K", "scan_id": 100 + number, "XDI": xdi, **metadata}
            run = event_model.compose_run(time=time, metadata=start)
            stream = run.compose_descriptor(name="primary", data_keys=keys)
            data = {"energy": ENERGY, "mu": mu}
            event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, time), time=time)
            documents = (
                ("start", run.start_doc),
                ("descriptor", stream.descriptor_doc),
                ("event", event),
                ("stop", run.compose_stop(time=time + 1)),
            )
            file.writelines(json.dumps(pair, cls=event_model.NumpyEncoder) + "\n" for pair in documents)


def test_samples_in_turn_have_their_own_windows_and_are_named(xa: Run, tmp_path: Path) -> None:
    record(tmp_path / "night.jsonl")
    (tmp_path / "agent.yaml").write_text(CONFIG)
    out = tmp_path / "out"
    done = xa("replay", tmp_path / "night.jsonl", "--config", tmp_path / "agent.yaml", "--out", out)
    table = rows(out / "descriptors.csv")
    assert [(r["sample"], r["scan_id"], r["file"], r["element"]) for r in table] == [
        (sample, str(100 + number), f"scan.{number:03}", "Co") for number, (sample, _) in enumerate(scans())
    ]
    (decision,) = rows(out / "decisions.csv")
    assert (decision["sample"], decision["scan_id"], decision["file"]) == ("charged", "106", "scan.006")
    assert "for 2 frames" in decision["reason"]
    said = next(line for line in done.stderr.splitlines() if " decision " in line)
    for name in ("charged", "scan_id=106", "scan.006", "element=Co"):
        assert name in said
    assert "frame 1 (pri$tine [0], scan 107, scan.007, Co): OS" in done.stderr
    assert json.loads((out / "summary.json").read_text())["samples"] == dict.fromkeys(LITHIUM, 4)
    assert (out / "operando.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_series_by_run_if_the_config_says_so(xa: Run, tmp_path: Path) -> None:
    record(tmp_path / "night.jsonl")
    (tmp_path / "agent.yaml").write_text(CONFIG + "series: {key: uid}\n")
    out = tmp_path / "out"
    xa("replay", tmp_path / "night.jsonl", "--config", tmp_path / "agent.yaml", "--out", out)
    assert rows(out / "decisions.csv") == []
    assert [r["sample"] for r in rows(out / "descriptors.csv")] == [sample for sample, _ in scans()]


def write_files(folder: Path, names: bool) -> list[Path]:
    folder.mkdir()
    found = []
    for number, (sample, mu) in enumerate(scans()):
        if names or sample == "charged":
            found.append(folder / f"scan{number}.xdi")
            header = "# XDI/1.0\n# Column.1: energy eV\n# Column.2: mu\n# Element.symbol: Co\n# Element.edge: K\n"
            header += f"# Scan.start_time: 2024-05-01 10:0{number}:00\n"
            header += f"# Sample.name: {sample}\n# ---\n" if names else "# ---\n"
            found[-1].write_text(header + "".join(f"{e} {m}\n" for e, m in zip(ENERGY, mu, strict=True)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("names", [True, False], ids=["named", "unnamed"])
def test_files_of_a_folder_are_series_by_their_headers_else_one(xa: Run, tmp_path: Path, names: bool) -> None:
    files = write_files(tmp_path / "in", names)
    (tmp_path / "agent.yaml").write_text(CONFIG)
    out = tmp_path / "out"
    xa("run", "--folder", tmp_path / "in", "--config", tmp_path / "agent.yaml", "--out", out, "--frames", len(files))
    table = rows(out / "descriptors.csv")
    assert [r["file"] for r in table] == [path.name for path in files]
    assert {r["sample"] for r in table} == (set(LITHIUM) if names else {""})
    (decision,) = rows(out / "decisions.csv")
    assert decision["file"] == "scan6.xdi"
    assert decision["sample"] == ("charged" if names else "")


@pytest.mark.slow
def test_no_rule_decides_on_files_of_yesterday(xa: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", names=True)
    for file in files:
        os.utime(file, (yesterday := time.time() - 86_400.0, yesterday))
    (tmp_path / "agent.yaml").write_text(CONFIG)
    out = tmp_path / "out"
    args = ("--config", tmp_path / "agent.yaml", "--out", out, "--frames", len(files))
    done = xa("run", "--folder", tmp_path / "in", *args)
    assert "no rule decides on them" in done.stdout + done.stderr
    assert len(rows(out / "descriptors.csv")) == len(files)
    assert rows(out / "decisions.csv") == []


def test_answers_for_files_name_sample_and_element(xa: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", names=True)[:2]
    answers = json.loads(xa("infer", *files, "--model", "co-k", "--format", "json").stdout)
    assert [(a["id"], a["sample"], a["element"]) for a in answers] == [
        (f"scan{k}.xdi:0", sample, "Co") for k, sample in enumerate(LITHIUM)
    ]
    assert "scan1.xdi:0, pri$tine [0], Co" in xa("infer", *files, "--model", "co-k").stdout
