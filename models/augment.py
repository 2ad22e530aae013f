"""What a beamline does to a spectrum, done to FEFF rows while training."""

import math

import torch
from torch import Tensor

from ..agent.settings import Settings

PAD_EV = 12.0  # what broadening and shift may reach over; the jump of the periodic transform lies in its middle


class Augmentation(Settings):
    """Sizes of the disturbances; each is drawn per spectrum, uniformly up to its maximum."""

    disturbed: float = 0.7
    """Fraction of the spectra that are disturbed at all."""
    shift_ev: float = 0.5
    """± energy error that calibration leaves."""
    broadening_ev: float = 2.0
    """Largest σ of the Gaussian."""
    noise: float = 0.05
    """Largest σ of the noise relative to the edge step."""
    slope: float = 0.03
    """± change of the normalised μ over the grid above the edge."""
    mixed: float = 0.3
    """Fraction of the spectra that are convex mixtures."""
    mixture_max: int = 6
    """Largest number of spectra in a mixture; the smallest is 2."""


def mixtures(
    n: int, of: int, settings: Augmentation, generator: torch.Generator, group: Tensor | None = None
) -> Tensor:
    """Weights (n, of) that turn ``of`` rows into n rows, a fraction of them convex mixtures of 2 or more.

    Row i always keeps row i as its main part's partner, so that an epoch still sees every spectrum.

    Parameters
    ----------
    group : (of,) what only rows of the same number are mixed by, such as the absorber
    """
    weights = torch.eye(n, of)
    if settings.mixed <= 0 or of < 2:
        return weights
    for i in torch.nonzero(torch.rand(n, generator=generator) < settings.mixed).flatten().tolist():
        k = int(torch.randint(2, settings.mixture_max + 1, (1,), generator=generator))
        share = -torch.rand(k, generator=generator).clamp_min(1e-9).log()  # Dirichlet(1, …, 1)
        drawn = torch.randint(of, (k - 1,), generator=generator)
        if group is not None:
            alike = torch.nonzero(group == group[i]).flatten()
            drawn = alike[drawn % len(alike)]
        partners = torch.cat([torch.tensor([i]), drawn])
        weights[i] = torch.zeros(of).index_add(0, partners, share / share.sum())
    return weights


def disturb(spectra: Tensor, step_ev: float, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Shift and broaden (N, F) spectra that lie on a uniform grid of ``step_ev`` by random amounts."""
    n = len(spectra)
    on = (torch.rand(n, 1, generator=generator) < settings.disturbed).float()
    sigma = settings.broadening_ev * torch.rand(n, 1, generator=generator) * on
    shift = settings.shift_ev * (2 * torch.rand(n, 1, generator=generator) - 1) * on
    return shifted(spectra, step_ev, shift, sigma)


def shifted(spectra: Tensor, step_ev: float, shift: Tensor, sigma: Tensor) -> Tensor:
    """(N, F) spectra moved up by ``shift`` and broadened by ``sigma`` (both (N, 1), eV), in one Fourier product."""
    points = spectra.shape[1]
    pad = math.ceil(PAD_EV / step_ev)
    padded = torch.nn.functional.pad(spectra.unsqueeze(1), [pad, pad], mode="replicate").squeeze(1)
    f = torch.fft.rfftfreq(padded.shape[1], step_ev)
    decay = torch.exp(-2 * (math.pi * f * sigma) ** 2)
    turned = torch.fft.rfft(padded) * decay * torch.exp(-2j * math.pi * f * shift)
    return torch.fft.irfft(turned, n=padded.shape[1])[:, pad : pad + points]


def add_noise(aligned: Tensor, slope_shape: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Noise and a leftover of the post-edge curve on (N, G) spectra; ``slope_shape`` (G,) runs from 0 to 1."""
    n = len(aligned)
    on = (torch.rand(n, 1, generator=generator) < settings.disturbed).float()
    sigma = settings.noise * torch.rand(n, 1, generator=generator) * on
    slope = settings.slope * (2 * torch.rand(n, 1, generator=generator) - 1) * on
    return aligned * (1 + slope * slope_shape) + sigma * torch.randn(aligned.shape, generator=generator)
