"""The out-of-distribution score as a detector, the rows that judge it, and what else is written from such rows."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xas_agent.models.convert import served_of
from xas_agent.models.evaluation.competitors.conditions import CLEAN, Condition
from xas_agent.models.evaluation.studies.element_rows import ElementRows, held_out_rows, move_to_edge, subsample
from xas_agent.models.evaluation.studies.exploration import exploration
from xas_agent.models.evaluation.studies.out_of_distribution import (
    EDGE_STEP_KIND,
    add_dropouts,
    auroc,
    detection,
    out_of_distribution,
    outliers_by_kind,
    self_absorb,
)
from xas_agent.models.evaluation.studies.uncertainty import uncertainty
from xas_agent.models.network.recall import Recall
from xas_agent.models.runtime import Model
from xas_agent.models.training.build import assemble
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.plan import TrainedMember, TrainingPlan

EDGES = {"Cu": 8979.0, "Ni": 8333.0}


def config(absorber: str, protocol: str = "split") -> TrainingConfig:
    """A network small enough for a test."""
    return TrainingConfig.model_validate(
        {
            "name": "small",
            "dataset": absorber,
            "absorber": absorber,
            "edge_ev": EDGES[absorber],
            "grid": {
                "start_ev": -9.0,
                "stop_ev": 71.0,
                "step_ev": 1.0,
                "foot_ev": [-9.0, -6.0],
                "anchor_ev": [40.0, 60.0],
            },
            "classified": ["OS", "CN"],
            "regressed": ["NNRS", "OS_mean"],
            "lowest": {"NNRS": 0.0},
            "network": {"width": 8, "blocks": 1, "heads": 2, "latent": 16, "gathered": 4, "key": 4, "bands": 2},
            "protocol": protocol,
            "members": 2,
            "feff_minus_experiment": {"value_ev": 0.0, "sd_ev": 1.0, "source": "a standard"},
            "licence": "BSD-3-Clause",
            "sources": ["made for the test"],
            "cite": ["nobody"],
        }
    )


def write_rows(folder: Path, absorber: str, end_ev: float, count: int = 120) -> None:
    """Edges whose energy depends on OS and white line on CN; those of Ni are broader, one is a metal."""
    rng = np.random.default_rng(0)
    energy = np.linspace(-14.0, end_ev, 150)
    mus, rows = [], []
    for k in range(count):
        oxidation, number = (int(rng.choice(c)) for c in ((1, 2, 3), (4, 6)))
        spread, at = float(rng.uniform(0, 0.1)), 3.0 * oxidation + rng.normal(0, 0.3)
        edge = np.arctan((energy - at) / (2.0 if absorber == "Cu" else 5.0)) / np.pi + 0.5
        line = 0.1 * number * np.exp(-(((energy - at - 5) / 4) ** 2))
        mus.append(edge + line + (0.05 - 0.3 * spread) * np.sin(energy.clip(0) / 6))
        split = ("val", "sim", "train", "train", "train")[k % 5]
        kind = "metal" if absorber == "Ni" and k == 0 else ""
        row = {"id": f"r{k}", "material": f"m{k}", "split": split, "kind": kind}
        rows.append({**row, "OS": oxidation if k % 7 else "", "CN": number, "NNRS": round(spread, 4)})
    shape = (count, 1)
    np.savez(
        folder / f"{absorber}.npz",
        id=np.array([r["id"] for r in rows]),
        energy=np.tile(energy + EDGES[absorber], shape),
        mu=np.array(mus),
    )
    with (folder / f"{absorber}.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, rows[0])
        table.writeheader()
        table.writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def built(folder) -> tuple[Model, TrainingPlan, list[ElementRows]]:
    """An untrained model, whose OOD score is fitted to spectra alone. Ni rows end before the grid of Cu does."""
    write_rows(folder, "Cu", 80.0)
    write_rows(folder, "Ni", 62.0, 40)
    torch.set_num_threads(1)
    plan = TrainingPlan.read(config("Cu"), folder)
    sharpness = Recall(1, 1, 4, (3, 2), 2).log_sharpness.detach()
    members = [TrainedMember(plan.new_member(k).state_dict(), sharpness, 1, 0.0) for k in range(2)]
    model = Model(assemble(plan, members, folder / "models"), "cpu")
    return model, plan, [ElementRows.read(config(a), folder) for a in ("Cu", "Ni")]


def test_the_report_says_what_is_found(built):
    model, plan, elements = built
    section = out_of_distribution(model, plan, elements, (CLEAN, Condition("noise", 0.01)), most=10)
    kinds = section.tables["ood-kinds"].set_index("kind")
    assert {"Ni compounds", "metals", "glitch 20 %", "noise alone", "constant", EDGE_STEP_KIND} <= set(kinds.index)
    assert "Cu compounds" not in kinds.index
    assert kinds.loc["glitch 20 %", "AUROC"] > 0.95
    assert kinds.loc["noise alone", "flagged"] == 1
    counted = kinds.iloc[:-1][kinds.iloc[:-1]["counts"]]
    assert kinds.iloc[-1]["AUROC"] == pytest.approx(counted["AUROC"].mean())
    assert EDGE_STEP_KIND in kinds.index[~kinds["counts"].to_numpy(bool)]
    alarms = section.tables["ood-alarms"]
    assert alarms["condition"].tolist() == ["clean", "noise 0.01"]
    assert set(alarms["spectra"]) == {10}
    assert f"{kinds.iloc[-1]['AUROC']:.3f}" in section.text
    assert set(section.figures) == {"ood-detector"}


def test_held_out_rows_are_neither_learnt_nor_calibrated_with(built):
    _, plan, elements = built
    rows, index, what = held_out_rows(plan, elements, 1000)
    assert rows is plan
    assert set(rows.data.split[index]) == {"val"}
    assert not set(index) & set(plan.learnt)
    assert "validation" in what
    crossed = replace(plan.variant(plan.learnt), judged=np.empty(0, int))
    rows, index, what = held_out_rows(crossed, elements, 1000)
    assert set(rows.data.split[index]) == {"sim"}
    assert len(rows.clean) == len(index) == 24
    assert "sim" in what


def test_another_elements_rows_come_to_this_edge_and_go_on_to_the_grids_end(built):
    _, plan, (_, nickel) = built
    data, spectra = move_to_edge(plan, nickel, nickel.data.kind != "metal")
    assert len(data) == len(spectra) == 39
    assert abs(np.median(data.energy) - EDGES["Cu"]) < 40
    assert np.isfinite(spectra).all()
    missing = plan.rows.grid.energy > 63
    assert np.ptp(spectra[:, missing], axis=1).min() > 0  # a flat tail would distinguish them
    assert np.abs(spectra[:, missing] - plan.clean[:, missing].numpy().mean(0)).max() < 0.5


def test_rows_of_this_element_stay_as_they_are(built):
    _, plan, (copper, _) = built
    _, spectra = move_to_edge(plan, copper, copper.data.split == "val")
    np.testing.assert_allclose(spectra, plan.clean[plan.judged].numpy(), atol=1e-5)


def test_a_wrong_edge_step_is_erased_by_the_footing(built):
    _, plan, elements = built
    rows, index, _ = held_out_rows(plan, elements, 1000)
    found = outliers_by_kind(plan, rows, index, elements)
    np.testing.assert_allclose(found[EDGE_STEP_KIND], plan.clean[index].numpy(), atol=1e-4)
    assert all(np.isfinite(s).all() and s.shape[1] == len(plan.rows.grid) for s in found.values())
    assert len(found["metals"]) > 1


def test_without_other_elements_there_are_still_outliers(built):
    _, plan, elements = built
    found = outliers_by_kind(plan, plan, plan.judged, [replace(elements[0])])
    assert "metals" not in found
    assert "dropout" in found


def test_dropouts_and_self_absorption():
    rng = np.random.default_rng(1)
    spectra = np.ones((50, 60))
    lost = 1 - add_dropouts(spectra, rng)
    assert ((lost > 0).sum(1) >= 2).all()
    assert ((lost > 0).sum(1) <= 4).all()
    assert lost.max() <= 0.3
    assert (spectra == 1).all()
    damped = self_absorb(np.array([[0.0, 1.0, 2.0]]), np.array([[1.0]]))
    np.testing.assert_allclose(damped, [[0, 1, 4 / 3]])


def test_figures_of_merit():
    assert auroc(np.array([0.1, 0.2]), np.array([0.3, 2.0])) == 1.0
    table = detection(np.array([0.1, 0.2]), {"odd": np.array([0.3, 2.0]), EDGE_STEP_KIND: np.array([0.1, 0.2])})
    assert table["flagged"].tolist() == [0.5, 0.0, 0.5]
    assert table["AUROC"].tolist() == [1.0, 0.5, 1.0]
    assert subsample(np.arange(10), 3).tolist() == [0, 4, 9]
    assert subsample(np.arange(2), 3).tolist() == [0, 1]


def test_the_report_says_how_far_to_trust_intervals(built):
    model, plan, elements = built
    section = uncertainty(model, plan, elements, (CLEAN, Condition("noise", 0.02)), most=12)
    shares = section.tables["uncertainty-coverage"]
    assert shares.index.tolist() == ["clean", "noise 0.02", "Ni at this edge"]
    assert shares.columns.tolist() == ["OS", "NNRS"]
    assert section.tables["uncertainty-calibration"]["descriptor"].tolist() == ["OS", "CN"]
    assert set(section.tables["uncertainty-risk"]["descriptor"]) == {"OS (mean)", "OS", "CN", "NNRS"}
    assert set(section.captions) == set(section.tables) | set(section.figures)
    assert "12 validation rows" in section.text


def test_a_model_folder_is_rebuilt_as_it_is_served(built, folder):
    model, plan, _ = built
    served, spectra = served_of(folder / "models" / "small"), plan.clean[plan.judged].float()
    with torch.no_grad():
        np.testing.assert_allclose(served(spectra).numpy(), model.forward(spectra.numpy()), atol=1e-4)


@pytest.mark.slow
def test_the_report_shows_where_spectra_lie_and_what_is_looked_at(built, folder):
    _, plan, elements = built
    section = exploration(folder / "models" / "small", plan, elements, most=60)
    names = ("map-spectra", "map-latent", "bands", "attention", "saliency")
    assert set(section.figures) == {f"exploration-{n}" for n in names}
    near = section.tables["exploration-neighbours"].set_index("descriptor")
    assert near.index.tolist() == ["OS", "CN", "NNRS", "OS_mean"]
    assert near.loc["OS", "spectra"] > near.loc["OS", "chance"]
    assert set(section.captions) == set(section.tables) | set(section.figures)
