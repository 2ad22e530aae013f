"""Test that repeats of one sample scatter as the agent says of each of them, with a shipped model."""

from collections.abc import Sequence

import numpy as np
import pytest

from xas_agent.agent.estimate import EnergyUncertainty, FrameServer
from xas_agent.agent.spectra import AlignmentSettings, SeriesAlignment, add_noise
from xas_agent.agent.types import Array, Edge, Frame, Grid
from xas_agent.models import card
from xas_agent.models.runtime import Model

EDGE_EV = 7709.0
REPEATS = 200


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(card.find("co-k"), "cpu")


def repeats(noise: float, spacing_ev: float, jitter_ev: float | None = None) -> list[Frame]:
    """Return frames of one sample, with a foil if the energies jitter."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.arange(-150, -20, 3.0), np.arange(-20, 120, spacing_ev), np.arange(120.0, 300, 3.0)])
    frames: list[Frame] = []
    for k in range(REPEATS):
        e = x + (jitter_ev or 0.0) * rng.normal()
        mu = 0.5 + np.arctan((e - 6) / 2) / np.pi
        mu *= 1 + 0.35 * np.exp(-(((e - 10) / 4) ** 2))
        mu += 0.08 * (e > 9) * np.sin((e - 9) / 7) * np.exp(-e / 60)
        foil = None if jitter_ev is None else 0.5 + np.arctan(e / 1.2) / np.pi
        noisy = mu + noise * rng.standard_normal(len(x))
        frames.append(Frame(str(k), "run", k + 1, 60.0 * k, EDGE_EV + x, noisy, element="Co", reference=foil))
    return frames


def served(model: Model, frames: Sequence[Frame]) -> tuple[Array, Array]:
    """Return mean OS and its published scatter, (n,) each."""
    uncertainty = EnergyUncertainty(20, noise_every=20)  # ten responses, each of which is known to 10 to 20 %
    answers = list(FrameServer([model], SeriesAlignment(AlignmentSettings()), uncertainty)(frames))
    estimates = [answer.estimate.descriptors["OS"] for answer in answers if answer.estimate is not None]
    assert len(estimates) == len(frames)
    return np.array([e.mean for e in estimates]), np.array([e.sd_frame for e in estimates])


@pytest.mark.parametrize("noise", [0.003, 0.02])
@pytest.mark.parametrize("spacing_ev", [0.25, 2.0])
def test_scatter_by_noise(model: Model, noise: float, spacing_ev: float) -> None:
    mean, sd_frame = served(model, repeats(noise, spacing_ev))
    assert mean.std(ddof=1) == pytest.approx(sd_frame.mean(), rel=0.25)


def test_scatter_by_a_jitter_of_the_energies_that_the_foil_shows(model: Model) -> None:
    mean, sd_frame = served(model, repeats(0.001, 0.5, jitter_ev=0.1))
    known = slice(21, None)  # the trend is full
    assert 0.8 * mean[known].std(ddof=1) < sd_frame[known].mean() < 2 * mean[known].std(ddof=1)
    _, quiet = served(model, repeats(0.001, 0.5, jitter_ev=0.0))
    assert sd_frame[known].mean() > 3 * quiet[known].mean()


@pytest.mark.parametrize(("spacing_ev", "neighbours"), [(0.1, 0.0), (4.0, 0.9)])
def test_noise_of_bins_depends_on_the_points_within_them(spacing_ev: float, neighbours: float) -> None:
    grid, edge = Grid(-9, 60, 1, (-9, -6), (30, 60)), Edge(EDGE_EV, 2.0, scale=1.05, amplitude=0.8)
    energy = EDGE_EV + np.arange(-30.0, 90.0, spacing_ev)
    rng = np.random.default_rng(0)
    step = edge.scale_structure(np.zeros((1, len(grid))), grid, 0)[0]
    copies = add_noise(step.astype(np.float32), 0.01, energy, 3.0, grid, edge, 2000, rng) - step
    middle = copies[:, 20:30]
    white = 0.01 / 0.8 * (spacing_ev / 1.05) ** 0.5
    if spacing_ev < 1:
        assert middle.std() == pytest.approx(white, rel=0.1)
    correlation = np.mean([np.corrcoef(middle[:, k], middle[:, k + 1])[0, 1] for k in range(9)])
    assert correlation == pytest.approx(neighbours, abs=0.1)
