"""What a beamline does to a spectrum, done to FEFF rows while training."""

import math

import torch
from pydantic import Field
from torch import Tensor

from ...agent.types import STEP_WIDTH_EV, Settings
from ..card import DomainCard

PAD_EV = 12.0  # what broadening and shift may reach over; the jump of the periodic transform lies in its middle


class Augmentation(Settings):
    """Sizes of the disturbances; each is drawn per spectrum, uniformly up to its maximum."""

    disturbed: float = 0.7
    """Fraction of the spectra that are disturbed."""
    shift_ev: float = 0.5
    """Energy shift, ± eV: the error that calibration leaves."""
    broadening_ev: float = 2.0
    """Largest σ of the Gaussian broadening, eV."""
    amplitude: float = Field(default=0.0, ge=0, lt=1)
    """Relative change of the amplitude of the fine structure about a smooth step, ±."""
    scale: float = Field(default=0.0, ge=0, lt=0.5)
    """Relative error of the energy scale about the tabulated edge, ±."""
    noise: float = 0.05
    """Largest σ of the noise relative to the edge step."""
    slope: float = 0.03
    """Change of the normalised μ over the grid above the edge, ±."""
    mixed: float = 0.3
    """Fraction of the spectra that are convex mixtures."""
    within_framework: bool = False
    """Whether to mix only rows with the same elements, alkali ions aside, as in one sample; every row then needs a
    formula."""
    mixture_max: int = 6
    """Largest number of spectra in a mixture; the smallest is 2."""

    def short_of(self, domain: DomainCard) -> list[str]:
        """What of the domain these do not rehearse, in words."""
        compared = (
            ("broadening_ev", self.broadening_ev, domain.broadening_ev, self.broadening_ev < domain.broadening_ev),
            ("amplitude", self.amplitude, domain.amplitude_sd, self.amplitude < domain.amplitude_sd),
            ("scale", self.scale, domain.scale_sd, self.scale < domain.scale_sd),
        )
        return [f"{name} {had:g}, needed {needed:g}" for name, had, needed, short in compared if short]


def mixtures(
    n: int, of: int, settings: Augmentation, generator: torch.Generator, group: Tensor | None = None
) -> Tensor:
    """Weights (n, of) that turn ``of`` rows into n rows, a fraction of them convex mixtures of 2 or more.

    Row i always keeps row i as its main part's partner, so that an epoch still sees every spectrum.

    Parameters
    ----------
    group : (of,) what only rows of the same number are mixed by, such as absorber or framework
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


def disturb(
    spectra: Tensor, start_ev: float, step_ev: float, settings: Augmentation, generator: torch.Generator
) -> Tensor:
    """Disturb (N, F) spectra that lie from ``start_ev`` (relative to the tabulated edge) in steps of ``step_ev``.

    They are broadened, damped, stretched and shifted by random amounts.
    """
    n = len(spectra)

    def drawn() -> Tensor:
        return torch.rand(n, 1, generator=generator) * on

    on = (torch.rand(n, 1, generator=generator) < settings.disturbed).float()
    sigma = settings.broadening_ev * drawn()
    shift = settings.shift_ev * (2 * drawn() - on)
    moved = shifted(spectra, step_ev, shift, sigma)
    if settings.amplitude > 0:
        moved = damped(moved, step_ev, 1 + settings.amplitude * (2 * drawn() - on))
    if settings.scale > 0:
        moved = stretched(moved, start_ev, step_ev, 1 + settings.scale * (2 * drawn() - on))
    return moved


def shifted(spectra: Tensor, step_ev: float, shift: Tensor, sigma: Tensor) -> Tensor:
    """(N, F) spectra moved up by ``shift`` and broadened by ``sigma`` (both (N, 1), eV), in one Fourier product."""
    points = spectra.shape[1]
    pad = math.ceil(PAD_EV / step_ev)
    padded = torch.nn.functional.pad(spectra.unsqueeze(1), [pad, pad], mode="replicate").squeeze(1)
    f = torch.fft.rfftfreq(padded.shape[1], step_ev)
    decay = torch.exp(-2 * (math.pi * f * sigma) ** 2)
    turned = torch.fft.rfft(padded) * decay * torch.exp(-2j * math.pi * f * shift)
    return torch.fft.irfft(turned, n=padded.shape[1])[:, pad : pad + points]


def damped(spectra: Tensor, step_ev: float, amplitude: Tensor) -> Tensor:
    """(N, F) spectra, background 1, of which ``amplitude`` (N, 1) stays and the rest becomes a smooth step.

    What a passive electron that is excited too takes from the structure (S0² of EXAFS; Rehr & Albers, Rev. Mod.
    Phys. 72, 621, 2000); the arctangent stands where the spectrum first reaches one half.
    """
    point = torch.arange(spectra.shape[1], dtype=spectra.dtype)
    above = (spectra >= 0.5).float().argmax(1, keepdim=True).clamp_min(1)
    after, before = spectra.gather(1, above), spectra.gather(1, above - 1)
    edge = above - ((after - 0.5) / (after - before).clamp_min(1e-6)).clamp(0, 1)
    step = 0.5 + torch.atan((point - edge) * step_ev / STEP_WIDTH_EV) / math.pi
    return amplitude * spectra + (1 - amplitude) * step


def stretched(spectra: Tensor, start_ev: float, step_ev: float, scale: Tensor) -> Tensor:
    """(N, F) spectra whose energies from the tabulated edge are multiplied by ``scale`` (N, 1)."""
    points = spectra.shape[1]
    energy = start_ev + step_ev * torch.arange(points, dtype=spectra.dtype)
    at = ((energy / scale - start_ev) / step_ev).clamp(0, points - 1)
    below = at.floor().clamp(max=points - 2)
    left, right = (spectra.gather(1, (below + k).long()) for k in (0, 1))
    return left + (at - below) * (right - left)


def add_noise(aligned: Tensor, slope_shape: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Noise and a leftover of the post-edge curve on (N, G) spectra; ``slope_shape`` (G,) runs from 0 to 1."""
    n = len(aligned)
    on = (torch.rand(n, 1, generator=generator) < settings.disturbed).float()
    sigma = settings.noise * torch.rand(n, 1, generator=generator) * on
    slope = settings.slope * (2 * torch.rand(n, 1, generator=generator) - 1) * on
    return aligned * (1 + slope * slope_shape) + sigma * torch.randn(aligned.shape, generator=generator)
