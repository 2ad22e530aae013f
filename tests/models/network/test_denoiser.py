"""Noise taken off spectra that are of the kind seen in training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.models.network.denoiser import Denoiser

POINTS = 120


def edges(count: int, seed: int) -> torch.Tensor:
    """Edges with a white line and one wave above, (count, POINTS)."""
    generator = torch.Generator().manual_seed(seed)
    energy = torch.arange(POINTS) - 15.0
    edge, height, period = (torch.rand(count, 1, generator=generator) for _ in range(3))
    step = 0.5 + torch.atan((energy - 4 * edge) / 2) / torch.pi
    line = (0.3 + height) * torch.exp(-0.5 * ((energy - 8 - 4 * edge) / 4) ** 2)
    return step + line + 0.1 * torch.sin(2 * torch.pi * energy / (15 + 10 * period)) * (energy > 15)


@pytest.fixture(scope="module")
def denoise() -> Denoiser:
    module = Denoiser(POINTS)
    module.fit(edges(800, seed=0))
    return module


@given(sigma=st.floats(0.003, 0.1), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_noise_is_taken_off(denoise, sigma, seed):
    clean = edges(20, seed=seed + 1)
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    before, after = ((x - clean).square().mean().sqrt() for x in (noisy, denoise(noisy)))
    assert after < 0.6 * before


def test_a_spectrum_without_noise_is_left_as_it_is(denoise):
    clean = edges(50, seed=7)
    torch.testing.assert_close(denoise(clean), clean, atol=2e-3, rtol=0)


def test_a_row_does_not_depend_on_the_others(denoise):
    noisy = edges(9, seed=3) + 0.05 * torch.randn(9, POINTS, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(denoise(noisy)[4:5], denoise(noisy[4:5]), atol=1e-5, rtol=0)


def test_before_it_has_learnt_it_changes_nothing():
    noisy = torch.randn(3, POINTS, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Denoiser(POINTS)(noisy), noisy)
