"""Networks trained side by side, on spectra of several lengths, and again after an end."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.types import InputError
from xas_agent.models import card as cards
from xas_agent.models.network.spt import SPT, ensemble_weights
from xas_agent.models.runtime import Model
from xas_agent.models.training.build import CHECKPOINT, build, device_of, train_members
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.data import DataError, load_feff, load_sets
from xas_agent.models.training.plan import TrainedMember, TrainingPlan
from xas_agent.models.training.rows import Scale
from xas_agent.models.training.together import Checkpoint, Training, clip_members, train_together
from xas_agent.models.training.train import joint_loss, train_member

CPU = torch.device("cpu")
EDGE = 7709.0
SHORT_EV, STOP_EV = 20.0, 72.0
ROWS_OF_SHORT_SET = 15

CONFIG: dict[str, Any] = {
    "name": "windows",
    "dataset": ["small", "short"],
    "absorber": "Co",
    "edge_ev": EDGE,
    "grid": {
        "start_ev": -9.0,
        "stop_ev": STOP_EV,
        "step_ev": 1.0,
        "foot_ev": [-9.0, -6.0],
        "anchor_ev": [10.0, SHORT_EV],
        "short_stop_ev": SHORT_EV,
    },
    "network": {"width": 8, "blocks": 1, "heads": 2, "latent": 16, "gathered": 4, "bands": 2},
    "optimisation": {"epochs": 3, "batch": 8, "rows_per_epoch": 16},
    "augmentation": {"mixed": 0.4, "cut": 0.5},
    "members": 3,
    "feff_minus_experiment": {"value_ev": 3.2, "sd_ev": 1.5, "source": "a standard"},
    "licence": "BSD-3-Clause",
    "sources": ["made for the test"],
    "cite": ["nobody"],
}


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(CONFIG | changes)


def quiet(task: str, done: int, total: int | None, note: str = "") -> None:
    pass


@pytest.fixture(scope="module")
def data(feff, tmp_path_factory) -> Path:
    """The small set, and the first half of its rows again, cut at 25 eV."""
    folder = tmp_path_factory.mktemp("both")
    for name in ("small.npz", "small.csv"):
        (folder / name).write_bytes((feff / name).read_bytes())
    with np.load(feff / "small.npz") as z:
        ids, energy, mu = (z[k][:ROWS_OF_SHORT_SET] for k in ("id", "energy", "mu"))
    short = EDGE - 6 + 31 * np.linspace(0, 1, 50) ** np.linspace(1.2, 1.5, len(ids))[:, None]  # steps grow
    mu = np.array([np.interp(e, own, m) for e, own, m in zip(short, energy, mu, strict=True)])
    np.savez(folder / "short.npz", id=ids, energy=short, mu=mu)
    with (feff / "small.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:ROWS_OF_SHORT_SET]
    with (folder / "short.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def plan(data) -> TrainingPlan:
    return TrainingPlan.read(config(), data)


@pytest.fixture(scope="module")
def model(data, tmp_path_factory) -> Path:
    return build(config(), data, tmp_path_factory.mktemp("models"), "cpu", quiet)


def test_sets_are_joined_row_by_row(data):
    parts = [load_feff(data, name, ("OS", "CN")) for name in ("small", "short")]
    both = load_sets(data, ("small", "short"), ("OS", "CN"), (0.0, 100.0))
    assert len(both) == len(parts[0]) + len(parts[1])
    bounds = np.arange(-9.0, 20.0)
    apart = np.concatenate([p.on_bins(bounds, EDGE) for p in parts])
    np.testing.assert_allclose(both.on_bins(bounds, EDGE)[: len(parts[0])], apart[: len(parts[0])], atol=1e-9)
    np.testing.assert_allclose(both.on_bins(bounds, EDGE + 100.0)[len(parts[0]) :], apart[len(parts[0]) :], atol=1e-9)
    assert list(both.material) == [*parts[0].material, *parts[1].material]


def test_a_material_judges_in_all_sets_or_in_none(data, tmp_path):
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = (data / "short.csv").read_text().replace(",val,", ",train,")
    (tmp_path / "short.csv").write_text(table)
    both = load_sets(tmp_path, ("small", "short"), ("OS",))
    assert not set(both.material[both.split == "val"]) & set(both.material[both.split == "train"])


def test_rows_are_unknown_beyond_their_end(plan):
    short, grid = plan.data.last < EDGE + 50, plan.rows.grid
    assert short.sum() == 12
    known = ~plan.clean.isnan()
    assert known[~torch.as_tensor(short)].all()
    np.testing.assert_array_equal(known[torch.as_tensor(short)].sum(1), grid.points_to(24.5))
    assert plan.shape.short_points == grid.points_to(SHORT_EV) == 30
    for tensor in (plan.scale.centre, plan.scale.spread):
        assert tensor.isfinite().all()


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=20)
def test_a_mixture_is_known_as_far_as_its_parts(plan, seed, share):
    how = plan.config.augmentation.model_copy(update={"mixed": 0.7, "cut": share})
    generator = torch.Generator().manual_seed(seed)
    index = torch.as_tensor(plan.learnt).expand(2, -1)
    weights = plan.rows.mixtures(index, how, generator)
    spectra = plan.rows.disturbed(weights, index, how, generator)
    assert spectra.shape == (*index.shape, len(plan.rows.grid))
    known = (~spectra.isnan()).sum(2)
    for member in range(2):
        for row, parts in enumerate(weights[member] > 0):
            shared = plan.rows.reach[index[member]][parts].min()
            assert plan.shape.short_points <= known[member, row] <= shared
            assert share or known[member, row] == shared
            assert spectra[member, row, : known[member, row]].isfinite().all()
    torch.testing.assert_close(weights.sum(2), torch.ones(index.shape))


def test_side_by_side_networks_answer_as_alone(plan):
    alone = [plan.new_member(k).eval() for k in range(3)]
    together = SPT(plan.shape.model_copy(update={"members": 3})).eval()
    together.load_state_dict(ensemble_weights([n.state_dict() for n in alone]))
    own = plan.rows.cut(plan.clean[:12], torch.tensor([30, 40, 82] * 4)).reshape(4, 3, -1)
    with torch.no_grad():
        for k, network in enumerate(alone):
            same, apart = together(own[:, 0]), together(own)
            for mine, ours in zip(network(own[:, 0]), same, strict=True):
                torch.testing.assert_close(ours[:, k : k + 1], mine, atol=1e-5, rtol=1e-4)
            for mine, ours in zip(network(own[:, k]), apart, strict=True):
                torch.testing.assert_close(ours[:, k : k + 1], mine, atol=1e-5, rtol=1e-4)


def test_the_network_reads_what_is_known_only(plan):
    network = plan.new_member(0).eval()
    spectra = plan.scale.apply(plan.rows.cut(plan.clean[:6], 40))
    longer = plan.scale.apply(plan.clean[:6])
    with torch.no_grad():
        assert all(part.isfinite().all() for part in network(spectra))
        assert not torch.allclose(network(spectra)[0], network(longer)[0], atol=1e-4)


def test_a_network_learns_the_same_alone_and_by_its_plan(plan):
    start = plan.new_member(0)
    (by_plan,) = train_together(plan, [start], [plan.learnt], CPU, lambda *_: None)
    with torch.random.fork_rng():
        alone = train_member(
            start, plan.rows, plan.learnt, plan.scale, plan.config, plan.config.seed, plan.data.material
        )
    member = TrainedMember.of(alone)
    assert member.epochs == by_plan.epochs == 3
    assert not torch.equal(plan.new_member(0).state_dict()["embedding.place"], member.weights["embedding.place"])
    for name, tensor in by_plan.weights.items():
        torch.testing.assert_close(member.weights[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
    torch.testing.assert_close(member.log_sharpness, by_plan.log_sharpness, atol=1e-4, rtol=1e-3)


def test_the_loss_of_networks_side_by_side_is_their_sum(plan):
    generator = torch.Generator().manual_seed(1)
    t, index = plan.rows.targets, torch.as_tensor(plan.learnt)[:24].reshape(3, 8)
    weights = plan.rows.mixtures(index, plan.config.augmentation, generator)
    logits, r = torch.randn(8, 3, sum(len(c) for c in t.classes), generator=generator), t.regressed.shape[1]
    output = logits, torch.randn(8, 3, r, generator=generator), torch.randn(8, 3, r, generator=generator)
    together = joint_loss(output, t, weights, index, 2.0)
    alone = [joint_loss(tuple(o[:, k : k + 1] for o in output), t, weights[k], index[k], 2.0) for k in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).sum())


def test_gradients_are_clipped_by_network():
    network = {"embedding.place": torch.zeros(1, 4, 3), "latent.1.weight": torch.zeros(6, 5)}
    place, latent = torch.ones(1, 4, 3), torch.ones(6, 5)
    place[:, 2:] = latent[3:] = 0.01
    network["embedding.place"].grad, network["latent.1.weight"].grad = place, latent
    clip_members(network, 2)
    assert (place[:, :2].square().sum() + latent[:3].square().sum()).sqrt() == pytest.approx(1.0)
    assert (place[:, 2:] == 0.01).all()  # already below 1


@pytest.mark.parametrize("patience", [None, 1])
def test_an_ended_training_goes_on_to_the_same_weights(plan, data, tmp_path, patience):
    how = config(optimisation=CONFIG["optimisation"] | {"patience": patience})
    plan = TrainingPlan.read(how, data)
    networks = [plan.new_member(k) for k in range(3)]
    trains = [plan.learnt_by(k) for k in range(3)]
    whole = train_together(plan, networks, trains, CPU, lambda *_: None)

    class KilledError(Exception):
        pass

    def kill(epoch: int, score: float | None) -> None:
        assert score is not None
        raise KilledError

    kept, told = Checkpoint(tmp_path / "kept" / CHECKPOINT, 0.0), []
    for _ in range(2):
        with pytest.raises(KilledError):
            train_together(plan, networks, trains, CPU, kill, kept)
    resumed = train_together(plan, networks, trains, CPU, lambda epoch, _: told.append(epoch), kept)
    assert told == ([3] if patience is None else told)
    for one, other in zip(whole, resumed, strict=True):
        assert one.epochs == other.epochs
        for name, tensor in one.weights.items():
            torch.testing.assert_close(other.weights[name], tensor, rtol=0, atol=0, msg=name)
        assert one.log_sharpness is not None
        torch.testing.assert_close(other.log_sharpness, one.log_sharpness, rtol=0, atol=0)


def test_a_checkpoint_of_another_config_is_not_continued(plan, data, tmp_path):
    trains, path = [plan.learnt_by(0)], tmp_path / CHECKPOINT
    first = Training(plan, [plan.new_member(0)], trains, CPU)
    first.run_epoch()
    first.save(path)
    assert Training(plan, [plan.new_member(0)], trains, CPU).load(path)
    other = TrainingPlan.read(config(seed=1), data)
    again = Training(other, [other.new_member(0)], trains, CPU)
    assert not again.load(path)
    assert again.epoch == 0
    assert not again.load(tmp_path / "none")


def test_training_leaves_random_numbers_of_the_host_alone(plan):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_together(plan, [plan.new_member(0)], [plan.learnt_by(0)], CPU, lambda *_: None)
    torch.manual_seed(7)
    torch.testing.assert_close(torch.rand(3), expected)


def test_long_rows_are_repeated(plan, data):
    several = TrainingPlan.read(config(optimisation=CONFIG["optimisation"] | {"long_rows": 3}), data)
    assert several.rows.reach is not None
    reach, train = several.rows.reach.numpy(), several.learnt
    (drawn,) = Training(several, [several.new_member(0)], [train], CPU).trains
    counts = np.bincount(drawn.numpy(), minlength=len(reach))
    is_long = reach[train] == len(several.rows.grid)
    assert set(counts[train][is_long]) == {3}
    assert set(counts[train][~is_long]) == {1}


def test_one_model_answers_every_window(model, plan):
    card = cards.verify(model)
    assert card.grid.short_stop_ev == SHORT_EV
    assert not (model / CHECKPOINT).exists()
    served = Model(model, "cpu")
    whole = plan.clean[plan.judged].numpy()[:4]
    for points in (30, 40, len(plan.rows.grid)):
        shorter = whole.copy()
        shorter[:, points:] = np.nan
        found = served.estimate(shorter)
        for estimate in found:
            for descriptor in estimate.descriptors.values():
                assert np.isfinite([descriptor.mean, descriptor.lo, descriptor.hi]).all()


def test_rows_of_other_absorbers_are_a_start(data, tmp_path):
    other = {"dataset": "short", "edge_ev": EDGE}
    first = config(name="several", dataset="small", others=[other], members=1)
    plan = TrainingPlan.read(first, data)
    assert len(plan.data) == 24 + 12
    build(first, data, tmp_path, "cpu", quiet)
    grid = CONFIG["grid"] | {"stop_ev": SHORT_EV}
    how = config(dataset="short", grid=grid, pretrained=str(tmp_path / "several"), members=1)
    tuned = TrainingPlan.read(how, data)
    assert tuned.new_member(0).embedding.masked
    assert train_members(tuned, CPU, quiet)[0].epochs == 3


def test_a_model_that_knows_no_windows_is_a_start_for_one_that_does(data, tmp_path):
    grid = {k: v for k, v in CONFIG["grid"].items() if k != "short_stop_ev"}
    build(config(name="whole", dataset="small", grid=grid, members=1), data, tmp_path, "cpu", quiet)
    plan = TrainingPlan.read(config(dataset="small", pretrained=str(tmp_path / "whole"), members=1), data)
    weight = plan.new_member(0).embedding.local.weight
    assert weight.shape[1] == 3
    assert (weight[:, 2] == 0).all()
    assert (weight[:, :2] != 0).any()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"short_stop_ev": 30.0}, r"the shortest row ends 25\.0 eV above the edge, short_stop_ev at 30 eV"),
        ({"stop_ev": 120.0}, r"the longest row ends [\d.]+ eV above the edge, the grid at 120 eV"),
    ],
)
def test_rows_that_are_too_short_are_one_message(data, grid, message):
    with pytest.raises(DataError, match=message):
        TrainingPlan.read(config(grid=CONFIG["grid"] | grid), data)


def test_the_scale_is_that_of_what_is_known():
    spectra = torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    scale = Scale.of(spectra)
    torch.testing.assert_close(scale.centre, torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(scale.spread, torch.tensor([2.0**0.5 + 0.02, 0.02]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none():
    assert device_of("auto") == device_of("cpu") == CPU
    with pytest.raises(InputError, match="cuda is not available"):
        device_of("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_trains_as_well(data):
    plan = TrainingPlan.read(config(optimisation=CONFIG["optimisation"] | {"mixed_precision": True}), data)
    for member in train_members(plan, device_of("cuda"), quiet):
        assert all(tensor.isfinite().all() for tensor in member.weights.values())
