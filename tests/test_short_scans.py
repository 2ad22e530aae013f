"""Test that scans that end before the grid are answered, from documents and from files."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from valid import check_document
from windowed import Windowed

from xas_agent import XASAgent, load_config
from xas_agent.adapters.files.batch import read_all
from xas_agent.adapters.files.conversion import convert
from xas_agent.adapters.files.documents import FileSource
from xas_agent.agent.types.reasons import Flag
from xas_agent.app.config import Config
from xas_agent.app.jobs.infer import infer_files
from xas_agent.app.wiring import load_models
from xas_agent.models import card as cards
from xas_agent.models.training.data import load_feff

EDGE_EV, OFFSET_EV, E0_EV = 7709.0, 4.0, 15.0
ENDS = {
    "long": 83.0,
    "40 above E0": E0_EV + 40,
    "25 above E0": E0_EV + 25,
    "25 above the table": 25.0,
    "too short": 22.0,
}
"""Last energies, eV from the tabulated edge."""
ANSWERED = [name for name in ENDS if name != "too short"]


def config(windowed: Windowed) -> Config:
    return load_config({"model": {"use": [str(windowed.model)], "threads": 1}})


@pytest.fixture(scope="module")
def files(windowed, tmp_path_factory) -> list[Path]:
    """One compound as measured by scans of different ends: FEFF's spectrum, 4 eV lower, on a pre-edge line."""
    folder = tmp_path_factory.mktemp("scans")
    data = load_feff(windowed.data, "many", ("OS",))
    row = int(np.flatnonzero(data.split == "val")[1])
    written: list[Path] = []
    for name, stop in ENDS.items():
        relative = np.arange(-100.0, stop + 0.25, 0.5)
        feff = np.interp(relative + OFFSET_EV, data.energy[row] - EDGE_EV, data.mu[row], left=0.0)
        i0 = 1e6 - 100.0 * relative
        it = i0 * np.exp(-(0.4 - 3e-4 * relative + 0.8 * feff))
        rows = "".join(f"{e:.2f} {a:.8g} {b:.8g}\n" for e, a, b in zip(EDGE_EV + relative, i0, it, strict=True))
        header = "# XDI/1.0\n# Column.1: energy eV\n# Column.2: i0\n# Column.3: itrans\n# Element.symbol: Co\n"
        header += (
            f"# Element.edge: K\n# Sample.name: {name}\n# Scan.start_time: 2024-05-01 10:{len(written):02d}:00\n"
        )
        written.append(folder / f"{name}.xdi")
        written[-1].write_text(f"{header}# ---\n{rows}")
    return written


@pytest.fixture(scope="module")
def documents(files, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "run.jsonl"
    convert(read_all(files), path)
    return path


@pytest.fixture(scope="module")
def published(windowed, documents) -> list[tuple[str, dict[str, Any]]]:
    published: list[tuple[str, dict[str, Any]]] = []
    agent = XASAgent(config(windowed), load_models(config(windowed)))
    agent.subscribe(lambda name, doc: published.append((name, doc)))
    for name, doc in FileSource(documents):
        agent(name, doc)
    assert agent.wait(60)
    agent.close()
    return published


def events(published: list[tuple[str, dict[str, Any]]], key: str) -> dict[str, dict[str, Any]]:
    """Return the data of Events with a key, by sample."""
    return {doc["data"]["sample"]: doc["data"] for name, doc in published if name == "event" and key in doc["data"]}


def test_every_document_is_valid(published):
    for name, doc in published:
        check_document(name, doc)


def test_short_scans_are_answered_with_wider_intervals(windowed, published):
    answers = events(published, "ood_score")
    assert list(answers) == ANSWERED
    flags = {name: Flag.SHORT_SCAN in Flag.of(d["flags"]) for name, d in answers.items()}
    assert flags == {name: name != "long" for name in ANSWERED}
    width = {name: d["MOOD_hi"] - d["MOOD_lo"] for name, d in answers.items()}  # far from all bounds
    interval = {d.name: d for d in cards.read_card(windowed.model).descriptors}["MOOD"].interval
    assert interval.windows[0].scale > 1.1 * interval.scale
    assert width["25 above E0"] > width["long"]
    assert width["25 above the table"] > 1.2 * width["long"]
    for name in ANSWERED:
        numbers = [v for v in answers[name].values() if isinstance(v, float)]
        assert np.isfinite(numbers).all()
        assert answers[name]["OS_mean"] == pytest.approx(answers["long"]["OS_mean"], abs=0.4)


def test_spectra_are_published_as_far_as_they_are_known(published):
    spectra = {name: np.asarray(d["spectrum"]) for name, d in events(published, "spectrum").items()}
    known = {name: int(np.isfinite(s).sum()) for name, s in spectra.items()}
    # The grid begins at -9 eV, and FEFF's scale is 4 eV higher.
    assert known == {"long": 82, "40 above E0": 69, "25 above E0": 54, "25 above the table": 39}
    for name, spectrum in spectra.items():
        short = np.isfinite(spectrum)
        np.testing.assert_allclose(spectrum[short], spectra["long"][short], atol=0.06, err_msg=name)


def test_a_scan_that_is_too_short_names_both_energies(published):
    (aside,) = events(published, "reason").values()
    assert aside["reason"] == "does not cover the grid"
    assert "measured 7609.0…7731.0 eV, needed at least 7699.0…7732.0 eV" in aside["detail"]


def test_files_give_the_same_answers(windowed, files, published):
    answers = {a["sample"]: a for a in infer_files(files, config(windowed), theory=False)}
    for name, live in events(published, "ood_score").items():
        for descriptor in ("OS", "CN", "NNRS"):
            for end in ("mean", "lo", "hi"):
                found = answers[name][descriptor][end]
                assert found == pytest.approx(live[f"{descriptor}_{end}"], abs=1e-4), (name, descriptor, end)
    assert "does not cover the grid" in answers["too short"]["set_aside"]


@pytest.mark.parametrize("form", ["npz", "csv"])
def test_aligned_short_spectra_are_written_drawn_and_read_again(xa: Callable, windowed, files, tmp_path, form):
    some = [f for f in files if f.stem in ("long", "25 above E0", "too short")]
    xa("align", *some, "--out", tmp_path, "--format", form, "--model", windowed.model)
    table = {r["sample"]: r for r in csv.DictReader((tmp_path / "alignment.csv").read_text().splitlines())}
    assert table["25 above E0"]["flags"] == "short scan"
    assert len(list(tmp_path.glob("*.png"))) == 3
    aligned = sorted(p for p in tmp_path.glob(f"*.{form}") if p.name != "alignment.csv")
    done = xa("infer", *aligned, "--theory", "--format", "json", "--model", windowed.model)
    again = {a["id"].removesuffix(":0"): a for a in json.loads(done.stdout)}
    measured = {a["sample"]: a for a in infer_files(some, config(windowed), theory=False)}
    assert len(again) == 2
    for id, answer in again.items():
        name = "25 above E0" if "25" in id else "long"
        assert answer["flags"] == measured[name]["flags"]
        assert answer["OS"]["mean"] == pytest.approx(measured[name]["OS"]["mean"], abs=0.02)


def test_a_session_records_and_draws_them(xa: Callable, windowed, documents, tmp_path):
    out = tmp_path / "out"
    xa("run", "--source", documents, "--model", windowed.model, "--out", out)
    table = list(csv.DictReader((out / "descriptors.csv").read_text().splitlines()))
    assert [r["sample"] for r in table] == ANSWERED
    assert "short scan" in table[-1]["flags"]
    assert (out / "operando.png").read_bytes()[:4] == b"\x89PNG"
    before = (out / "descriptors.csv").read_text()
    xa("rebuild", out)
    assert (out / "descriptors.csv").read_text() == before
