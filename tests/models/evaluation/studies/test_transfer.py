"""Fine-tuning from a pre-trained model, and one network for several absorbers, on spectra that say their labels."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.agent.types.errors import InputError
from xas_agent.models.card import read_card, sha256_of, write_card
from xas_agent.models.evaluation.report.tables import score
from xas_agent.models.evaluation.studies.disorder import DisorderSettings, disorder
from xas_agent.models.evaluation.studies.fine_tuning import (
    TRAINED_WEIGHTS,
    TransferSettings,
    TransferTrial,
    TuningMode,
    cross_validated,
    fine_tune,
    fold_rows,
    freeze,
    run_trials,
    weights_digest,
)
from xas_agent.models.evaluation.studies.joint_plan import JointPlan, UniversalSettings, fold_of, prototype
from xas_agent.models.evaluation.studies.pooled_predictions import PooledPredictions, fold_scores, pool
from xas_agent.models.evaluation.studies.transfer import transfer
from xas_agent.models.evaluation.studies.universal import universal
from xas_agent.models.training.build import assemble
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.data import DataError
from xas_agent.models.training.plan import TrainedMember, TrainingPlan, served_weights
from xas_agent.models.training.train import share_of, train_member

EDGES = {"large": 8979.0, "small": 7709.0, "disordered": 8979.0}
CONFIG: dict[str, Any] = {
    "absorber": "Cu",
    "classified": ["OS"],
    "regressed": ["NNRS", "OS_mean"],
    "members": 2,
    "network": {"width": 8, "blocks": 1, "node_points": 2, "heads": 2, "latent": 16, "gathered": 4, "bands": 2},
    "augmentation": {"disturbed": 0.3, "mixed": 0.2, "noise": 0.01},
    "optimisation": {"epochs": 2, "batch": 24, "rows_per_epoch": 96, "learning_rate": 0.003},
    "feff_minus_experiment": {"value_ev": 3.2, "sd_ev": 1.5, "source": "a standard"},
    "licence": "BSD-3-Clause",
    "sources": ["made for the test"],
    "cite": ["nobody"],
}


def config(name: str, stop_ev: float, **changes: Any) -> TrainingConfig:
    grid = {"start_ev": -9.0, "stop_ev": stop_ev, "step_ev": 1.0, "foot_ev": [-9.0, -6.0], "anchor_ev": [40.0, 70.0]}
    named = {"name": name, "dataset": name, "edge_ev": EDGES[name], "grid": grid}
    return TrainingConfig.model_validate(CONFIG | named | changes)


def write_rows(folder: Path, name: str, count: int, oxidations: list[int], points: int, unseen: int = 0) -> None:
    """Edges that OS moves, with a white line as wide as NNRS; ``small``'s materials are made from ``large``'s."""
    rng = np.random.default_rng(len(name))
    energy = np.linspace(-14, 100, points)
    mus, rows = [], []
    for k in range(count):
        oxidation, width = rng.choice(oxidations), rng.uniform(2, 6)
        line = 0.6 * np.exp(-0.5 * ((energy - 12) / width) ** 2)
        mus.append(0.5 + np.arctan((energy - 3 * oxidation) / 3) / np.pi + line)
        material = f"mp-{k // 2}" if name == "large" else f"mp-{k // 2}_Co"
        split = "sim" if k >= count - unseen else "val" if k >= 0.75 * count else "train"
        rows.append({"id": f"r{k}", "material": material, "split": split, "OS": oxidation, "NNRS": round(width, 4)})
    ids = np.array([r["id"] for r in rows])
    np.savez(folder / f"{name}.npz", id=ids, energy=EDGES[name] + np.tile(energy, (count, 1)), mu=mus)
    with (folder / f"{name}.csv").open("w", newline="") as f:
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
    write_rows(folder, "large", 96, [1, 2, 3], 140)
    write_rows(folder, "small", 34, [2, 3, 4], 130, unseen=2)
    write_rows(folder, "disordered", 24, [3], 140)
    return folder


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory) -> str:
    plan = TrainingPlan.read(config("large", 90.0), data)
    members = [
        train_member(plan.new_member(k), plan.rows, plan.folds[k][0], plan.scale, plan.config, k, plan.data.material)
        for k in range(2)
    ]
    return str(assemble(plan, [TrainedMember.of(m) for m in members], tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def settings(pretrained) -> TransferSettings:
    return TransferSettings(
        targets=(config("small", 82.0),),
        pretrained=pretrained,
        fractions=(0.25, 1.0),
        modes=("scratch", "full"),
        folds=2,
        epochs=1,
        rows_per_epoch=24,
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept")


@given(st.lists(st.integers(0, 12), min_size=4, max_size=40), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_smaller_share_is_part_of_a_larger_one_and_keeps_materials_whole(numbers, a, b):
    material = np.array([f"m{k}" for k in numbers])
    rows = np.arange(len(material))
    fewer, more = (share_of(material, rows, f, seed=1) for f in sorted((a, b)))
    assert set(fewer) <= set(more)
    assert not set(material[more]) & set(material[np.setdiff1d(rows, more)])
    assert len(np.unique(material[fewer])) >= min(2, len(np.unique(material)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["frozen", "partial", "full"])
def test_a_mode_trains_what_it_says_and_nothing_else(data, pretrained, mode: TuningMode):
    plan = TrainingPlan.read(
        cross_validated(config("small", 82.0, optimisation={"epochs": 1, "batch": 8}), pretrained), data
    )
    network = plan.new_member(0)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    freeze(network, mode)
    fitted, _ = fine_tune(plan, network, plan.learnt, seed=0, recall_share=0.5)
    changed = {n for n, w in network.named_parameters() if not torch.equal(before[n], w)}
    expected = {
        n for n, _ in network.named_parameters() if mode not in TRAINED_WEIGHTS or n.startswith(TRAINED_WEIGHTS[mode])
    }
    assert changed <= expected
    assert {n.split(".")[0] for n in changed} == {n.split(".")[0] for n in expected}
    assert fitted.parameters == sum(dict(network.named_parameters())[n].numel() for n in expected)


def test_fold_scores_of_a_quantity_average_to_about_the_score_of_all_rows():
    rng = np.random.default_rng(0)
    truth = {"NNRS": rng.normal(size=60), "OS": rng.integers(1, 4, 60).astype(float)}
    value = {"NNRS": truth["NNRS"] + 0.3 * rng.normal(size=60), "OS": truth["OS"]}
    fold = np.repeat(np.arange(5), 12)
    each = fold_scores("NNRS", truth, value, ["OS"], fold)
    assert each.mean() == pytest.approx(score("NNRS", truth, value, ["OS"]))
    np.testing.assert_array_equal(fold_scores("OS", truth, value, ["OS"], fold), 1.0)


@pytest.mark.slow
def test_every_row_is_judged_once_and_what_was_done_is_kept(settings, data, kept):
    section = transfer(settings, data, kept, jobs=1, progress=lambda *_: None)
    files = {p.name: p.stat().st_mtime_ns for p in kept.iterdir()}
    assert len(files) == 2 * 2 * 2
    table = section.tables["transfer-scores"]
    assert set(table["training"]) == {"scratch", "full"}
    assert np.isfinite(table[["score", "standard_error"]].to_numpy(float)).all()
    assert "**small.** Full fine-tuning on 25%" in section.text
    assert "transfer-small" in section.figures

    plan = TrainingPlan.read(cross_validated(settings.targets[0], settings.pretrained), data)
    once = [TransferTrial(settings.targets[0], "full", 1.0, k, 0) for k in range(settings.folds)]
    done = run_trials(once, settings, data, kept, 1, lambda *_: None)
    pooled: PooledPredictions = pool(plan, settings, list(zip(once, done, strict=True)))
    assert sorted(pooled.rows) == list(range(len(plan.data)))
    assert {p.name: p.stat().st_mtime_ns for p in kept.iterdir()} == files


def test_the_absorber_stands_behind_the_spectrum_whatever_is_done_to_it(settings, data):
    plan = JointPlan.join(UniversalSettings(source=config("large", 90.0), transfer=settings), data)
    points, flags = len(plan.config.grid.grid()), plan.rows.flags
    assert plan.clean.shape == (96 + 32, points + flags)
    weights, index = torch.eye(4), torch.tensor([0, 95, 96, 127])
    disturbed = plan.rows.disturbed(weights, index, plan.config.augmentation, torch.Generator().manual_seed(0))
    torch.testing.assert_close(disturbed[:, points:], plan.clean[index][:, points:])
    assert not torch.equal(disturbed[:, :points], plan.clean[index][:, :points])
    assert torch.equal(plan.scale.apply(plan.clean)[:, points:].unique(), torch.tensor([0.0, 1.0]))
    assert plan.rows.targets.classes[0].tolist() == [1, 2, 3, 4]


def test_the_universal_network_starts_as_the_pretrained_one_reads_the_spectrum(settings, data, pretrained):
    plan = JointPlan.join(UniversalSettings(source=config("large", 90.0), transfer=settings), data)
    start = served_weights(Path(pretrained))
    own = plan.new_member(1).state_dict()
    half = start["spt.embedding.local.weight"].chunk(2)[1]
    torch.testing.assert_close(own["embedding.local.weight"], half)
    latent = own["latent.1.weight"].reshape(16, 4, -1)
    assert torch.count_nonzero(latent[:, :, -2:]) == 0


def test_no_structure_is_learnt_from_that_is_held_out_with_another_absorber(settings, data):
    study = UniversalSettings(source=config("large", 90.0), transfer=settings, copies=3)
    plan = JointPlan.join(study, data)
    structure = plan.structure
    targets: list[int] = []
    for k in range(settings.folds):
        learnt, held = fold_of(plan, study, k)
        assert not set(structure[learnt]) & set(structure[held])
        assert set(plan.judged) <= set(held)
        of_target = learnt[plan.parts[learnt] == 1]
        assert set(np.unique(of_target, return_counts=True)[1]) == {3}
        targets += held[plan.parts[held] == 1].tolist()
    assert sorted(targets) == np.flatnonzero(plan.parts == 1).tolist()


def test_a_structure_is_the_same_with_another_absorber():
    names = ["mp-361_Co", "mp-361", "LiCoO2", "LiNiO2", "Li(CoO2)6", "NiCo2O4", "LaCoO3"]
    absorbers = ["Co", "Cu", "Co", "Ni", "Co", "Ni", "Co"]
    found = prototype(np.array(names), np.array(absorbers)).tolist()
    assert found == ["mp-361", "mp-361", "LiMO2", "LiMO2", "Li(MO2)6", "MCo2O4", "LaMO3"]


@pytest.mark.slow
def test_one_network_is_compared_with_one_for_each(settings, data, kept):
    study = UniversalSettings(source=config("large", 90.0), transfer=settings, epochs=1, copies=2)
    section = universal(study, data, kept, jobs=1, progress=lambda *_: None)
    assert len(section.tables) == 2
    for table in section.tables.values():
        assert list(table.index) == ["OS", "NNRS", "OS_mean"]
        assert np.isfinite(table.to_numpy(float)).all()
    assert "**large.** The universal network" in section.text
    assert "On the 2 rows of split `sim`" in section.text


def test_sites_are_mixed_within_one_absorber(settings, data):
    plan = JointPlan.join(UniversalSettings(source=config("large", 90.0), transfer=settings), data)
    index = torch.arange(len(plan.data))[::3]
    how = plan.config.augmentation.model_copy(update={"mixed": 1.0})
    weights = plan.rows.mixtures(index, how, torch.Generator().manual_seed(0))
    flags = (weights @ plan.rows.fine[index])[:, -plan.rows.flags :]
    torch.testing.assert_close(flags, plan.rows.fine[index][:, -plan.rows.flags :])
    assert ((weights > 0).sum(1) > 1).float().mean() > 0.5


def test_a_model_of_other_quantities_is_refused(settings, data, kept):
    other = config("large", 90.0, regressed=["OS_mean", "NNRS"])
    study = UniversalSettings(source=other, transfer=settings)
    with pytest.raises(InputError, match="regresses NNRS, OS_mean; expected OS_mean, NNRS"):
        universal(study, data, kept, jobs=1, progress=lambda *_: None)


def test_folds_of_repeats_differ(settings, data):
    plan = TrainingPlan.read(cross_validated(settings.targets[0], settings.pretrained), data)
    first, second = (fold_rows(plan.data, settings, repeat) for repeat in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_work_stays_kept_when_a_model_is_only_calibrated_anew(pretrained, tmp_path):
    again = shutil.copytree(pretrained, tmp_path / "again")
    model = torch.jit.load(again / "model.ts")
    keys = {"as it was": weights_digest(pretrained)}
    for name in ("share", "centre"):
        with torch.no_grad():
            dict(model.named_buffers())[name].add_(0.01)
        model.save(str(again / "model.ts"))
        write_card(again, read_card(again).model_copy(update={"sha256": sha256_of(again / "model.ts")}))
        keys[name] = weights_digest(str(again))
    assert keys["share"] == keys["as it was"]
    assert keys["centre"] != keys["as it was"]


@pytest.fixture(scope="module")
def disordered(pretrained) -> DisorderSettings:
    return DisorderSettings(
        dataset="disordered",
        targets=(config("large", 90.0, dataset="disordered"),),
        pretrained=pretrained,
        folds=2,
        repeats=2,
        epochs=1,
        rows_per_epoch=24,
    )


def test_all_heads_of_the_crystal_model_are_kept_for_disordered_structures(disordered, data, pretrained):
    plan = disordered.read_plan(disordered.targets[0], data)
    assert plan.rows.targets.classes[0].tolist() == [1, 2, 3]  # the rows have 3 only
    start = served_weights(Path(pretrained))
    torch.testing.assert_close(plan.rows.targets.sd, start["target_sd"])
    t = plan.rows.targets
    truth = np.stack([plan.data.labels[d] for d in ("NNRS", "OS_mean")], axis=1)
    np.testing.assert_allclose((t.regressed * t.sd + t.mean).numpy(), truth, rtol=1e-5)
    crystals = TrainingPlan.read(cross_validated(config("large", 90.0), pretrained), data)
    own = plan.new_member(0).state_dict()
    assert all(torch.equal(own[name], w) for name, w in crystals.new_member(0).state_dict().items())


@pytest.mark.slow
def test_disordered_structures_zero_shot_fine_tuned_and_from_scratch(disordered, data, kept):
    section = disorder(disordered, data, kept, jobs=1, progress=lambda *_: None)
    table = section.tables["disorder-scores"]
    assert list(table["descriptor"].unique()) == ["NNRS"]
    assert list(table["training"]) == ["zero-shot", "training from scratch", "full fine-tuning"]
    assert np.isfinite(table[["score", "low", "high"]].to_numpy(float)).all()
    assert set(section.tables["disorder-kinds"]["rows"]) == {24}
    assert np.isfinite(section.tables["disorder-kinds"]["OS_mean MAE"].to_numpy(float)).all()
    assert "since all rows have the same label: OS, OS\\_mean." in section.text
    assert "The mean of 1 scores is highest for " in section.text
    assert "Full fine-tuning scores" in section.text
    assert "disorder" in section.figures


def test_rows_that_end_before_the_shared_grid_are_refused(settings, data):
    longer = settings.model_copy(update={"targets": (config("small", 150.0),)})
    with pytest.raises(DataError, match="the shortest row ends"):
        JointPlan.join(UniversalSettings(source=config("large", 90.0), transfer=longer), data)
