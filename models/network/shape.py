"""Sizes of a Spectral Pattern Translator, and the periods of its frequency bands."""

import torch
from pydantic import Field
from torch import Tensor

from ...agent.types import Settings

GATHERED_POINTS = 4  # number of grid points gathered into one vector before the latent layer


class SPTSizes(Settings):
    """Sizes of a network that a training config chooses."""

    width: int = 32
    """Channels of both branches."""
    blocks: int = 2
    """Blocks of each branch."""
    node_points: int = Field(default=1, ge=1, le=GATHERED_POINTS)
    """Grid points per spectral point (a node of the graph, a pixel of the bands)."""
    window: int = 3
    """Reach of the graph attention to either side, spectral points."""
    heads: int = 4
    """Attention heads."""
    latent: int = 128
    """Length of the latent vector."""
    gathered: int = 24
    """Number of channels that every four grid points pass to the latent layer."""
    key: int = 32
    """Length of the query that recalls training sites (:mod:`xas_agent.models.network.recall`)."""
    dropout: float = 0.1
    """Dropout rate in training."""
    frequency: bool = True
    """Whether the network has a frequency branch; ablations remove it."""
    graph: bool = True
    """Whether the network has a graph branch; ablations remove it."""
    frame_bands: int | None = None
    """Number of bands that each frame selects by its own spectrum, as in the paper. Unset: all bands."""


class SPTShape(SPTSizes):
    """All sizes of one SPT."""

    grid_points: int
    periods: tuple[int, ...]
    """Periods of the frequency bands, spectral points (:func:`dominant_periods`)."""
    classes: tuple[int, ...]
    """Number of classes of each classified descriptor."""
    regressed: int
    """Number of regressed quantities."""
    short_points: int | None = None
    """Number of leading points that every spectrum has. The others may be NaN (unknown), and a third channel tells
    the network which. Unset: all points are known, and there is no such channel."""
    members: int = 1
    """Number of independent networks side by side, as groups of channels. An ensemble takes as many operations as one
    network; their number limits the latency of a single frame and the time of a training. :func:`ensemble_weights`
    joins single networks."""

    @property
    def nodes(self) -> int:
        """Number of spectral points."""
        return -(-self.grid_points // self.node_points)


def dominant_periods(spectra: Tensor, count: int) -> tuple[int, ...]:
    """Return the ``count`` strongest distinct periods, in points, of (N, points) training spectra.

    This is the paper's selection of bands by FFT, averaged once over the training set instead of over each batch. The
    mean spectrum is subtracted first, since it does not distinguish spectra.
    """
    amplitude = torch.fft.rfft(spectra - spectra.mean(0), dim=1).abs().mean(0)
    periods: list[int] = []
    for k in amplitude[2:].argsort(descending=True).tolist():
        period = round(spectra.shape[1] / (k + 2))
        if period >= 3 and period not in periods:
            periods.append(period)
        if len(periods) == count:
            break
    return tuple(sorted(periods, reverse=True))
