"""Removal of noise from spectra before the network."""

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """A Wiener filter (1949) on the principal components of the noise-free training spectra, (N, G) → (N, G).

    Along a component of variance λ, a spectrum is shrunk by λ / (λ + σ²). The noise σ² is estimated from the spectrum
    itself: its variance outside the components, minus the variance that training spectra have there. A spectrum
    without noise does not change.
    """

    COMPONENTS = 48
    """Largest number of components; at most half the number of points, so that the others reveal the noise."""

    def __init__(self, grid_points: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(grid_points))
        self.register_buffer("axes", torch.zeros(grid_points, min(self.COMPONENTS, grid_points // 2)))
        self.register_buffer("variance", torch.ones(self.axes.shape[1]))
        self.register_buffer("remainder", torch.tensor(torch.inf))
        self.mean: Tensor
        self.axes: Tensor
        self.variance: Tensor
        self.remainder: Tensor
        """Variance of training spectra along a direction outside the components; before :meth:`fit` it is infinite,
        so that nothing is filtered."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean
        coordinates = centred @ self.axes
        rest = torch.addmm(centred, coordinates, -self.axes.T)
        # All variances are multiplied by the number of directions outside the components, which avoids a division.
        directions = float(len(self.axes) - self.axes.shape[1])
        outside = (rest * rest).sum(1, keepdim=True)
        noise = (outside - (self.remainder * directions).reshape(1)).clamp_min(0.0)
        removed = coordinates * (noise / (self.variance * directions + noise))
        share = noise / outside.clamp_min(1e-12)
        return torch.addmm(x, removed, -self.axes.T).addcmul(rest, share, value=-1.0)

    @torch.no_grad()
    def fit(self, spectra: Tensor) -> None:
        """Fit the filter to noise-free training spectra (N, G)."""
        self.mean.copy_(spectra.mean(0))
        _, s, v = torch.linalg.svd((spectra - self.mean).double(), full_matrices=False)
        variance, kept = s.square() / len(spectra), self.axes.shape[1]
        self.axes.copy_(v[:kept].T)
        self.variance.copy_(variance[:kept])
        self.remainder.copy_(variance[kept:].sum() / (spectra.shape[1] - kept))
