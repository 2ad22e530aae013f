"""The network that is shipped: an ensemble of SPTs, its scaling and its out-of-distribution score in one module."""

import torch
from torch import Tensor, nn

from .denoiser import Denoiser
from .ood import OODScore
from .recall import Recall
from .spt import SPT, SPTShape


class Served(nn.Module):
    """Aligned spectra (N, G) → (N, columns) in the order of :class:`~xas_agent.models.card.Card`.

    A member's probabilities are those of its heads, at a temperature per descriptor, and those of the sites that it
    recalls, in a share per descriptor, both fitted on held-out rows; the members' are averaged in the logarithm. A
    regressed quantity is the members' mean. Its variance is the mean of each member's own: what its head gives and
    what head and recall disagree by. The variance among members is left out, so that what fewer of them, or one, err
    by on rows held out from them calibrates all together.

    Parameters
    ----------
    shape : of the networks
    sites : training sites to recall
    """

    def __init__(self, shape: SPTShape, sites: int) -> None:
        super().__init__()
        self.spt = SPT(shape)
        self.recall = Recall(shape.members, sites, shape.key, shape.classes, shape.regressed)
        self.classes = list(shape.classes)
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
        self.quieten = Denoiser(shape.grid_points)
        self.familiar = OODScore(shape.grid_points)

    def forward(self, x: Tensor) -> Tensor:
        logits, mean, log_variance, query = self.spt((self.quieten(x) - self.centre) / self.spread)
        recalled, recalled_values = self.recall(query)
        share = self.share[len(self.classes) :]
        apart = recalled_values - mean
        value = mean + share * apart
        variance = (log_variance.exp() + share * (1 - share) * apart.square()).mean(1)
        return torch.cat(
            [
                self.probabilities(logits, recalled),
                value.mean(1) * self.target_sd + self.target_mean,
                variance.sqrt() * self.target_sd,
                self.familiar(x).unsqueeze(1),
            ],
            dim=1,
        )

    def probabilities(self, logits: Tensor, recalled: Tensor) -> Tensor:
        """(N, sum of classes) from what heads and recall of each member say, (N, members, sum of classes)."""
        parts: list[Tensor] = []
        known = recalled.split(self.classes, dim=2)
        for k, part in enumerate(logits.split(self.classes, dim=2)):
            own = torch.softmax(part / self.temperature[k], dim=2)
            both = (1 - self.share[k]) * own + self.share[k] * known[k].exp()
            parts.append(torch.softmax(both.clamp_min(1e-9).log().mean(1), dim=1))
        return torch.cat(parts, dim=1)
