"""Test that spectra from files give the same answers as the same spectra from a stream."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xas_agent import XASAgent, load_config
from xas_agent.adapters.files.batch import read_all
from xas_agent.adapters.files.conversion import convert
from xas_agent.adapters.files.documents import FileSource
from xas_agent.agent.types.protocols import Estimator
from xas_agent.agent.types.reasons import Flag
from xas_agent.app.config import Config
from xas_agent.app.jobs.align import align_files
from xas_agent.app.jobs.infer import infer_files
from xas_agent.app.wiring import load_models

EDGE_EV, FRAMES = 7709.0, 8
SHORT, SATURATED, GLITCHED = 5, 3, 6
COLUMNS_HEADER = "# XDI/1.0\n# Column.1: energy eV\n# Column.2: i0\n# Column.3: {}\n# Column.4: irefer\n"
SCAN_HEADER = "# Element.symbol: Co\n# Element.edge: K\n# Scan.start_time: 2024-05-01 10:{:02d}:00\n# ---\n"


def config(**alignment: Any) -> Config:
    return load_config({"model": {"use": ["co-k"], "threads": 1}, "alignment": alignment})


@cache
def models() -> Sequence[Estimator]:
    return load_models(config())


def edge(energy: np.ndarray, e0: float) -> np.ndarray:
    x = energy - e0
    return (0.5 + np.arctan(x / 1.5) / np.pi) * (1 + 0.5 * np.exp(-(((x - 5) / 5) ** 2)))


def write_scans(folder: Path, kind: str = "itrans") -> list[Path]:
    """Write scans of a charge with a drifting foil: one without a pre-edge, one clipped, one with glitches."""
    energy = np.concatenate([np.arange(-120, -20, 5.0), np.arange(-20, 60, 0.7), np.arange(60, 460, 4.0)]) + EDGE_EV
    files: list[Path] = []
    for k in range(FRAMES):
        rng, e = np.random.default_rng(k), energy[energy > EDGE_EV - 14] if k == SHORT else energy
        i0 = 1e6 * (1 + 1e-3 * rng.normal(size=len(e)))
        mu = 0.4 - 3e-4 * (e - EDGE_EV) + edge(e, EDGE_EV + 10 + 0.02 * k)
        mu[[60, 110]] += 0.15 * (k == GLITCHED)
        signal = i0 * np.exp(-mu) if kind == "itrans" else i0 * mu * 1e-3
        if k == SATURATED:
            signal = np.minimum(signal, np.quantile(signal, 0.9))
        foil = signal * np.exp(-edge(e, EDGE_EV + 0.3 + 0.01 * k))
        files.append(folder / f"scan{FRAMES - k}.xdi")  # names in the reverse order of time
        table = np.stack([e, i0, signal, foil], axis=1)
        rows = "".join(" ".join(f"{v:.9g}" for v in row) + "\n" for row in table)
        files[-1].write_text(COLUMNS_HEADER.format(kind) + SCAN_HEADER.format(k) + rows)
    return files


def stream(files: list[Path], settings: Config, folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Stream the files as documents; return answers, and reasons for frames set aside, by file name."""
    events: dict[str, str] = {}
    documents: list[tuple[str, dict]] = []
    convert(read_all(files), folder / "run.jsonl")
    agent = XASAgent(settings, models())
    agent.subscribe(lambda name, doc: documents.append((name, doc)))
    for name, doc in FileSource(folder / "run.jsonl"):
        if name == "event":
            events[doc["uid"]] = doc["data"]["file"]
        agent(name, doc)
    assert agent.wait(60)
    agent.close()
    data = [doc["data"] for name, doc in documents if name == "event"]
    answers = {events[d["frame_uid"]]: d for d in data if "ood_score" in d}
    return answers, {events[d["uid"]]: d["reason"] for d in data if "reason" in d}


@pytest.mark.parametrize("glitches", [None, {}])
def test_files_and_streams_give_the_same_answers(tmp_path, glitches):
    files, settings = write_scans(tmp_path), config(glitches=glitches)
    live, aside = stream(files, settings, tmp_path)
    answers = {Path(a["source"]).name: a for a in infer_files(sorted(files), settings, theory=False)}
    assert aside == {files[SATURATED].name: "It saturated"}
    assert answers[files[SATURATED].name]["set_aside"].startswith("It saturated: ")
    assert len(live) == FRAMES - 1
    for name, streamed in live.items():
        answer = answers[name]
        assert ", ".join(answer["flags"]) == streamed["flags"]
        assert answer["OS"]["mean"] == pytest.approx(streamed["OS_mean"], abs=1e-5)
        for quantity, value in answer["alignment"].items():
            assert value == pytest.approx(streamed[quantity], abs=1e-6, nan_ok=True), quantity
    assert Flag.BACKGROUND_HELD in Flag.of(live[files[SHORT].name]["flags"])
    if glitches is not None:
        assert Flag.GLITCHES_REPAIRED in Flag.of(live[files[GLITCHED].name]["flags"])
        assert live[files[GLITCHED].name]["glitches"] == 2


def test_files_are_aligned_in_order_of_time(tmp_path):
    files = write_scans(tmp_path)
    by_name = {f.spectrum.id: f for f in align_files(sorted(files), config())}
    short = by_name[f"{files[SHORT].name}:0"]
    assert short.flags == (Flag.BACKGROUND_HELD,)
    assert short.refusal is None


def test_settings_that_need_tables_apply_to_files_and_streams(tmp_path):
    files = write_scans(tmp_path, "ifluor")
    settings = config(normalisation={"mode": "mback"}, self_absorption={"formula": "LiCoO2"})
    live, _ = stream(files, settings, tmp_path)
    answers = {Path(a["source"]).name: a for a in infer_files(files, settings, theory=False)}
    name = files[0].name
    assert Flag.of(live[name]["flags"])[-1] is Flag.SELF_ABSORPTION_CORRECTED
    assert live[name]["self_absorption_damping"] == pytest.approx(0.28, abs=0.02)
    assert answers[name]["OS"]["mean"] == pytest.approx(live[name]["OS_mean"], abs=1e-5)
    assert answers[name]["alignment"]["edge_step"] == pytest.approx(live[name]["edge_step"])
    assert not math.isclose(live[name]["edge_step"], stream(files, config(), tmp_path)[0][name]["edge_step"])
