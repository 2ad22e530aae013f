"""Train, serve and report on a model of oxygen sites: other descriptors and another edge need no change of code."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from xas_agent.app.config import Config
from xas_agent.app.jobs.evaluate import report_on
from xas_agent.app.jobs.infer import infer_files
from xas_agent.app.jobs.train import train_model
from xas_agent.models import card as cards

pytestmark = pytest.mark.slow

EDGE_EV = 543.1
DESCRIPTORS = ("OS", "CN", "CN2", "PSGO", "NNRS", "NNOSM")
CONFIG = f"""
name: o-k
dataset: o_k
absorber: O
edge_ev: {EDGE_EV}
grid: {{start_ev: -9.0, stop_ev: 72.0, step_ev: 1.0, foot_ev: [-9.0, -6.0], anchor_ev: [40.0, 72.0]}}
classified: [OS, CN, CN2, PSGO]
regressed: [NNRS, NNOSM]
units: {{OS: e, NNRS: Å, NNOSM: e}}
network: {{width: 8, blocks: 1, heads: 2, latent: 16, gathered: 4, key: 4, bands: 2}}
optimisation: {{epochs: 2, batch: 8, rows_per_epoch: 16}}
members: 2
feff_minus_experiment: {{value_ev: 0.0, sd_ev: 2.0, source: none}}
licence: BSD-3-Clause
sources: [made for the test]
cite: [nobody]
"""
REPORT = """
studies: [benchmark, uncertainty, out_of_distribution, exploration]
benchmark:
  judged: [OS, CN, CN2, PSGO, NNRS, NNOSM]
  competitors: [decision-tree]
  search: false
  members: 1
  members_by_site: 0
  lone_spts: 0
  experts: []
"""


@pytest.fixture(scope="module")
def oxygen(feff, tmp_path_factory) -> Path:
    """Return a folder with the small data set, moved to the O K edge and with six descriptors of oxygen sites."""
    folder = tmp_path_factory.mktemp("oxygen")
    with np.load(feff / "small.npz") as z:
        np.savez(folder / "o_k.npz", id=z["id"], energy=z["energy"] - 7709.0 + EDGE_EV, mu=z["mu"])
    with (feff / "small.csv").open(newline="") as f:
        rows = [
            {k: r[k] for k in ("id", "material", "split", "CN", "CN2", "PSGO", "NNRS")} for r in csv.DictReader(f)
        ]
    for k, r in enumerate(rows):
        r |= {"OS": "-1" if k % 5 == 0 else "-2", "NNOSM": f"{2 + k / len(rows):.3f}"}
    with (folder / "o_k.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, rows[0])
        table.writeheader()
        table.writerows(rows)
    (folder / "o-k.yaml").write_text(CONFIG, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(oxygen) -> Path:
    return train_model(oxygen / "o-k.yaml", oxygen, oxygen / "models", 1)


def test_estimates_have_the_descriptors_of_the_config(model, oxygen):
    card = cards.verify(model)
    assert tuple(d.name for d in card.descriptors) == DESCRIPTORS
    assert card.descriptors[0].classes == (-2, -1)
    config = Config.model_validate({"model": {"use": [str(model)]}})
    answers = json.loads(json.dumps(infer_files([oxygen / "o_k.npz"], config, theory=True)))
    assert len(answers) == 30
    for answer in answers:
        assert set(DESCRIPTORS) <= set(answer)
        assert answer["OS"]["value"] in (-2, -1)
        assert answer["OS"]["lo"] <= answer["OS"]["mean"] <= answer["OS"]["hi"]


def test_cross_validation_needs_no_mean_oxidation_state(oxygen, tmp_path):
    config = yaml.safe_load(CONFIG) | {"name": "cv", "protocol": "cross-validation"}
    (tmp_path / "cv.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    metrics = cards.verify(train_model(tmp_path / "cv.yaml", oxygen, tmp_path, 1)).metrics
    assert np.isfinite(metrics["NNOSM"]["value"])
    assert "OS_mean_MAE_e" not in metrics


def test_report_has_the_descriptors_of_the_config(model, oxygen, tmp_path):
    (tmp_path / "o.yaml").write_text(REPORT)
    page = report_on(str(model), oxygen, tmp_path / "report", str(tmp_path / "o.yaml"), [], 1)
    with (page.parent / "tables" / "spt-against-best.csv").open() as f:
        assert tuple(r["descriptor"] for r in csv.DictReader(f)) == DESCRIPTORS
