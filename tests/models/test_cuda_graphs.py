"""TorchScript in CUDA graphs: what holds without a GPU, and, on one, that its answers are the plain module's."""

import numpy as np
import pytest
import torch

from xas_agent.app.config import load_config
from xas_agent.app.wiring import load_models
from xas_agent.models import card as cards
from xas_agent.models.card import ModelError
from xas_agent.models.convert import plausible_spectra, served_of
from xas_agent.models.engines.cuda_graphs import BUCKETS, CUDAGraphs, bucket, parts, recorded_batches
from xas_agent.models.engines.torchscript import TorchScript
from xas_agent.models.runtime import Model

GPU = torch.cuda.is_available()
NAME = "cr-k"


def test_a_batch_passes_in_the_smallest_recorded_one_with_room():
    assert [bucket(rows) for rows in (0, 1, 2, 8, 9, 32, 33, 512)] == [1, 1, 8, 8, 32, 32, 128, 512]


@pytest.mark.parametrize("rows", [0, 1, 511, 512, 513, 1300])
def test_the_parts_of_a_batch_are_its_rows_in_order(rows):
    found = parts(rows)
    covered = [row for first, count in found for row in range(first, first + count)]
    assert covered == list(range(rows))
    assert all(count <= BUCKETS[-1] for _, count in found)


@pytest.mark.skipif(GPU, reason="a GPU is here")
@pytest.mark.parametrize("at_once", [True, False])
def test_without_a_gpu_the_engine_is_refused_with_the_reason(at_once):
    config = load_config({"model": {"use": [NAME], "engine": "cuda-graphs"}})
    with pytest.raises(ModelError, match="cuda-graphs needs a GPU, and torch finds none: use the engine torchscript"):
        load_models(config, at_once=at_once)


def test_the_engine_is_refused_for_the_cpu():
    with pytest.raises(ModelError, match="found device cpu; the engine cuda-graphs runs on a GPU: use auto or cuda"):
        Model(cards.find(NAME), "cpu", "cuda-graphs")


@pytest.mark.skipif(GPU, reason="a GPU is here")
def test_what_cannot_be_recorded_is_named_and_left_to_the_plain_module(caplog):
    plain = TorchScript(cards.find(NAME), "cpu")
    assert recorded_batches(NAME, plain.module, plain, 44) == {}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(BUCKETS)
    for rows, line in zip(BUCKETS, said, strict=True):
        assert "CUDA graph not used: the plain module answers" in line
        assert f"rows={rows}" in line
        assert "reason=" in line


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("rows", [1, 5, 8, 100, 600])
def test_on_a_gpu_the_answers_are_those_of_the_plain_module_to_the_last_bit(rows):
    folder = cards.find(NAME)
    graphs, plain = CUDAGraphs(folder, len(cards.read_card(folder).grid.grid())), TorchScript(folder, "cuda")
    assert sorted(graphs._recorded) == list(BUCKETS)
    x = plausible_spectra(served_of(folder), rows).numpy()
    full = [np.resize(x[first : first + count], (bucket(count), x.shape[1])) for first, count in parts(rows)]
    expected = np.concatenate([plain(part)[:count] for part, (_, count) in zip(full, parts(rows), strict=True)])
    np.testing.assert_array_equal(graphs(x), expected)
