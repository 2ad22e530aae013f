"""Disturbances of a beamline, applied to FEFF rows during training."""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...agent.types import STEP_WIDTH_EV, Settings
from ..card import DomainCard

MISFIT_EV = 4.0  # σ of the features of a misfit; narrower ones would look like fine structure
PAD_EV = 12.0  # reach of broadening and shift; the padding contains the jump of the periodic Fourier transform


class Augmentation(Settings):
    """Sizes of the disturbances; each is drawn uniformly up to its maximum for every spectrum."""

    disturbed: float = 0.7
    """Fraction of the spectra that are disturbed."""
    shift_ev: float = 0.5
    """Energy shift, ± eV: the remaining error of the energy calibration."""
    broadening_ev: float = 2.0
    """Largest σ of the Gaussian broadening, eV."""
    least_broadening_ev: float = Field(default=0.0, ge=0)
    """Smallest σ of the broadening of a disturbed spectrum, eV. Few spectra lie between computed and measured
    broadening; a range that begins near the measured one spends no rows on them."""
    amplitude: float = Field(default=0.0, ge=0, lt=1)
    """Relative change of the amplitude of the fine structure about a smooth step, ±."""
    scale: float = Field(default=0.0, ge=0, lt=0.5)
    """Relative error of the energy scale about the tabulated edge, ±."""
    misfit: float = Field(default=0.0, ge=0, lt=0.5)
    """Largest RMS of a smooth random curve that is added above the edge, relative to the edge step. FEFF and measured
    standards differ by 0.02 to 0.08 after all other differences are fitted (``xas-agent calibrate``)."""
    noise: float = 0.05
    """Largest σ of the noise relative to the edge step."""
    slope: float = 0.03
    """Change of the normalised μ over the grid above the edge, ±."""
    mixed: float = 0.3
    """Fraction of the spectra that are convex mixtures."""
    within_framework: bool = False
    """Whether to mix only rows with the same elements except alkali ions, as in one sample; every row then needs a
    formula."""
    mixture_max: int = 6
    """Largest number of spectra in a mixture; the smallest is 2."""
    cut: float = Field(default=0.5, ge=0, le=1)
    """Fraction of the spectra that are cut at a random end, if the grid has a ``short_stop_ev``."""

    @model_validator(mode="after")
    def _broadening_has_a_range(self) -> "Augmentation":
        if self.least_broadening_ev > self.broadening_ev:
            least, most = self.least_broadening_ev, self.broadening_ev
            raise ValueError(f"least_broadening_ev {least:g}: expected at most broadening_ev, {most:g}")
        return self

    def gaps(self, domain: DomainCard) -> list[str]:
        """Return, in words, the disturbances that do not include what the domain requires."""
        compared = (
            ("broadening_ev", self.broadening_ev, domain.broadening_ev),
            ("amplitude", self.amplitude, domain.amplitude_sd),
            ("scale", self.scale, domain.scale_sd),
        )
        gaps = [f"{name} {value:g}, needed {needed:g}" for name, value, needed in compared if value < needed]
        if self.least_broadening_ev > domain.broadening_ev:
            gaps.append(f"least_broadening_ev {self.least_broadening_ev:g}, needed at most {domain.broadening_ev:g}")
        return gaps


def mixtures(
    shape: tuple[int, ...], settings: Augmentation, generator: torch.Generator, group: Tensor | None = None
) -> Tensor:
    """Draw weights (..., n, n) that turn n rows into n rows, a fraction of them convex mixtures of two or more.

    Row i is always a part of mixture i, so that an epoch still contains every spectrum.

    Parameters
    ----------
    shape : (..., n), n rows of each of several sets
    generator : its device is that of the weights
    group : (..., n) number of each row's group, such as absorber or framework; only rows of one group are mixed
    """
    n, device = shape[-1], generator.device
    alone = torch.eye(n, device=device).expand(*shape, n)
    if settings.mixed <= 0 or n < 2:
        return alone
    sets, most = math.prod(shape[:-1]), settings.mixture_max

    def draw(*size: int) -> Tensor:
        return torch.rand(sets, n, *size, generator=generator, device=device)

    mixed = draw(1) < settings.mixed
    parts = torch.randint(2, most + 1, (sets, n, 1), generator=generator, device=device)
    share = -draw(most).clamp_min(1e-9).log()  # Dirichlet(1, …, 1)
    share = share * (torch.arange(most, device=device) < parts)
    if group is None:
        others = torch.randint(n, (sets, n, most - 1), generator=generator, device=device)
    else:
        alike = group.reshape(sets, n, 1) == group.reshape(sets, 1, n)
        others = alike.float().flatten(0, 1).multinomial(most - 1, replacement=True, generator=generator)
    own = torch.arange(n, device=device).expand(sets, n).unsqueeze(2)
    index = torch.cat([own, others.reshape(sets, n, most - 1)], dim=2)
    drawn = torch.zeros(sets, n, n, device=device).scatter_add(2, index, share / share.sum(2, keepdim=True))
    return torch.where(mixed, drawn, alone.reshape(sets, n, n)).reshape(*shape, n)


def disturb(
    spectra: Tensor, start_ev: float, step_ev: float, settings: Augmentation, generator: torch.Generator
) -> Tensor:
    """Shift, broaden, damp and stretch spectra (N, F) by random amounts.

    Parameters
    ----------
    start_ev, step_ev : first energy, relative to the tabulated edge, and step
    """
    n = len(spectra)

    def draw() -> Tensor:
        """Return (N, 1) uniform random numbers, 0 for spectra that are not disturbed."""
        return torch.rand(n, 1, generator=generator, device=generator.device) * on

    on = (torch.rand(n, 1, generator=generator, device=generator.device) < settings.disturbed).float()
    least = settings.least_broadening_ev
    sigma = least * on + (settings.broadening_ev - least) * draw()
    shift = settings.shift_ev * (2 * draw() - on)
    moved = shifted(spectra, step_ev, shift, sigma)
    if settings.amplitude > 0:
        moved = damped(moved, step_ev, 1 + settings.amplitude * (2 * draw() - on))
    if settings.scale > 0:
        moved = stretched(moved, start_ev, step_ev, 1 + settings.scale * (2 * draw() - on))
    if settings.misfit > 0:
        moved = moved + settings.misfit * draw() * moved.clamp(0, 1) * smooth_curves(moved, step_ev, generator)
    return moved


def smooth_curves(spectra: Tensor, step_ev: float, generator: torch.Generator) -> Tensor:
    """Draw a smooth random curve of mean square 1 for each spectrum (N, F): a Gaussian process in energy."""
    n, points = spectra.shape
    knots = math.ceil(points * step_ev / MISFIT_EV) + 1
    place = torch.arange(points, device=spectra.device) * step_ev
    distance = place - MISFIT_EV * torch.arange(knots, device=spectra.device).unsqueeze(1)
    bumps = torch.exp(-0.5 * (distance / MISFIT_EV) ** 2)
    drawn = torch.randn(n, knots, generator=generator, device=spectra.device)
    return drawn @ (bumps / bumps.square().sum(0).sqrt())


def shifted(spectra: Tensor, step_ev: float, shift: Tensor, sigma: Tensor) -> Tensor:
    """Move spectra (N, F) up by ``shift`` and broaden them by ``sigma`` (both (N, 1), eV), in one Fourier product."""
    points = spectra.shape[1]
    pad = math.ceil(PAD_EV / step_ev)
    padded = torch.nn.functional.pad(spectra.unsqueeze(1), [pad, pad], mode="replicate").squeeze(1)
    f = torch.fft.rfftfreq(padded.shape[1], step_ev, device=spectra.device)
    decay = torch.exp(-2 * (math.pi * f * sigma) ** 2)
    transformed = torch.fft.rfft(padded) * decay * torch.exp(-2j * math.pi * f * shift)
    return torch.fft.irfft(transformed, n=padded.shape[1])[:, pad : pad + points]


def damped(spectra: Tensor, step_ev: float, amplitude: Tensor) -> Tensor:
    """Damp the fine structure of spectra (N, F): the ``amplitude`` (N, 1) of the spectrum plus the rest of a step.

    This is the loss of amplitude by excitation of passive electrons (S0² of EXAFS; Rehr & Albers, Rev. Mod. Phys. 72,
    621, 2000). The step is an arctangent at the energy where the spectrum, of background 1, first reaches one half.
    """
    point = torch.arange(spectra.shape[1], dtype=spectra.dtype, device=spectra.device)
    above = (spectra >= 0.5).float().argmax(1, keepdim=True).clamp_min(1)
    after, before = spectra.gather(1, above), spectra.gather(1, above - 1)
    edge = above - ((after - 0.5) / (after - before).clamp_min(1e-6)).clamp(0, 1)
    step = 0.5 + torch.atan((point - edge) * step_ev / STEP_WIDTH_EV) / math.pi
    return amplitude * spectra + (1 - amplitude) * step


def stretched(spectra: Tensor, start_ev: float, step_ev: float, scale: Tensor) -> Tensor:
    """Multiply the energies of spectra (N, F), relative to the tabulated edge, by ``scale`` (N, 1)."""
    points = spectra.shape[1]
    energy = start_ev + step_ev * torch.arange(points, dtype=spectra.dtype, device=spectra.device)
    position = ((energy / scale - start_ev) / step_ev).clamp(0, points - 1)
    below = position.floor().clamp(max=points - 2)
    left, right = (spectra.gather(1, (below + k).long()) for k in (0, 1))
    return left + (position - below) * (right - left)


def add_noise(aligned: Tensor, slope_shape: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Add noise and a remaining post-edge slope to spectra (N, G); ``slope_shape`` (G,) runs from 0 to 1."""
    n, device = len(aligned), generator.device

    def draw() -> Tensor:
        return torch.rand(n, 1, generator=generator, device=device)

    on = (draw() < settings.disturbed).float()
    sigma = settings.noise * draw() * on
    slope = settings.slope * (2 * draw() - 1) * on
    noise = torch.randn(aligned.shape, generator=generator, device=device)
    return aligned * (1 + slope * slope_shape) + sigma * noise
