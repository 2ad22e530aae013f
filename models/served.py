"""The network that is shipped: an ensemble of SPTs, its scaling and its out-of-distribution score in one module."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own idiom

from .spt import SPT, SPTShape


class Served(nn.Module):
    """Aligned spectra (N, G) → (N, columns) in the order of :class:`~xas_agent.models.card.Card`.

    The members' logits are averaged and divided by a temperature per descriptor, fitted on held-out rows (Guo et
    al., ICML 2017). A regressed quantity is the members' mean, and its variance is their mean variance plus the
    variance among them (Lakshminarayanan et al., NeurIPS 2017).
    """

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        self.spt = SPT(shape)
        self.classes = list(shape.classes)
        for name in ("centre", "spread"):
            self.register_buffer(name, torch.zeros(shape.grid_points))
        for name in ("target_mean", "target_sd"):
            self.register_buffer(name, torch.ones(shape.regressed))
        self.register_buffer("temperature", torch.ones(len(shape.classes)))
        self.centre: Tensor
        self.spread: Tensor
        self.target_mean: Tensor
        self.target_sd: Tensor
        self.temperature: Tensor
        self.familiar = Familiarity(shape.grid_points)

    def forward(self, x: Tensor) -> Tensor:
        logits, mean, log_variance = self.spt((x - self.centre) / self.spread)
        variance = log_variance.exp().mean(1) + mean.var(1, correction=0)
        return torch.cat(
            [
                self.probabilities(logits.mean(1)),
                mean.mean(1) * self.target_sd + self.target_mean,
                variance.sqrt() * self.target_sd,
                self.familiar(x).unsqueeze(1),
            ],
            dim=1,
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over each descriptor's own classes, at its temperature."""
        parts: list[Tensor] = []
        for k, part in enumerate(logits.split(self.classes, dim=1)):
            parts.append(torch.softmax(part / self.temperature[k], dim=1))
        return torch.cat(parts, dim=1)


class Familiarity(nn.Module):
    """How unlike the training spectra a spectrum is: 1 is the edge of what was seen.

    Looks through a principal-component model of the augmented training spectra. How far a spectrum is from their
    centre within the components, and how much remains outside of them, are taken together (another compound: a
    metal; another normalisation); what remains at a single point is taken alone (a glitch). Either is divided by
    what ``QUANTILE`` of the training spectra stay under, and the larger is the score.
    """

    QUANTILE = 0.99

    def __init__(self, grid_points: int, components: int = 16) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(grid_points))
        self.register_buffer("axes", torch.zeros(grid_points, components))
        self.register_buffer("sd", torch.ones(components))
        self.register_buffer("usual", torch.ones(2))
        self.register_buffer("limits", torch.ones(2))
        self.mean: Tensor
        self.axes: Tensor
        self.sd: Tensor
        self.usual: Tensor
        self.limits: Tensor

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 2) distance within the components and remainder outside of them; (N,) remainder at one point."""
        off = x - self.mean
        within = off @ self.axes
        rest = off - within @ self.axes.T
        # A point is judged against its neighbours, so that a broad misfit does not count as a glitch.
        lone = rest[:, 1:-1] - (rest[:, :-2] + rest[:, 2:]) / 2
        # A misfit lies on one side over neighbouring points, noise does not: smoothing tells them apart.
        smooth = F.avg_pool1d(rest.unsqueeze(1), 5, 1).squeeze(1)
        both = torch.stack([(within / self.sd).square().mean(1), smooth.square().mean(1)], dim=1)
        return both.sqrt(), lone.abs().amax(1)

    def looks(self, x: Tensor) -> Tensor:
        """(N, 2): both distances together, and the worst point."""
        both, lone = self.parts(x)
        return torch.stack([(both / self.usual).square().sum(1).sqrt(), lone], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.looks(x) / self.limits).amax(1)

    @torch.no_grad()
    def fit(self, spectra: Tensor) -> None:
        """Learn from augmented training spectra (N, G), N well above the number of components."""
        self.mean.copy_(spectra.mean(0))
        _, s, v = torch.linalg.svd(spectra - self.mean, full_matrices=False)
        k = self.axes.shape[1]
        self.axes.copy_(v[:k].T)
        self.sd.copy_(s[:k] / len(spectra) ** 0.5)
        self.usual.copy_(torch.quantile(self.parts(spectra)[0], self.QUANTILE, dim=0))
        self.limits.copy_(torch.quantile(self.looks(spectra), self.QUANTILE, dim=0))
