"""What is looked at inside a network, against what the network itself does."""

import numpy as np
import pytest
import torch

from xas_agent.models import card as cards
from xas_agent.models.convert import served_of
from xas_agent.models.evaluation.studies.attribution import (
    attention,
    band_weights,
    bands_by_class,
    example_rows,
    periods_of,
    queries,
    received_attention,
    saliency,
)
from xas_agent.models.evaluation.studies.exploration import agreement, chance
from xas_agent.models.network.ensemble import Served
from xas_agent.models.network.shape import SPTShape

SHAPE = SPTShape(
    grid_points=41, periods=(20, 7), classes=(3, 2), regressed=2, members=2, width=8, heads=2, latent=12, gathered=4,
    key=5, blocks=2, node_points=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Served:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = Served(SHAPE, 6).eval()
    module.spread.fill_(1.0)
    module.recall.keys.normal_()
    module.ood_score.fit(torch.randn(60, 41))
    return module


def test_band_weights_are_shares_that_do_not_depend_on_the_batch(served):
    x = torch.randn(70, 41)
    weights = band_weights(served, x)
    assert weights.shape == (70, 2)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(band_weights(served, x[65:66]), weights[65:66], atol=1e-5)
    assert periods_of(served) == [20, 7]


def test_attention_is_shares_over_neighbours_inside_the_spectrum(served):
    weights = attention(served, torch.randn(3, 41))
    assert weights.shape == (3, SHAPE.nodes, 2 * SHAPE.window + 1)
    np.testing.assert_allclose(weights.sum(2), 1, atol=1e-5)
    assert weights[:, 0, : SHAPE.window].max() < 1e-6  # nothing lies below the first point
    total = received_attention(weights)
    assert total.shape == (3, SHAPE.nodes)
    middle = slice(SHAPE.window, -SHAPE.window)
    np.testing.assert_allclose(received_attention(np.full((1, 30, 7), 1 / 7))[:, middle], 1, atol=1e-12)


def test_a_network_without_a_branch_is_not_asked_for_it():
    shape = SHAPE.model_copy(update={"frequency": False})
    module = Served(shape, 6).eval()
    assert band_weights(module, torch.randn(4, 41)).shape == (4, 0)


def test_queries_are_those_of_the_network(served):
    x = torch.randn(4, 41)
    with torch.no_grad():
        own = served.spt(x)[3]
    assert queries(served, x).shape == (4, SHAPE.members * SHAPE.key)
    np.testing.assert_allclose(queries(served, x), own.flatten(1).numpy(), atol=1e-5)


def test_saliency_is_shares_of_the_grid_for_every_answer(served):
    found = saliency(served, torch.randn(5, 41), ("OS", "CN"), ("NNRS", "MOOD"))
    assert list(found) == ["OS", "CN", "NNRS", "MOOD"]
    for share in found.values():
        assert share.shape == (41,)
        assert (share >= 0).all()
        assert share.sum() == pytest.approx(1)
    assert all(p.grad is None for p in served.parameters())


def test_neighbours_that_tell_and_that_do_not():
    rng = np.random.default_rng(0)
    known, points = rng.normal(size=(300, 2)), rng.normal(size=(50, 2))
    labels = {
        "OS": (np.sign(points[:, 0]), np.sign(known[:, 0])),
        "CN": (rng.choice([1.0, 2.0], 50), rng.choice([1.0, 2.0], 300)),
        "NNRS": (points[:, 1], known[:, 1]),
        "PSGO": (np.full(50, np.nan), np.ones(300)),
    }
    found = agreement(points, known, labels, ("OS", "CN", "PSGO"))
    assert found["OS"] > 0.85
    assert found["CN"] == pytest.approx(0.5, abs=0.1)
    assert found["NNRS"] > 0.8
    assert "PSGO" not in found
    assert chance(*labels["CN"]) == pytest.approx(0.5, abs=0.05)


def test_classes_with_few_rows_are_not_shown():
    truth = np.array([1.0] * 6 + [2.0] * 2 + [np.nan])
    table = bands_by_class(np.tile([0.25, 0.75], (9, 1)), truth, (40.0, 14.0))
    assert table.index.tolist() == ["all", "1"]
    assert table.columns.tolist() == ["40", "14"]
    assert example_rows(truth).tolist() == [0, 6]


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(cards.ModelError):
        served_of(tmp_path)
