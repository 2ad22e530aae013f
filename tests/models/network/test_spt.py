from copy import deepcopy
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.models.card import DomainCard
from xas_agent.models.engines.torchscript import load_module
from xas_agent.models.network import ensemble
from xas_agent.models.network.branches import FrequencyBand, FrequencyBranch, GraphAttention
from xas_agent.models.network.ensemble import Served, save
from xas_agent.models.network.ood import OODScore
from xas_agent.models.network.shape import SPTShape, dominant_periods
from xas_agent.models.network.spt import SPT, ensemble_weights, member_weights
from xas_agent.models.training.augment import Augmentation, add_noise, disturb, mixtures

SHAPE = SPTShape(
    grid_points=41, periods=(20, 14, 7), classes=(3, 5), regressed=2, width=8, heads=2, latent=16, dropout=0.0
)


@pytest.fixture(scope="module")
def served():
    torch.manual_seed(0)
    module = Served(SHAPE.model_copy(update={"members": 2}), sites=30).eval()
    module.ood_score.fit(torch.randn(200, 41))
    module.spread.fill_(1.0)
    module.share.fill_(0.4)
    module.recall.keys.normal_()
    module.recall.learn(
        [torch.nn.functional.one_hot(torch.randint(n, (30,)), n) for n in SHAPE.classes], torch.randn(30, 2)
    )
    return module


def test_scripted_is_as_eager_at_any_batch_size(served, tmp_path):
    torch.jit.script(served).save(str(tmp_path / "m.ts"))
    frozen = torch.jit.freeze(torch.jit.load(str(tmp_path / "m.ts")).eval())
    for n in (1, 7, 1, 64):
        x = torch.randn(n, 41)
        torch.testing.assert_close(frozen(x), served(x), atol=1e-5, rtol=1e-5)


def test_a_file_in_half_precision_answers_as_the_rounded_network(served, tmp_path):
    rounded, x = deepcopy(served), torch.randn(9, 41)
    save(rounded, tmp_path / "model.ts")
    rounded.round_weights()
    read = load_module(tmp_path, torch.device("cpu"))
    with torch.no_grad():
        assert not torch.equal(rounded(x), served(x))
        torch.testing.assert_close(read(x), rounded(x), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts").float()(x), read(x), atol=1e-6, rtol=1e-6)
    for name, buffer in read.named_buffers():
        expected = dict(served.named_buffers())[name]
        assert buffer.dtype == expected.dtype, name
        assert torch.equal(buffer.nan_to_num(), expected.nan_to_num()), name
    assert all(w.dtype == torch.float32 for w in (*served.parameters(), *read.parameters()))


def test_a_file_names_no_path_of_the_machine_that_wrote_it(served, tmp_path):
    save(served, tmp_path / "model.ts")
    source, torch_itself = (Path(file).parent for file in (ensemble.__file__, torch.__file__))
    with ZipFile(tmp_path / "model.ts") as file:
        for record in file.namelist():
            content = file.read(record)
            assert str(source).encode() not in content, record
            assert str(torch_itself).encode() not in content, record


@given(st.integers(0, 2**31), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_a_row_does_not_depend_on_its_batch_or_order(served, seed, n):
    x = torch.randn(n, 41, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(n)
    with torch.no_grad():
        together = served(x)
        torch.testing.assert_close(served(x[order]), together[order], atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.cat([served(row[None]) for row in x]), together, atol=1e-5, rtol=0)


def test_output_columns(served):
    out = served(torch.randn(4, 41)).detach()
    assert out.shape == (4, 3 + 5 + 2 + 2 + 1)
    torch.testing.assert_close(out[:, :3].sum(1), torch.ones(4))
    torch.testing.assert_close(out[:, 3:8].sum(1), torch.ones(4))
    assert (out[:, 10:12] > 0).all()


def test_a_band_mixes_points_one_period_apart_and_not_those_between():
    torch.manual_seed(1)
    band = FrequencyBand(SHAPE, 14)
    x = torch.zeros(1, band.folded, 8, requires_grad=True)
    band(x)[0, 20].sum().backward()
    assert x.grad is not None
    felt = set(torch.nonzero(x.grad[0].abs().sum(1)).flatten().tolist())
    assert felt == {5, 6, 7, 19, 20, 21, 33, 34, 35}


def test_attention_is_local_and_weights_sum_to_one():
    torch.manual_seed(1)
    graph = GraphAttention(SHAPE)
    graph.norm = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.randn(1, 41, 1, 8, requires_grad=True)
    graph(x)[0, 20].sum().backward()
    assert x.grad is not None
    felt = torch.nonzero(x.grad[0, :, 0].abs().sum(1)).flatten().tolist()
    assert felt == list(range(20 - SHAPE.window, 20 + SHAPE.window + 1))
    # Where all values are alike, any weights that sum to one give that value back, also at the borders.
    with torch.no_grad():
        graph.value.weight.zero_()
        same = graph(x) - x
    torch.testing.assert_close(same, same[:, :1].expand_as(same), atol=1e-5, rtol=1e-4)  # all points alike


def test_attention_is_the_formula_of_the_paper():
    """Equations 5–7 written out for one point: a^T LeakyReLU(W [h_i ‖ h_j]), softmax, weighted values."""
    torch.manual_seed(2)
    shape = SPTShape(grid_points=9, periods=(4,), classes=(2,), regressed=1, width=4, heads=1, window=2)
    graph = GraphAttention(shape)
    graph.norm = torch.nn.Identity()  # type: ignore[assignment]
    h = torch.randn(1, 9, 1, 4)
    w = torch.cat([graph.here.weight[:, :, 0], graph.there.weight[:, :, 0]], dim=1)
    assert graph.here.bias is not None
    assert graph.value.bias is not None
    a, i = graph.relevance[0, 0, :, 0, 0], 1
    near = range(max(0, i - 2), i + 3)
    pair = [w @ torch.cat([h[0, i, 0], h[0, j, 0]]) + graph.here.bias for j in near]
    alpha = torch.softmax(torch.stack([a @ torch.nn.functional.leaky_relu(p, 0.2) for p in pair]), 0)
    value = sum(alpha[k] * (graph.value.weight[:, :, 0] @ h[0, j, 0] + graph.value.bias) for k, j in enumerate(near))
    expected = h[0, i, 0] + torch.nn.functional.gelu(value)
    torch.testing.assert_close(graph(h)[0, i, 0], expected)


def test_members_side_by_side_are_as_alone():
    torch.manual_seed(3)
    alone = [SPT(SHAPE).eval() for _ in range(3)]
    for network in alone:  # norms that differ, too
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    joined = SPT(SHAPE.model_copy(update={"members": 3})).eval()
    joined.load_state_dict(ensemble_weights([network.state_dict() for network in alone]))
    x = torch.randn(5, 41)
    for k, network in enumerate(alone):
        for together, own in zip(joined(x), network(x), strict=True):
            torch.testing.assert_close(together[:, k], own[:, 0], atol=1e-5, rtol=1e-5)
        again = member_weights(joined.state_dict(), k, 3)
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(again[name], tensor)


@pytest.mark.parametrize(
    "change",
    [
        {"node_points": 2, "periods": (10, 7)},
        {"node_points": 4, "periods": (5,)},
        {"frequency": False},
        {"graph": False},
        {"frame_bands": 2},
    ],
)
def test_variants_script_and_answer_row_by_row(change):
    torch.manual_seed(4)
    network = SPT(SHAPE.model_copy(update=change)).eval()
    x = torch.randn(6, 41)
    with torch.no_grad():
        out = torch.jit.script(network)(x)
        assert [part.shape[-1] for part in out] == [8, 2, 2, SHAPE.key]
        for together, alone in zip(out, network(x[2:3]), strict=True):
            torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-5)


def test_each_frame_chooses_its_own_bands():
    torch.manual_seed(5)
    shape = SHAPE.model_copy(update={"frame_bands": 1})
    branch = FrequencyBranch(shape)
    e = torch.arange(41.0)
    waves = torch.stack([torch.sin(2 * torch.pi * e / period) for period in shape.periods])
    barred = branch.unchosen(waves.reshape(3, 41, 1, 1).repeat(1, 1, 1, shape.width))
    assert (barred == 0).int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_dominant_periods_are_those_of_the_spectra():
    e = torch.arange(120.0)
    phase = torch.rand(50, 1) * 6.28
    spectra = torch.sin(2 * torch.pi * e / 30 + phase) + 0.5 * torch.sin(2 * torch.pi * e / 12 + phase)
    assert dominant_periods(spectra, 2) == (30, 12)


def test_gradients_reach_every_weight():
    network = SPT(SHAPE)
    sum(part.square().sum() for part in network(torch.randn(3, 41))).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_disturbances_do_what_they_say():
    e = torch.arange(0, 100, 0.5)
    gauss = torch.exp(-(((e - 50) / 4) ** 2) / 2)[None].repeat(400, 1)
    generator = torch.Generator().manual_seed(0)
    only_shift = Augmentation(disturbed=1, shift_ev=2, broadening_ev=0, noise=0, slope=0)
    moved = disturb(gauss, 0.0, 0.5, only_shift, generator)
    centre = (moved * e).sum(1) / moved.sum(1)
    assert centre.min() == pytest.approx(48, abs=0.1)
    assert centre.max() == pytest.approx(52, abs=0.1)
    only_broad = Augmentation(disturbed=1, shift_ev=0, broadening_ev=3, noise=0, slope=0)
    wide = disturb(gauss, 0.0, 0.5, only_broad, generator)
    variance = (wide * (e - 50) ** 2).sum(1) / wide.sum(1)
    assert variance.max() == pytest.approx(16 + 9, rel=0.03)
    least = disturb(gauss, 0.0, 0.5, only_broad.model_copy(update={"least_broadening_ev": 2.0}), generator)
    variance = (least * (e - 50) ** 2).sum(1) / least.sum(1)
    assert variance.min() == pytest.approx(16 + 4, rel=0.03)
    assert variance.max() == pytest.approx(16 + 9, rel=0.03)
    same = disturb(gauss, 0.0, 0.5, Augmentation(disturbed=0), generator)
    torch.testing.assert_close(same, gauss, atol=1e-5, rtol=0)
    noisy = add_noise(gauss, torch.zeros(200), Augmentation(disturbed=1, noise=0.05, slope=0), generator) - gauss
    assert noisy.std(1).max() == pytest.approx(0.05, rel=0.2)


def test_a_range_of_broadening_must_rise():
    with pytest.raises(ValueError, match="least_broadening_ev 3: expected at most broadening_ev, 2"):
        Augmentation(least_broadening_ev=3, broadening_ev=2)


def test_range_of_broadening_that_excludes_the_measured_one_is_a_gap():
    domain = DomainCard(broadening_ev=2.5)
    assert not Augmentation(least_broadening_ev=1.5, broadening_ev=3.0).gaps(domain)
    assert Augmentation(broadening_ev=2.0).gaps(domain) == ["broadening_ev 2, needed 2.5"]
    beyond = Augmentation(least_broadening_ev=2.8, broadening_ev=3.0).gaps(domain)
    assert beyond == ["least_broadening_ev 2.8, needed at most 2.5"]


def test_a_misfit_is_smooth_above_the_edge_and_of_the_stated_size():
    flat = torch.zeros(400, 216)
    flat[:, 40:] = 1.0
    only_misfit = Augmentation(disturbed=1, shift_ev=0, broadening_ev=0, misfit=0.08, noise=0, slope=0)
    change = disturb(flat, 0.0, 0.5, only_misfit, torch.Generator().manual_seed(0)) - flat
    assert change[:, :38].abs().max() < 1e-5
    rms = change[:, 40:].square().mean(1).sqrt()
    assert 0.08 * 0.8 < rms.quantile(0.98) < 0.08 * 1.4  # the size is drawn up to 0.08
    slope = change[:, 40:].diff() / 0.5
    assert (slope.square().mean() / change[:, 40:].square().mean()).sqrt() < 0.25  # per eV; of noise it is 2.8


@given(st.integers(0, 2**31), st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_mixtures_are_convex(seed, n):
    weights = mixtures((n,), Augmentation(mixed=0.5), torch.Generator().manual_seed(seed))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(n))
    assert ((weights > 0).sum(1) <= 6).all()


def test_spectra_like_the_outliers_score_above_one():
    """Spectra between two training spectra, as a mixture is, but similar to the outliers."""
    generator = torch.Generator().manual_seed(0)
    e = torch.linspace(-1, 3, 41)
    known = torch.sigmoid(4 * (e + 0.3 * torch.randn(2200, 1, generator=generator)))
    outliers = torch.sigmoid(4 * e) + 0.12 * torch.exp(-(((e - 0.6) / 0.3) ** 2)) + 0 * known[:400, :1]
    outliers = outliers + 0.01 * torch.randn(400, 41, generator=generator)
    spectra = known + 0.02 * torch.randn(2200, 41, generator=generator)
    without, ood_score = OODScore(41), OODScore(41)
    without.fit(spectra[:2000])
    ood_score.fit(spectra[:2000], outliers=outliers[: OODScore.OUTLIERS])
    assert (ood_score(outliers[OODScore.OUTLIERS :]) > 1).all()
    assert (ood_score(outliers[OODScore.OUTLIERS :]) > without(outliers[OODScore.OUTLIERS :])).float().mean() > 0.9
    assert (ood_score(spectra[2000:]) > 1).float().mean() < 0.03


def test_out_of_distribution_spectra_score_above_one():
    rng = np.random.default_rng(0)
    e = np.linspace(0, 6, 41)
    basis = np.stack([np.sin((k + 1) * e) for k in range(3)])
    known = torch.tensor(rng.normal(size=(3000, 3)) @ basis + 0.01 * rng.normal(size=(3000, 41)), dtype=torch.float32)
    ood_score = OODScore(41)
    ood_score.fit(known[:2000])
    assert (ood_score(known[2000:]) > 1).float().mean() < 0.03
    glitched = known[2000:2100].clone()
    glitched[:, 17] += 0.3
    assert (ood_score(glitched) > 1).all()
    assert (ood_score(known[2000:2100] + 0.3) > 1).all()
    assert (ood_score(10 * known[2000:2100]) > 1).float().mean() > 0.9
