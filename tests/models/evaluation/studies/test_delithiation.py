"""Leave-one-composition-out over a made series of layered oxides."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.models.evaluation.competitors.linear import PLS, PLSSettings, end_member_share
from xas_agent.models.evaluation.studies.delithiation import delithiation
from xas_agent.models.evaluation.studies.layered_series import (
    AS_COMPUTED,
    AS_MEASURED,
    read_series,
    spectra_of,
    stacking,
)
from xas_agent.models.evaluation.studies.series_models import (
    LCF_NAME,
    PLS_NAME,
    DelithiationSettings,
    FineTuneSettings,
)
from xas_agent.models.training.augment import shifted
from xas_agent.models.training.build import assemble
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.plan import TrainedMember, TrainingPlan
from xas_agent.models.training.rows import FINE_EV
from xas_agent.models.training.train import train_member

EDGE = 7709.0
CONFIG: dict[str, Any] = {
    "name": "series",
    "dataset": "series",
    "absorber": "Co",
    "edge_ev": EDGE,
    "grid": {"start_ev": -9.0, "stop_ev": 80.0, "step_ev": 1.0, "foot_ev": [-9.0, -6.0], "anchor_ev": [40.0, 70.0]},
    "classified": ["OS"],
    "regressed": ["NNRS", "OS_mean"],
    "members": 2,
    "network": {"width": 8, "blocks": 1, "node_points": 2, "heads": 2, "latent": 16, "gathered": 4, "bands": 2},
    "augmentation": {"disturbed": 0.3, "mixed": 0.2, "noise": 0.01},
    "optimisation": {"epochs": 2, "batch": 8, "rows_per_epoch": 32, "learning_rate": 0.003},
    "feff_minus_experiment": {"value_ev": 3.2, "sd_ev": 1.5, "source": "a standard"},
    "licence": "BSD-3-Clause",
    "sources": ["made for the test"],
    "cite": ["nobody"],
}
FORMULAS = {0.0: "CoO2", 0.25: "Li(CoO2)4", 0.5: "Li(CoO2)2", 0.75: "Li3(CoO2)4", 1.0: "LiCoO2"}


def spectrum(energy, x: float, site: float):
    """A mixture of two end members, and a little of what differs between sites."""
    ends = [0.5 + np.arctan((energy - 3 * oxidation) / 3) / np.pi for oxidation in (3, 4)]
    return x * ends[0] + (1 - x) * ends[1] + 0.02 * site * np.exp(-0.5 * ((energy - 25) / 4) ** 2)


def write_rows(folder: Path) -> None:
    energy = np.linspace(-14, 95, 130)
    rows: list[dict[str, Any]] = []
    mus = []

    def add(material: str, formula: str, kind: str, split: str, x: float, site: float) -> None:
        mus.append(spectrum(energy, x, site))
        labels = {"OS": round(4 - x), "OS_mean": 4 - x, "NNRS": abs(site)}
        named = {"id": f"{material}_{len(rows)}", "material": material, "formula": formula, "kind": kind}
        rows.append(named | {"split": split} | labels)

    for x, formula in FORMULAS.items():
        for split, ordering in (("train", "s0"), ("sim", "s1")):
            for site in (-1.0, 1.0):
                add(f"Li{x:.2f}CoO2_O3_{ordering}", formula, "layered", split, x, site)
    add("CoO2_O1", "CoO2", "layered", "train", 0.0, 0.5)
    add("CoO2_H13", "CoO2", "layered", "train", 0.0, -0.5)
    for k in range(2):
        add(f"LiCoO2_r{k}", "LiCoO2", "rattled", "val", 1.0, 0.3 + 0.4 * k)
    for k in range(6):
        add(f"mp-{k}", f"X{k}", "mp", "train", k / 5, 0.1 * k)
    ids = np.array([r["id"] for r in rows])
    np.savez(folder / "series.npz", id=ids, energy=EDGE + np.tile(energy, (len(rows), 1)), mu=mus)
    with (folder / "series.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, rows[0])
        table.writeheader()
        table.writerows(rows)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder)
    return folder


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory) -> str:
    plan = TrainingPlan.read(TrainingConfig.model_validate(CONFIG), data)
    members = [
        train_member(plan.new_member(k), plan.rows, plan.folds[k][0], plan.scale, plan.config, k, plan.data.material)
        for k in range(2)
    ]
    return str(assemble(plan, [TrainedMember.of(m) for m in members], tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def series(data, pretrained):
    return read_series(TrainingConfig.model_validate(CONFIG), pretrained, data)


def test_a_layered_row_without_a_mean_is_of_no_composition(series):
    whole = series.plan.data
    means = whole.labels["OS_mean"].copy()
    means[series.layered[0]] = np.nan
    data = replace(whole, labels=whole.labels | {"OS_mean": means})
    changed = replace(series, plan=replace(series.plan, data=data))
    assert len(series.compositions) > 2
    np.testing.assert_array_equal(changed.compositions, series.compositions)
    assert sum(len(changed.held(c)) for c in changed.compositions) == len(series.layered) - 1


def test_a_held_composition_is_out_of_training_in_whichever_structure(series):
    for composition in series.compositions:
        held, unseen = series.judged(composition)
        learnt = series.learnt(composition)
        assert len(held) >= 2
        assert len(unseen) == 2
        assert not set(series.formula[learnt]) & set(series.formula[held])
    rattled = np.flatnonzero(series.plan.data.kind == "rattled")
    assert not set(rattled) & set(series.learnt(3.0))
    assert set(rattled) <= set(series.learnt(4.0))


def test_the_other_ordering_is_never_among_the_rows_that_can_be_learnt(series):
    assert set(series.plan.data.split) == {"train", "val"}
    assert len(series.unseen) == 10


@pytest.mark.parametrize(
    ("material", "expected"),
    [
        ("Li0.25CoO2_O3_s0", "O3"),
        ("CoO2_O1", "O1"),
        ("NiO2_H13", "H1-3"),
        ("Li0.50NiO2_JT06", "JT"),
        ("LiCoO2", "other"),
    ],
)
def test_stackings_by_name(material, expected):
    assert stacking(material) == expected


@given(st.floats(-0.5, 1.5), st.integers(2, 30))
def test_a_linear_combination_finds_its_share(share, points):
    first, second = np.linspace(0, 1, points), np.linspace(0, 1, points) ** 2 + 1
    mixed = (1 - share) * first + share * second
    assert end_member_share(mixed[None], [first, second])[0] == pytest.approx(np.clip(share, 0, 1), abs=1e-9)


def test_pls_learns_a_series_and_chooses_its_components(series):
    train = series.layered
    true = series.plan.data.labels["OS_mean"][train]
    fitted = PLS(series.plan.rows, train, true, true, PLSSettings(components=(1, 2, 3)))
    assert fitted.components >= 2
    unseen = series.plan.rows.aligned(series.unseen_fine).double().numpy()
    np.testing.assert_allclose(fitted.predict(unseen), series.unseen.labels["OS_mean"], atol=0.02)


def test_pls_with_broadened_copies_stands_broadening_better(series):
    true = series.plan.data.labels["OS_mean"][series.layered]
    broadened = shifted(series.unseen_fine, FINE_EV, torch.zeros(10, 1), torch.full((10, 1), 5.0))
    spectra = series.plan.rows.aligned(broadened).double().numpy()
    errors: list[float] = []
    for copies in (0, 10):
        pls = PLSSettings(components=(2, 3), copies=copies, shift_ev=0.0, broadening_ev=(4.0, 6.0))
        predicted = PLS(series.plan.rows, series.layered, true, true, pls).predict(spectra)
        errors.append(float(np.abs(predicted - series.unseen.labels["OS_mean"]).mean()))
    assert errors[1] < errors[0]


def test_measured_spectra_are_several_of_each_and_the_same_for_every_model(series):
    spectra, again = (spectra_of(series, 3.5, draws=3, seed=0) for _ in range(2))
    assert {k: len(v) for k, v in spectra.items()} == {AS_COMPUTED: 4, AS_MEASURED: 12}
    assert torch.equal(spectra[AS_MEASURED], again[AS_MEASURED])
    torch.testing.assert_close(spectra[AS_MEASURED][:, -10:].mean(1), torch.ones(12), atol=0.1, rtol=0)


@pytest.mark.slow
def test_the_study_judges_every_composition_and_tells_the_ends_apart(data, pretrained, tmp_path):
    settings = DelithiationSettings(
        targets=(TrainingConfig.model_validate(CONFIG),),
        pretrained=pretrained,
        members=1,
        recipes={
            "SPT": FineTuneSettings(epochs=1, rows_per_epoch=16),
            "SPT, all": FineTuneSettings(epochs=1, others=True, copies=2),
        },
        pls=PLSSettings(components=(1, 2)),
        pls_copies=PLSSettings(components=(1, 2), copies=2),
        draws=2,
    )
    section = delithiation(settings, data, tmp_path, jobs=1, progress=lambda *_: None)
    summary = section.tables["delithiation"]
    assert list(summary["model"])[:5] == ["SPT", "SPT, all", "PLS", "PLS, disturbed copies", "LCF"]
    assert len(summary) == 2 * 5
    clean = summary[summary["spectra"] == AS_COMPUTED].set_index("model")
    assert clean.loc[PLS_NAME, "interior"] < 0.02
    assert clean.loc[LCF_NAME, "interior"] < 0.02
    assert np.isnan(clean.loc[LCF_NAME, ["x = 1", "x = 0, O3"]].to_numpy(float)).all()
    assert np.isfinite(clean.loc["SPT"].drop(["target", "spectra", "Jahn–Teller"]).to_numpy(float)).all()
    by_composition = section.tables["delithiation-compositions"]
    assert len(by_composition) == 5 + 2 + 5
    assert "The interior error of SPT is" in section.text
