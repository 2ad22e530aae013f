"""Training from a small FEFF folder: by the command, again in this process, and fine-tuned."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from forked import run_command
from torch.nn import functional

from xas_agent.app.config import ConfigError
from xas_agent.app.jobs.evaluate import evaluate_model
from xas_agent.app.jobs.train import train_model
from xas_agent.models import card as cards
from xas_agent.models.engines.torchscript import load_module
from xas_agent.models.network.recall import MaterialGroups
from xas_agent.models.runtime import Model
from xas_agent.models.training.augment import Augmentation
from xas_agent.models.training.build import (
    METAL_AMPLITUDE,
    assemble,
    augment_outliers,
    train_members,
)
from xas_agent.models.training.calibration import HeldOut, fit_blend
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.data import DataError, framework_of
from xas_agent.models.training.plan import TrainedMember, TrainingPlan, config_of, ensemble, served_weights
from xas_agent.models.training.together import train_together
from xas_agent.models.training.train import folds

EDGE = 7709.0
CPU = torch.device("cpu")
POISON = 9
"""A class that only rows of other splits have."""

CONFIG: dict[str, Any] = {
    "name": "small",
    "dataset": "small",
    "absorber": "Co",
    "edge_ev": EDGE,
    "grid": {"start_ev": -9.0, "stop_ev": 72.0, "step_ev": 1.0, "foot_ev": [-9.0, -6.0], "anchor_ev": [40.0, 72.0]},
    "units": {"OS": "e", "NNRS": "Å", "MOOD": "Å"},
    "network": {"width": 8, "blocks": 1, "heads": 2, "latent": 16, "gathered": 4, "bands": 2},
    "optimisation": {"epochs": 2, "batch": 8, "rows_per_epoch": 16},
    "members": 2,
    "feff_minus_experiment": {"value_ev": 3.2, "sd_ev": 1.5, "source": "a standard"},
    "licence": "BSD-3-Clause",
    "sources": ["made for the test"],
    "cite": ["nobody"],
}


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(CONFIG | changes)


@pytest.fixture(scope="module")
def trained(feff, tmp_path_factory) -> Path:
    """The model folder that the command writes."""
    out = tmp_path_factory.mktemp("trained")
    (out / "small.yaml").write_text(yaml.safe_dump(CONFIG, allow_unicode=True))
    options = ["--data", feff, "--out", out, "--device", "cpu", "--threads", 1]
    said = run_command("train", out / "small.yaml", *options).stdout
    assert said.strip().endswith(str(out / "small"))
    return out / "small"


def here(how: TrainingConfig, feff: Path, out: Path) -> Path:
    """Train in this process, on one thread: sums in another order round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = TrainingPlan.read(how, feff)
        return assemble(plan, train_members(plan, CPU, quiet), out)
    finally:
        torch.set_num_threads(threads)


def quiet(task: str, done: int, total: int | None, note: str = "") -> None:
    pass


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.jit.load(folder / "model.ts").state_dict()


def test_the_command_writes_a_model_that_serves(trained):
    card = cards.verify(trained)
    assert (card.training["rows"], card.training["materials"], card.training["members"]) == (15, 5, 2)
    assert [d.name for d in card.descriptors] == ["OS", "CN", "OCN", "CN2", "PSGO", "NNRS", "MOOD"]
    assert {d: c.classes for d, c in ((c.name, c) for c in card.descriptors)}["OS"] == (3, 4)
    for name in ("OS", "NNRS", "OS_mean"):
        assert np.isfinite(card.metrics[name]["value"])
    assert 0 <= card.metrics["NNRS"]["interval_holds"] <= 1
    assert card.metrics["on"].startswith("9 validation rows")
    model = Model(trained, "cpu")
    (found,) = model.estimate(np.zeros((1, len(model.grid)), np.float32))
    assert list(found.descriptors) == [d.name for d in card.descriptors]


def test_the_same_config_gives_the_same_weights(trained, feff, tmp_path):
    again, first = weights(here(config(), feff, tmp_path)), weights(trained)
    assert again.keys() == first.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


def test_the_file_has_the_weights_in_half_precision_and_all_else_as_computed(trained, feff):
    stored, read = weights(trained), served_weights(trained)
    plan = TrainingPlan.read(config(), feff)
    for name, tensor in ensemble(plan, fresh(plan), plan.learnt).state_dict().items():
        weight = name.startswith("spt.") and not name.endswith("outside")
        assert stored[name].dtype == (torch.float16 if weight else tensor.dtype), name
        assert read[name].dtype == tensor.dtype, name
        torch.testing.assert_close(read[name], stored[name], rtol=0, atol=0, equal_nan=True, check_dtype=False)


def test_an_ensemble_has_the_weights_that_the_file_can_hold(feff):
    plan = TrainingPlan.read(config(), feff)
    served = ensemble(plan, fresh(plan), plan.learnt)
    own = torch.cat([w.flatten() for w in served.spt.parameters()])
    assert own.dtype == torch.float32
    assert torch.equal(own, own.half().float())


def test_a_member_is_the_mean_of_its_runs(trained, feff):
    plan = TrainingPlan.read(config(pretrained=str(trained), runs=2, protocol="cross-validation"), feff)
    told: list[int] = []
    members = train_members(plan, CPU, lambda task, done, total, note="": told.append(done))
    assert told == [0, 1, 2]
    numbers = [0, 0, 1, 1]
    networks, trains = [plan.new_member(k) for k in numbers], [plan.learnt_by(k) for k in numbers]
    runs = train_together(plan, networks, trains, CPU, lambda *_: None)
    for k, member in enumerate(members):
        first, second = runs[2 * k].weights, runs[2 * k + 1].weights
        for name, tensor in member.weights.items():
            torch.testing.assert_close(tensor, (first[name] + second[name]) / 2, msg=name)
        assert not torch.equal(first["embedding.place"], second["embedding.place"])


def rewrite(feff: Path, folder: Path, more: Callable[[int, dict[str, str]], dict[str, str]]) -> None:
    """Copy the data, with more or other cells in the table."""
    (folder / "small.npz").write_bytes((feff / "small.npz").read_bytes())
    with (feff / "small.csv").open(newline="") as file:
        rows = [row | more(k, row) for k, row in enumerate(csv.DictReader(file))]
    with (folder / "small.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_rows_are_mixed_within_their_framework_where_asked(feff, tmp_path):
    assert framework_of("Li(NiO2)2") == framework_of("NiO2") == "Ni-O"
    assert framework_of("LiNiPO4") == "Ni-O-P"
    rewrite(feff, tmp_path, lambda k, row: {"formula": f"LiCoO2{'P' * (k % 2)}"})
    plan, how = TrainingPlan.read(config(), tmp_path), Augmentation(mixed=1.0, within_framework=True)
    index = torch.arange(len(plan.data))
    weights = plan.rows.mixtures(index, how, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.sum(1), torch.ones(len(index)))
    assert ((weights > 0).sum(1) > 1).sum() > len(index) / 2
    for row, own in zip(weights, plan.data.framework, strict=True):
        assert set(plan.data.framework[(row > 0).numpy()]) == {own}
    anyhow = how.model_copy(update={"within_framework": False})
    free = plan.rows.mixtures(index, anyhow, torch.Generator().manual_seed(0))
    assert any(len(set(plan.data.framework[(row > 0).numpy()])) == 2 for row in free)
    with pytest.raises(DataError, match="within_framework needs a formula in every row"):
        TrainingPlan.read(config(augmentation={"within_framework": True}), feff)


def test_it_is_evaluated_on_any_split(trained, feff, capsys):
    evaluate_model(str(trained), feff, "val", None)
    said = capsys.readouterr().out
    assert "small on 9 of 9 rows of small, split val" in said
    assert "spectra end at" not in said
    assert all(name in said for name in ("OS", "PSGO", "MOOD", "weighted F1", "R2"))
    with pytest.raises(DataError, match="no rows of split 'test'"):
        evaluate_model(str(trained), feff, "test", None)


def test_another_seed_gives_other_weights(feff):
    one, other = (TrainingPlan.read(config(seed=s), feff).new_member(0).state_dict() for s in (0, 5))
    assert not all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("protocol", ["split", "cross-validation"])
def test_rows_of_other_splits_are_never_seen(feff, protocol):
    plan = TrainingPlan.read(config(protocol=protocol, members=4), feff)
    assert set(plan.data.split) == {"train", "val"}
    assert len(plan.data) == len(plan.rows.fine) == len(plan.clean) == 24
    for classes in plan.rows.targets.classes:
        assert POISON not in classes
    for train, held in plan.folds:
        assert not set(plan.data.material[train]) & set(plan.data.material[held])
        assert sorted([*train, *held]) == list(plan.learnt)
    held = np.concatenate([h for _, h in plan.folds])
    assert sorted(held) == list(plan.learnt)  # every row is held out once
    if protocol == "split":
        assert set(plan.data.split[plan.learnt]) == {"train"}
        assert set(plan.data.split[plan.judged]) == {"val"}
    else:
        assert len(plan.judged) == 0
        assert len(plan.learnt) == 24


def test_a_jury_has_not_seen_what_it_judges(feff):
    plan = TrainingPlan.read(config(members=4, folds=5, left_out=2), feff)
    for j in range(4):
        judged = set(plan.data.material[plan.folds[j][1]])
        seen = {k: judged <= set(plan.data.material[plan.learnt_by(k)]) for k in range(4)}
        assert sorted(k for k, known in seen.items() if not known) == sorted(plan.jury(j))
        assert len(plan.jury(j)) == 2
        assert not any(judged & set(plan.data.material[plan.learnt_by(k)]) for k in plan.jury(j))


def test_the_blend_is_the_best_of_what_is_served(feff):
    plan = TrainingPlan.read(config(), feff)
    t, index = plan.rows.targets, plan.learnt
    sizes = [len(c) for c in t.classes]
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([one_hot[index] for one_hot in t.one_hot], dim=1).unsqueeze(1)
    # Two members, both mostly right, the heads too sure.
    logits = 6 * labels + 5 * torch.randn(len(index), 2, sum(sizes), generator=generator)
    recalled = labels + torch.randn(len(index), 2, sum(sizes), generator=generator)
    recalled = torch.cat([part.log_softmax(2) for part in recalled.split(sizes, 2)], dim=2)
    values = torch.zeros(len(index), 2, len(plan.config.regressed))
    blend = fit_blend([HeldOut(index, logits, values, recalled, values)], t.one_hot, t.regressed, recall=True)
    served = ensemble(plan, fresh(plan), plan.learnt)

    def padded(parts: torch.Tensor, value: float) -> torch.Tensor:
        each = [functional.pad(p, [0, max(sizes) - p.shape[2]], value=value) for p in parts.split(sizes, 2)]
        return torch.stack(each, dim=2).transpose(0, 1)

    def surprise(temperature: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        served.temperature.copy_(temperature)
        served.share.copy_(share)
        heads, sites = padded(logits, -torch.inf), padded(recalled.exp(), 0.0)
        parts = served.probabilities(heads, sites).split(sizes, 1)
        return torch.stack([-(o[index] * p.log()).sum(1).mean() for o, p in zip(t.one_hot, parts, strict=True)])

    best = surprise(blend.temperature, blend.share)
    assert ((blend.share > 0) & (blend.share < 1))[: len(sizes)].any()
    for other in (0.5, 1.0, 5.0):
        for share in (0.0, 0.5, 1.0):
            found = surprise(torch.full_like(blend.temperature, other), torch.full_like(blend.share, share))
            assert (found >= best - 1e-5).all()


def test_folds_keep_materials_together():
    material = np.array([f"m{i // 3}" for i in range(30)])
    parts = folds(material, 4, seed=1)
    assert sorted(np.concatenate(parts)) == list(range(30))
    assert len(set.union(*[set(material[p]) for p in parts])) == sum(len(set(material[p])) for p in parts)


def test_metals_are_outliers_as_computed_and_as_measured(feff, tmp_path):
    def metal(k: int, row: dict[str, str]) -> dict[str, str]:
        return {"kind": "metal", "split": "cal"} if k == 0 else {"kind": "layered"}

    assert augment_outliers(TrainingPlan.read(config(), feff), torch.Generator()) is None  # no row of split cal
    rewrite(feff, tmp_path, metal)
    plan = TrainingPlan.read(config(augmentation={"disturbed": 0.0}), tmp_path)
    shown = augment_outliers(plan, torch.Generator())
    assert shown is not None
    assert plan.outliers is not None
    torch.testing.assert_close(shown[0], plan.outliers.aligned(plan.outliers.fine)[0], atol=1e-3, rtol=0)
    above = shown > 0.5
    edge = torch.tensor(plan.rows.grid.energy)[above.float().argmax(1)]
    assert edge[0] - edge[-1] == pytest.approx(plan.config.domain.metal_gap_ev, abs=1)
    assert (edge.diff() <= 0).all()
    assert (shown[-1].max() - 1) / (shown[0].max() - 1) < 1 - (1 - METAL_AMPLITUDE / plan.config.domain.amplitude) / 2


def test_sulphides_are_outliers_up_to_half_of_a_metals_offset(feff, tmp_path):
    rewrite(feff, tmp_path, lambda k, _: {"kind": "sulphide", "split": "cal"} if k == 0 else {"kind": "layered"})
    plan = TrainingPlan.read(config(augmentation={"disturbed": 0.0}), tmp_path)
    shown = augment_outliers(plan, torch.Generator())
    assert shown is not None
    edge = torch.tensor(plan.rows.grid.energy)[(shown > 0.5).float().argmax(1)]
    assert edge[0] - edge[-1] == pytest.approx(plan.config.domain.metal_gap_ev / 2, abs=1)
    assert (shown[-1].max() - 1) / (shown[0].max() - 1) == pytest.approx(1, abs=0.1)  # its amplitude is FEFF's


def fresh(plan: TrainingPlan) -> list[TrainedMember]:
    """Members as they start, without recall."""
    return [TrainedMember(plan.new_member(k).state_dict(), None, 0, 0.0) for k in range(plan.config.members)]


def test_fine_tuning_starts_from_what_was_trained(trained, feff):
    plan = TrainingPlan.read(config(pretrained=str(trained)), feff)
    again = ensemble(plan, fresh(plan), plan.learnt)
    first = load_module(trained, CPU)
    with torch.no_grad():
        for mine, theirs in zip(again.spt(plan.clean), first.spt(plan.clean), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_it_is_fine_tuned_on_a_shorter_grid_by_cross_validation(trained, feff, tmp_path):
    shorter = {**CONFIG["grid"], "stop_ev": 60.0, "anchor_ev": [40.0, 60.0]}
    how = config(name="tuned", grid=shorter, protocol="cross-validation", pretrained=str(trained), members=3)
    torch.testing.assert_close(TrainingPlan.read(how, feff).scale.centre, weights(trained)["centre"][:70])
    card = cards.verify(here(how, feff, tmp_path))
    assert card.training["protocol"] == "cross-validation"
    # The start may be gone, or be elsewhere, when the model is read.
    assert card.training["pretrained"] == "small"
    assert config_of(card) == how.model_copy(update={"pretrained": None})
    assert card.training["periods"] == cards.read_card(trained).training["periods"]
    assert card.metrics["on"].startswith("3-fold cross-validation by material")
    assert card.metrics["OS"]["standard_error"] >= 0
    assert len(Model(tmp_path / "tuned", "cpu").grid) == 70


def test_the_config_can_be_read_back_from_the_card(trained):
    assert config_of(cards.read_card(trained)) == config()


def test_a_model_says_what_it_is_to_a_reader(trained):
    text = (trained / "README.md").read_text(encoding="utf-8")
    assert "15 sites of 5 materials: made for the test" in text
    assert "CN2, PSGO have no meaning for a mixture of sites" in text
    assert "nobody" in text


def test_no_site_recalls_its_own_material(feff):
    plan = TrainingPlan.read(config(), feff)
    sites = torch.as_tensor(plan.learnt)
    kin = MaterialGroups(plan.data.material)
    weights = torch.eye(3)
    weights[0] = torch.tensor([0.5, 0.0, 0.5])
    barred = kin.barred(weights, sites[[0, 4, 8]], sites)
    material = plan.data.material[plan.learnt]
    for row, own in zip(barred, [{0, 8}, {4}, {8}], strict=True):
        assert row.tolist() == [m in {material[i] for i in own} for m in material]


def test_training_without_recall_leaves_none(feff, tmp_path):
    folder = here(config(name="plain", optimisation=CONFIG["optimisation"] | {"recall_weight": 0.0}), feff, tmp_path)
    assert set(cards.verify(folder).training["recall_share"]) == {0.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, r"unknown key epochs; expected one of absorber"),
        ({"optimisation": {"epoch": 3}}, r"unknown key optimisation\.epoch; expected one of batch, epochs"),
        ({"runs": 2}, "runs 2: weights trained from scratch cannot be averaged"),
        ({"dataset": []}, r"key dataset.*: no data set is named; name one of the data folder"),
        ({"others": [{"dataset": "", "edge_ev": 1.0}]}, r"key others\.0\.dataset.*: no data set is named"),
        ({"members": "many"}, r"key members: found 'many', expected: "),
        ({"grid": {**CONFIG["grid"], "stop_ev": 50.0}}, r"key grid: .*anchor_ev 40…72 eV is not inside -9…50 eV"),
    ],
)
def test_a_wrong_key_is_one_message_before_training(tmp_path, feff, change, message):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG | change, allow_unicode=True))
    with pytest.raises(ConfigError, match=rf"c\.yaml: {message}"):
        train_model(tmp_path / "c.yaml", feff, tmp_path)


@pytest.mark.parametrize("content", [b"name: [", b"just words", b"", b"\xff\xfe"])
def test_a_config_that_is_none_is_one_message(tmp_path, feff, content):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml: "):
        train_model(tmp_path / "c.yaml", feff, tmp_path)
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        train_model(tmp_path / "none.yaml", feff, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "none"}, r"none\.npz: not found"),
        ({"classified": ["OS", "CN", "colour"]}, "no column colour"),
        (
            {"grid": {**CONFIG["grid"], "stop_ev": 120.0}},
            r"the shortest row ends [\d.]+ eV above the edge, the grid at 120 eV",
        ),
    ],
)
def test_data_that_do_not_fit_the_config_are_one_message(feff, changes, message):
    with pytest.raises(DataError, match=message):
        TrainingPlan.read(config(**changes), feff)
