"""Noise taken off spectra before they are read."""

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """Takes noise off a spectrum as far as what was seen in training allows to tell it apart (Wiener, 1949).

    Along each principal component of the noise-free training spectra, of variance λ, a spectrum is shrunk by
    λ / (λ + σ²). σ² is found in the spectrum itself, from what it has outside of the components beyond what training
    spectra have there: a spectrum without noise is left as it is.
    """

    COMPONENTS = 48

    def __init__(self, grid_points: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(grid_points))
        self.register_buffer("axes", torch.zeros(grid_points, min(self.COMPONENTS, grid_points - 1)))
        self.register_buffer("variance", torch.ones(self.axes.shape[1]))
        self.register_buffer("remainder", torch.tensor(torch.inf))
        self.mean: Tensor
        self.axes: Tensor
        self.variance: Tensor
        self.remainder: Tensor
        """Variance along a direction outside of the components; before :meth:`fit` none is too large."""

    def forward(self, x: Tensor) -> Tensor:
        off = x - self.mean
        within = off @ self.axes
        rest = off - within @ self.axes.T
        outside = rest.square().sum(1, keepdim=True) / (x.shape[1] - self.axes.shape[1])
        noise = (outside - self.remainder).clamp_min(0.0)
        taken = within * (noise / (self.variance + noise))
        return x - taken @ self.axes.T - rest * (noise / (outside + 1e-12))

    @torch.no_grad()
    def fit(self, spectra: Tensor) -> None:
        """Learn from noise-free training spectra (N, G)."""
        self.mean.copy_(spectra.mean(0))
        _, s, v = torch.linalg.svd((spectra - self.mean).double(), full_matrices=False)
        variance, kept = s.square() / len(spectra), self.axes.shape[1]
        self.axes.copy_(v[:kept].T)
        self.variance.copy_(variance[:kept])
        self.remainder.copy_(variance[kept:].sum() / (spectra.shape[1] - kept))
