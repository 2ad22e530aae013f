"""Serving the shipped models: a frame's numbers are its own, and every estimate is whole."""

import gc
import resource
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xas_agent.agent.spectra.align import align
from xas_agent.agent.spectra.batch import Batch
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.spectra.theory import align_theory
from xas_agent.agent.types import Array
from xas_agent.agent.types.estimate import Estimate
from xas_agent.agent.types.reasons import Flag
from xas_agent.models import card as cards
from xas_agent.models.card import ModelError
from xas_agent.models.engines.torchscript import TorchScript, load_module
from xas_agent.models.runtime import Model, configure_torch, default_threads, keep_freed_memory
from xas_agent.sim_beamline.plans import FLY_ENERGIES_EV
from xas_agent.sim_beamline.spectra import ReferenceSpectra, absorption

pytestmark = pytest.mark.usefixtures("networks_of_files")
NAMES = list(cards.installed())


@cache
def model(name: str) -> Model:
    return Model(cards.find(name), "cpu")


def spectra(name: str, n: int) -> NDArray[np.float32]:
    """Edges with white lines and ripples of many sizes, on the model's grid and footing."""
    rng = np.random.default_rng(7)
    e, grid = model(name).grid.energy, model(name).grid
    at, height, width, phase = (rng.uniform(*r, (n, 1)) for r in ((0, 12), (0, 1), (3, 8), (0, 6)))
    mu = 0.5 + np.arctan((e - at) / 1.8) / np.pi
    mu = mu + height * np.exp(-(((e - at - 5) / width) ** 2)) + 0.05 * np.sin(e / 8 + phase) * (e > at)
    return grid.footing(mu + rng.normal(0, 0.005, mu.shape)).astype(np.float32)


def numbers(estimates: list[Estimate]) -> Array:
    """Everything that they say, a row each."""
    return np.array(
        [
            [v for d in e.descriptors.values() for v in (d.mean, d.lo, d.hi, *d.probabilities.values())]
            + [e.ood_score]
            for e in estimates
        ]
    )


def assert_close(a: Any, b: Any) -> None:
    """Identical within 1e-5, relative where a number is large."""
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_is_estimated_alike_alone_in_any_batch_and_in_any_order(name):
    x = spectra(name, 100)
    together = numbers(model(name).estimate(x))
    by_seven = np.concatenate([numbers(model(name).estimate(x[i : i + 7])) for i in range(0, 100, 7)])
    assert_close(by_seven, together)
    alone = np.concatenate([numbers(model(name).estimate(x[i : i + 1])) for i in range(0, 100, 8)])
    assert_close(alone, together[::8])
    order = np.random.default_rng(1).permutation(100)
    assert_close(numbers(model(name).estimate(x[order])), together[order])


def test_a_ruined_frame_does_not_touch_its_neighbours():
    x = spectra("cu-k", 7)
    clean = numbers(model("cu-k").estimate(x))
    x[3] = np.nan
    found = model("cu-k").estimate(x)
    others = [0, 1, 2, 4, 5, 6]
    assert_close(numbers([found[i] for i in others]), clean[others])
    assert found[3].flags == (Flag.OUT_OF_DISTRIBUTION,)


@pytest.mark.parametrize("name", NAMES)
def test_every_estimate_is_whole(name):
    card = model(name).card
    for estimate in model(name).estimate(spectra(name, 20)):
        assert list(estimate.descriptors) == [d.name for d in card.descriptors]
        assert estimate.flags == ((Flag.OUT_OF_DISTRIBUTION,) if estimate.ood_score > 1 else ())
        for d in card.descriptors:
            found = estimate.descriptors[d.name]
            assert found.lo <= found.mean <= found.hi
            assert found.lo < found.hi
            if d.kind == "regressed":
                assert (found.value, found.p, found.probabilities) == (None, None, {})
                continue
            assert list(found.probabilities) == [str(c) for c in d.classes]
            assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert found.p == max(found.probabilities.values())
            assert found.value in d.classes
            if d.mean_head is None:
                expected = sum(c * p for c, p in zip(d.classes, found.probabilities.values(), strict=True))
                assert found.mean == pytest.approx(expected, abs=1e-6)


def test_what_stands_beside_the_model_widens_its_intervals_alone():
    served, x = model("co-k"), spectra("co-k", 4)
    own = served.estimate(x)
    wide = served.estimate(x, {"mean_bond": np.array([0.0, 0.01, 0.1, 1.0])})
    for k, (a, b) in enumerate(zip(own, wide, strict=True)):
        assert a.descriptors["OS"] == b.descriptors["OS"]
        before, after = a.descriptors["mean_bond"], b.descriptors["mean_bond"]
        half = np.hypot(before.hi - before.mean, 1.6449 * [0.0, 0.01, 0.1, 1.0][k])
        assert (after.mean, after.hi) == pytest.approx((before.mean, before.mean + half), rel=1e-4)


def test_nothing_asked_is_nothing_answered():
    assert model("cu-k").estimate(spectra("cu-k", 1)[:0]) == []


def test_the_order_of_the_arrays_memory_does_not_matter():
    x = spectra("cu-k", 5)
    assert_close(model("cu-k").forward(np.asfortranarray(x.astype(np.float64))), model("cu-k").forward(x))
    assert_close(model("cu-k").forward(x[::-1])[::-1], model("cu-k").forward(x))


def test_one_core_and_several_agree():
    x, before = spectra("co-k", 16), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = model("co-k").forward(x)
        torch.set_num_threads(3)
        assert_close(model("co-k").forward(x), one)
    finally:
        torch.set_num_threads(before)
    assert 1 <= default_threads() <= 4


def test_warming_up_changes_nothing():
    fresh, x = Model(cards.find("ni-k"), "cpu"), spectra("ni-k", 9)
    cold = fresh.forward(x)
    fresh.warm_up()
    assert_close(fresh.forward(x), cold)


def test_a_file_of_weights_in_single_precision_is_loaded_as_it_is(tmp_path):
    stored = torch.jit.load(cards.find("co-k") / "model.ts", map_location="cpu")
    for weight in stored.parameters():
        weight.data = weight.data.float() + 1e-6
    stored.save(tmp_path / "model.ts")
    read = load_module(tmp_path, torch.device("cpu")).state_dict()
    for name, tensor in stored.state_dict().items():
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_the_cpu_answers_while_the_gpu_fails(caplog: pytest.LogCaptureFixture):
    served, x = Model(cards.find("ni-k"), "cpu"), spectra("ni-k", 20)
    expected = served.forward(x)
    assert isinstance(served.engine, TorchScript)
    served.engine.device = torch.device("meta")  # without data: the network fails on it
    for _ in range(2):
        assert_close(served.forward(x), expected)
    assert caplog.text.count("GPU failed") == 1


def test_spectra_on_another_grid_are_an_error_after_which_the_network_answers():
    served, x = Model(cards.find("co-k"), "cpu"), spectra("co-k", 20)
    served.warm_up()
    gc.collect()  # an error names functions of the loaded file
    with pytest.raises(RuntimeError):
        served.forward(x[:, :2])
    assert_close(served.forward(x), model("co-k").forward(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_answers_again_once_it_has_memory(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xas_agent.models.engines.torchscript._GPU_RETRY_S", 0.0)
    caplog.set_level("INFO")
    served, x = Model(cards.find("co-k"), "cuda"), spectra("co-k", 256)
    expected = Model(cards.find("co-k"), "cpu").forward(x)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        np.testing.assert_allclose(served.forward(x), expected, atol=1e-5)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "GPU failed" in caplog.text
    np.testing.assert_allclose(served.forward(x), expected, atol=1e-5)
    assert "GPU answers again" in caplog.text


def test_a_changed_model_is_refused_before_it_is_loaded(tmp_path):
    folder = Path(shutil.copytree(cards.find("co-k"), tmp_path / "co-k"))
    (folder / "model.ts").write_bytes((folder / "model.ts").read_bytes() + b"\0")
    with pytest.raises(ModelError, match="does not match its card"):
        Model(folder)


@cache
def cathode() -> dict[str, Array]:
    with files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz").open("rb") as f, np.load(f) as z:
        return {k: z[k].astype(float) for k in z.files}


def theory(mu: Array) -> NDArray[np.float32]:
    co = model("co-k")
    aligned = align_theory(cathode()["energy"][300:], np.atleast_2d(mu)[:, 300:], co.grid, co.edge.edge_ev)
    assert aligned.refused == (None,) * len(aligned.mu)
    return aligned.mu


def test_the_mean_oxidation_state_follows_the_lithium():
    x = cathode()["x"]
    found = model("co-k").estimate(theory(cathode()["mu"]))
    os_mean = np.array([e.descriptors["OS"].mean for e in found])
    assert np.abs(os_mean - (4 - x)).max() < 0.15
    assert max(e.ood_score for e in found) <= 1


@pytest.mark.parametrize("kind", ["metal", "glitch", "misnormalised"])
def test_out_of_distribution_spectra_score_above_one(kind):
    if kind == "metal":
        co, e = model("co-k"), FLY_ENERGIES_EV
        foil = absorption(ReferenceSpectra(broadening_ev=1.0).foil(e), e, edge_step=1.0, background=0.6)[None]
        aligned = align(Batch(e, foil, reference=foil), co.grid, co.edge, AlignmentSettings()).mu
    else:
        aligned = theory(cathode()["mu"][3])
    if kind == "glitch":
        aligned[0, 60] += 0.4
    if kind == "misnormalised":
        aligned = (aligned + np.linspace(0, 0.5, aligned.shape[1])).astype(np.float32)
    (found,) = model("co-k").estimate(aligned)
    assert found.ood_score > 1
    assert found.flags == (Flag.OUT_OF_DISTRIBUTION,)


def test_a_gpu_may_round_to_tf32_only_where_serving_asks_for_it():
    threads, flags = torch.get_num_threads(), (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    try:
        for fast in (True, False):
            configure_torch(threads, fast)
            assert [flag.allow_tf32 for flag in flags] == [fast, fast]
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def test_memory_that_a_forward_pass_freed_is_not_mapped_anew():
    if not keep_freed_memory():
        pytest.skip("not glibc")
    served, frames = model("co-k"), np.ones((64, 108), np.float32)
    for _ in range(5):
        served.forward(frames)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        served.forward(frames)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2000  # of some 10 MB each, 25 000 pages
