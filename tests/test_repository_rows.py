"""The FEFF rows of the repository: whole, ours, and enough to train from, as ``make train-small`` does."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked import run_command

from xas_agent.models.card import verify
from xas_agent.models.datasets.shards import apart_of, read_rows, sets_of, shards_of

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "data/feff"
SETS = sets_of(ROWS)


def test_the_repository_has_its_sets_within_ten_megabytes():
    assert {"co_k", "fe_k", "mn_k", "ni_k", "o_k"} <= {p.stem for p in SETS}
    assert sum(p.stat().st_size for p in ROWS.rglob("*") if p.suffix in (".npz", ".csv")) < 10e6


@pytest.mark.parametrize("path", [*SETS, *apart_of(ROWS), *shards_of(ROWS)], ids=lambda p: p.stem)
def test_every_row_is_whole_and_its_material_on_one_side(path):
    rows = read_rows(path)
    assert not {r.id: r.defect for r in rows if r.defect}
    assert len({r.id for r in rows}) == len(rows)
    if path in SETS:
        assert {r.element.lower() for r in rows} == {path.stem.removesuffix("_k")}
    sides = [{r.cells["material"] for r in rows if r.cells["split"] == s} for s in ("train", "val")]
    assert not sides[0] & sides[1]
    # OmniXAS's rows have 141 points; ours reach 99 eV.
    assert all(r.energy[-1] - r.energy[0] > 95 for r in rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_train_small_in_short(tmp_path, monkeypatch):
    """The commands of ``make train-small`` with a fiftieth of its steps."""
    make = ["make", "-n", "--no-print-directory", "-o", ".venv/.installed", "train-small", f"OUT={tmp_path}"]
    shown = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    train, evaluate = (line.split()[1:] for line in shown.splitlines())
    config = yaml.safe_load((ROOT / "configs/training/fe-small.yaml").read_text(encoding="utf-8"))
    config |= {"members": 2, "optimisation": config["optimisation"] | {"epochs": 2, "rows_per_epoch": 96}}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    assert train[1] == "fe-small"
    train[1] = str(tmp_path / "short.yaml")
    monkeypatch.chdir(ROOT)
    said = [run_command(*line) for line in (train, evaluate)]
    assert said[0].stdout.strip() == f"{tmp_path}/fe-small"
    metrics = verify(tmp_path / "fe-small").metrics
    table = re.findall(r"^ *(\w+) +(-?\d\.\d+) +(-?\d\.\d+) +([+-]\d\.\d+) +(\d+) ", said[1].stdout, re.M)
    assert [row[0] for row in table] == ["OS", "CN", "OCN", "CN2", "PSGO", "NNRS", "MOOD", "OS_mean", "mean_bond"]
    for name, ours, theirs, apart, _ in table:
        assert float(ours) == pytest.approx(metrics[name]["value"], abs=2e-3)
        assert float(apart) == pytest.approx(float(ours) - float(theirs), abs=2e-3)
    # The forest is fully trained, and knows the coordination of most sites.
    assert np.mean([float(row[2]) for row in table[:3]]) > 0.6


def test_no_label_is_an_impossible_oxidation_state():
    """Training leaves such a label out with a warning; the tables would show it as the range of the set."""
    for path in SETS:
        means = [float(r.cells["OS_mean"]) for r in read_rows(path) if r.cells["OS_mean"]]
        assert all(-3 <= mean <= 7 for mean in means), path.stem
