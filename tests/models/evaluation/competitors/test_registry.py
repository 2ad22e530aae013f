"""Competitors of the SPT on spectra that say their labels."""

import copy
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xas_agent.models.evaluation.competitors.registry import COMPETITORS
from xas_agent.models.evaluation.contract import Predictions, classes_of
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.metrics import scores
from xas_agent.models.training.plan import TrainingPlan
from xas_agent.models.training.train import joint_loss

EDGE = 8979.0
CLASSICAL = ("nearest-neighbours", "decision-tree", "extra-trees", "random-forest", "xgboost")
NETWORKS = {
    "cnn": {"width": 16, "layers": 2},
    "ft-transformer": {"points": 4, "width": 32, "blocks": 2},
    "amformer": {"points": 8, "width": 16, "blocks": 2, "heads": 2, "prompts": 6, "summed": 4, "multiplied": 2},
}
ALL = [*CLASSICAL, *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS)]
SMALL: dict[str, dict[str, Any]] = {
    "nearest-neighbours": {"n_neighbors": 3},
    "decision-tree": {},
    "extra-trees": {"n_estimators": 20},
    "random-forest": {"n_estimators": 20},
    "xgboost": {"n_estimators": 15, "learning_rate": 0.3, "max_depth": 3},
    **{
        name: {**sizes, "epochs": 20, "batch": 16, "learning_rate": 3e-3, "dropout": 0.0}
        for name, sizes in NETWORKS.items()
    },
}
CONFIG: dict[str, Any] = {
    "name": "small",
    "dataset": "small",
    "absorber": "Cu",
    "edge_ev": EDGE,
    "grid": {"start_ev": -9.0, "stop_ev": 71.0, "step_ev": 1.0, "foot_ev": [-9.0, -6.0], "anchor_ev": [40.0, 71.0]},
    "classified": ["OS", "CN2"],
    "regressed": ["NNRS", "MOOD"],
    "network": {"width": 8, "blocks": 1, "heads": 2, "latent": 16, "gathered": 4, "bands": 2},
    "augmentation": {"disturbed": 0.3, "mixed": 0.1, "noise": 0.01},
    "optimisation": {"rows_per_epoch": 192},
    "feff_minus_experiment": {"value_ev": 3.2, "sd_ev": 1.5, "source": "a standard"},
    "licence": "BSD-3-Clause",
    "sources": ["made for the test"],
    "cite": ["nobody"],
}


def write_rows(folder: Path, short: int = 0) -> None:
    """128 edges: OS moves them, CN2 is their white line, NNRS its width, MOOD the period above; some cells empty.

    The first ``short`` rows end 52 eV above the edge.
    """
    rng = np.random.default_rng(0)
    energies = [np.linspace(-14, 52 if k < short else 90, 130) for k in range(128)]
    mus, rows = [], []
    for k, energy in enumerate(energies):
        oxidation, second = rng.choice([1, 2, 4]), rng.choice([3, 12])
        width, period = rng.uniform(2, 6), rng.uniform(12, 24)
        edge = 0.5 + np.arctan((energy - 4 * oxidation) / 3) / np.pi
        line = (0.2 + 0.05 * second) * np.exp(-0.5 * ((energy - 10) / width) ** 2)
        wave = 0.1 * np.sin(2 * np.pi * energy / period) * (energy > 15)
        mus.append(edge + line + wave + 0.003 * rng.standard_normal(len(energy)))
        rows.append(
            {
                "id": f"r{k}",
                "material": f"m{k // 2}",
                "split": "val" if k >= 96 else "train",
                "OS": "" if k % 10 == 3 else oxidation,
                "CN2": second,
                "NNRS": "" if k % 10 == 5 else round(width, 4),
                "MOOD": round(period, 4),
            }
        )
    np.savez(folder / "small.npz", id=np.array([r["id"] for r in rows]), energy=EDGE + np.array(energies), mu=mus)
    with (folder / "small.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, rows[0])
        table.writeheader()
        table.writerows(rows)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> TrainingPlan:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder)
    return TrainingPlan.read(TrainingConfig.model_validate(CONFIG), folder)


@pytest.fixture(scope="module")
def train(plan):
    return np.flatnonzero(plan.data.split == "train")


@pytest.fixture(scope="module")
def held(plan):
    return np.flatnonzero(plan.data.split == "val")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """As a trial has; sums in another order round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def answers(name: str, plan: TrainingPlan, train, **changes: Any) -> Predictions:
    fitted = COMPETITORS[name].fit(plan, train, SMALL[name] | changes, seed=1)
    assert fitted.parameters > 0
    return fitted.predict(plan.clean.numpy())


@pytest.fixture(scope="module", params=ALL)
def answered(request, plan, train) -> tuple[str, Predictions]:
    """A competitor and what it says of every row, trained on ``train``."""
    return request.param, answers(request.param, plan, train)


def quick(name: str, epochs: int) -> dict[str, Any]:
    """Settings with less training of networks."""
    return SMALL[name] | ({"epochs": epochs} if name in NETWORKS else {})


def assert_same(one: Predictions, other: Predictions) -> None:
    for a, b in ((one.logits, other.logits), (one.values, other.values), (one.spreads, other.spreads)):
        assert a.keys() == b.keys()
        for d in a:
            np.testing.assert_array_equal(a[d], b[d], err_msg=d)


def test_it_learns_what_the_spectra_say(answered, plan, train, held):
    name, said = answered
    true = {d: plan.data.labels[d][held] for d in ("OS", "CN2", "NNRS", "MOOD")}
    best = {d: v[held] for d, v in said.best(classes_of(plan)).items()}
    commonest = {}
    for d in ("OS", "CN2"):
        label = plan.data.labels[d][train]
        values, counts = np.unique(label[~np.isnan(label)], return_counts=True)
        commonest[d] = np.full(len(held), values[counts.argmax()])
    reached, floor = (scores(true, p, ("OS", "CN2")) for p in (best, commonest))
    assert reached["OS"] > floor["OS"] + 0.2
    assert reached["CN2"] > floor["CN2"] + 0.2
    assert reached["NNRS"] > 0.1, name
    assert reached["MOOD"] > 0.1, name


def test_answers_have_the_promised_shape(answered, plan):
    name, said = answered
    assert {d: z.shape for d, z in said.logits.items()} == {"OS": (128, 3), "CN2": (128, 2)}
    assert {d: v.shape for d, v in said.values.items()} == {"NNRS": (128,), "MOOD": (128,)}
    assert set(said.spreads) == (set() if name in CLASSICAL else {"NNRS", "MOOD"})
    assert all(np.isfinite(x).all() for part in (said.logits, said.values, said.spreads) for x in part.values())
    assert all((s > 0).all() for s in said.spreads.values())


@pytest.mark.parametrize("name", ALL)
def test_only_training_rows_and_the_seed_decide(name, plan, train, held):
    poisoned = replace(plan, data=copy.deepcopy(plan.data), rows=copy.deepcopy(plan.rows), clean=plan.clean.clone())
    targets = poisoned.rows.targets
    for label in poisoned.data.labels.values():
        label[held] = label[held][::-1] + 1
    for one_hot in targets.one_hot:
        one_hot[held] = one_hot[held].roll(1, dims=1)
    targets.regressed[held] = 5.0
    poisoned.rows.fine[held] += torch.randn(len(held), 1)
    poisoned.clean[held] *= -3.0
    fitted = (COMPETITORS[name].fit(p, train, quick(name, 2), seed=1) for p in (plan, poisoned))
    assert_same(*(f.predict(plan.clean.numpy()) for f in fitted))


def test_a_class_that_training_lacks_is_never_likely(plan, train):
    rest = train[plan.data.labels["OS"][train] != 4]
    for name in COMPETITORS:
        fitted = COMPETITORS[name].fit(plan, rest, quick(name, 6), seed=1)
        assert fitted.predict(plan.clean.numpy()).probabilities("OS")[rest, 2].mean() < 0.03, name


@pytest.mark.parametrize("name", COMPETITORS)
def test_spectra_that_end_early_are_answered(name, tmp_path):
    write_rows(tmp_path, short=40)
    windows = {"grid": CONFIG["grid"] | {"short_stop_ev": 48.0}}
    cut = {"augmentation": CONFIG["augmentation"] | {"cut": 0.5}}
    plan = TrainingPlan.read(TrainingConfig.model_validate(CONFIG | windows | cut), tmp_path)
    assert plan.clean.isnan().any()
    fitted = COMPETITORS[name].fit(plan, np.flatnonzero(plan.data.split == "train"), quick(name, 1), seed=1)
    said = fitted.predict(plan.clean.numpy())
    assert all(np.isfinite(x).all() for part in (said.logits, said.values, said.spreads) for x in part.values())


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_descriptor_with_one_class_is_answered_by_it(plan, train, name):
    said = answers(name, plan, train[plan.data.labels["OS"][train] == 2])
    np.testing.assert_allclose(said.probabilities("OS")[:, 1], 1.0, atol=1e-5)


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_row_without_a_label_says_nothing_of_its_descriptor(plan, train, name):
    unlabelled = np.flatnonzero(np.isnan(plan.data.labels["OS"]))
    other = replace(plan, clean=plan.clean.clone())
    other.clean[unlabelled] = other.clean[unlabelled].flip(1)
    fitted = (COMPETITORS[name].fit(p, train, SMALL[name], seed=1) for p in (plan, other))
    one, two = (f.predict(plan.clean.numpy()) for f in fitted)
    np.testing.assert_array_equal(one.logits["OS"], two.logits["OS"])
    assert (one.values["MOOD"] != two.values["MOOD"]).any()


def test_trees_train_on_disturbed_copies_too(plan, train):
    one, two = (answers("extra-trees", plan, train, copies=c).values["MOOD"] for c in (0, 2))
    assert not np.allclose(one, two)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_answers_as_the_spt_does(plan, name):
    deep: Any = COMPETITORS[name]
    torch.manual_seed(0)
    network = deep.network(plan.shape, deep.sizes(**NETWORKS[name])).train()
    index = torch.arange(20)
    output = network(plan.scale.apply(plan.clean[index]))
    assert [tuple(o.shape) for o in output] == [(20, 1, 5), (20, 1, 2), (20, 1, 2)]
    for part in output:
        part.retain_grad()
    joint_loss(output, plan.rows.targets, torch.eye(20), index, 1.0).backward()
    unlabelled = plan.rows.targets.one_hot[0][index].sum(1) == 0
    assert unlabelled.any()
    assert (output[0].grad[unlabelled, 0, :3] == 0).all()
    assert (output[0].grad[~unlabelled, 0, :3] != 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_an_answer_does_not_depend_on_its_batch(plan, name):
    deep: Any = COMPETITORS[name]
    network = deep.network(plan.shape, deep.sizes(**NETWORKS[name])).eval()
    frames = plan.scale.apply(plan.clean[:9])
    with torch.no_grad():
        together = network(torch.cat([frames, 50 * torch.randn(3, frames.shape[1])]))
        for k, frame in enumerate(frames.split(1)):
            for one, of_all in zip(network(frame), together, strict=True):
                torch.testing.assert_close(one[0], of_all[k], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_sizes_fit_any_grid(plan, name):
    deep: Any = COMPETITORS[name]
    for points in (64, 155):
        shape = plan.shape.model_copy(update={"grid_points": points})
        logits, _, _ = deep.network(shape, deep.sizes())(torch.zeros(2, points))
        assert logits.shape == (2, 1, 5)


def test_every_competitor_is_tried():
    assert {*CLASSICAL, *NETWORKS} == set(COMPETITORS)


def test_every_setting_of_a_search_is_known(plan, train):
    for name, competitor in COMPETITORS.items():
        assert 3 <= len(competitor.search) <= 4
        few = {"epochs": 1} | NETWORKS[name] if name in NETWORKS else {}
        few |= {} if name in (*NETWORKS, "nearest-neighbours", "decision-tree") else {"n_estimators": 2}
        for settings in competitor.search:
            competitor.fit(plan, train, {**settings, **few}, seed=0)
    with pytest.raises(ValueError, match="depth"):
        COMPETITORS["cnn"].fit(plan, train, {"depth": 3}, seed=0)
