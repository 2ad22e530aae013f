"""The exported module: an ensemble of SPTs with scaling, recall, denoiser and out-of-distribution score."""

from copy import deepcopy
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from .denoiser import Denoiser
from .ood import OODScore
from .recall import Recall
from .shape import SPTShape
from .spt import SPT


class Served(nn.Module):
    """Aligned spectra (N, G) → (N, columns) in the order of :class:`~xas_agent.models.card.Card`.

    A member blends the probabilities of its heads, at a temperature per descriptor, with those of the recalled sites,
    with a share per descriptor; temperatures and shares are fitted on held-out rows. The logarithms of the members'
    probabilities are averaged. A regressed quantity is the members' mean. Its variance is the mean of the members'
    variances, each the sum of the head's variance and that of the blend of head and recall. The variance among
    members is left out, since intervals are calibrated with fewer members, or one, on rows held out from them.

    If spectra may end before the grid (``shape.short_points``), denoiser and out-of-distribution score use the points
    that every spectrum has.

    Parameters
    ----------
    shape : sizes of the networks
    sites : number of training sites to recall
    outliers : number of examples for the out-of-distribution score
    """

    def __init__(self, shape: SPTShape, sites: int, outliers: int = OODScore.OUTLIERS) -> None:
        super().__init__()
        self.spt = SPT(shape)
        self.recall = Recall(shape.members, sites, shape.key, shape.classes, shape.regressed)
        self.classes = list(shape.classes)
        most = max(shape.classes, default=0)
        self.columns = [d * most + k for d, count in enumerate(shape.classes) for k in range(count)]
        """Column of each class if all descriptors have as many classes as the one with most."""
        for name in ("centre", "spread"):
            self.register_buffer(name, torch.zeros(shape.grid_points))
        for name in ("target_mean", "target_sd"):
            self.register_buffer(name, torch.ones(shape.regressed))
        self.register_buffer("temperature", torch.ones(len(shape.classes)))
        self.register_buffer("share", torch.zeros(len(shape.classes) + shape.regressed))
        self.centre: Tensor
        self.spread: Tensor
        self.target_mean: Tensor
        self.target_sd: Tensor
        self.temperature: Tensor
        self.share: Tensor
        self.short = shape.short_points or shape.grid_points
        self.denoiser = Denoiser(self.short)
        self.ood_score = OODScore(self.short, outliers=outliers)

    def forward(self, x: Tensor) -> Tensor:
        always_known = x.narrow(1, 0, self.short)
        denoised = self.denoiser(always_known)
        if self.short < len(self.centre):
            denoised = torch.cat([denoised, x.narrow(1, self.short, len(self.centre) - self.short)], dim=1)
        scaled = torch.addcmul(-self.centre / self.spread, denoised, self.spread.reciprocal())
        logits, mean, log_variance, query = self.spt.by_descriptor(scaled)
        recalled, recalled_values = self.recall.by_descriptor(query)
        share = self.share[len(self.classes) :]
        difference = recalled_values - mean
        value = torch.addcmul(mean, share, difference)
        variance = torch.addcmul(log_variance.exp(), share * (1 - share), difference * difference).sum(0)
        members = float(len(self.recall.keys))
        return torch.cat(
            [
                self.probabilities(logits, recalled),
                torch.addcmul(self.target_mean, value.sum(0), self.target_sd / members),
                variance.sqrt() * (self.target_sd * members**-0.5),
                self.ood_score(always_known).unsqueeze(1),
            ],
            dim=1,
        )

    @torch.no_grad()
    def round_weights(self) -> None:
        """Round the weights of the networks to half precision, in which :func:`save` stores them."""
        for weight in self.spt.parameters():
            weight.copy_(weight.half())

    def probabilities(self, logits: Tensor, recalled: Tensor) -> Tensor:
        """Blend heads and recall, each (members, N, descriptors, classes), to probabilities (N, sum of classes).

        All descriptors have as many classes as the one with most; logits of surplus classes are −∞.
        """
        share = self.share[: len(self.classes)].unsqueeze(1)
        from_heads = torch.softmax(logits / self.temperature.unsqueeze(1), dim=3)
        blended = torch.lerp(from_heads, recalled, share).clamp_min(1e-9).log().sum(0)
        device = self.temperature.device  # device of a weight, so that torch.jit.freeze computes the following once
        counts = torch.tensor(self.classes, device=device).unsqueeze(1)
        beyond = torch.zeros(counts.shape[0], max(self.classes), device=device).masked_fill(
            torch.arange(max(self.classes), device=device) >= counts, float("-inf")
        )
        every = torch.softmax(beyond.unsqueeze(0).add(blended, alpha=1.0 / len(logits)), dim=2).flatten(1)
        return every.index_select(1, torch.tensor(self.columns, device=device))


def save(served: Served, path: Path, weights: torch.dtype = torch.float16) -> None:
    """Write a module as TorchScript; its networks' weights are stored as ``weights``, half precision by default.

    The weights are most of the file. All buffers keep their types, since small variances and limits would become 0.
    Debugging records, which name the source files of this machine, are left out.
    """
    stored = deepcopy(served)
    for weight in stored.spt.parameters():
        weight.data = weight.data.to(weights)
    buffer = BytesIO()
    torch.jit.save(torch.jit.script(stored), buffer)
    with ZipFile(buffer) as whole, ZipFile(path, "w") as file:
        for record in whole.infolist():
            if not record.filename.endswith(".debug_pkl"):
                file.writestr(record, whole.read(record))
