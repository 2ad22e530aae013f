"""Recall: what the training sites that look most like a spectrum are labelled.

Sites of the same structure type give nearly the same spectrum, and a network that only has weights blurs them. So the
SPT also compares: its latent vector is projected to a short query, training sites lie there as keys, and a softmax
over squared distances weighs their labels (neighbourhood components: Goldberger et al., NeurIPS 2004; with a deep
embedding and a memory: Ye et al., Revisiting Nearest Neighbor for Tabular Data, ICLR 2025).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FAR = 1e4  # squared distance of a site that must not be recalled
LEAST = 1e-5  # probability that every class keeps


class Recall(nn.Module):
    """Keys and labels of S training sites, for the networks of an ensemble side by side.

    Parameters
    ----------
    members, sites, key : number of networks, of sites, and length of a key
    classes, regressed : as of :class:`~xas_agent.models.network.spt.SPTShape`
    """

    def __init__(self, members: int, sites: int, key: int, classes: tuple[int, ...], regressed: int) -> None:
        super().__init__()
        self.classes = list(classes)
        self.far, self.least = FAR, LEAST  # TorchScript sees attributes, not globals
        self.log_sharpness = nn.Parameter(torch.zeros(members, 1, 1))
        # Half precision in the file: keys are what it is largest by, and distances forgive it.
        self.register_buffer("keys", torch.zeros(members, sites, key, dtype=torch.float16))
        self.register_buffer("labels", torch.zeros(len(classes), sites, dtype=torch.int16))
        self.register_buffer("targets", torch.zeros(sites, regressed))
        self.keys: Tensor
        self.labels: Tensor
        self.targets: Tensor

    @torch.no_grad()
    def learn(self, one_hot: list[Tensor], regressed: Tensor) -> None:
        """Take the labels of the S sites: (S, classes) per classified descriptor, (S, R) with NaN where missing."""
        for d, part in enumerate(one_hot):
            # What is missing gets a class of its own behind the others, which is never read.
            self.labels[d] = torch.where(part.sum(1) > 0, part.argmax(1), part.shape[1])
        self.targets.copy_(regressed)

    def forward(self, query: Tensor, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log probabilities (N, members, sum of classes) and values (N, members, R), standardised.

        Parameters
        ----------
        query : (N, members, key)
        barred : (N, S) sites that may not be recalled: in training, those of the query's own material
        """
        # (members, N, key) and (members, S, key). The difference of large squares needs the digits: in single
        # precision a frame's answer would depend in the fourth on what else is in its batch.
        q, k = query.transpose(0, 1).double(), self.keys.double()
        square = q.square().sum(2, keepdim=True) + k.square().sum(2).unsqueeze(1) - 2 * q @ k.transpose(1, 2)
        square = square.float()
        if barred is not None:
            square = square.masked_fill(barred, self.far)
        weight = torch.softmax(-square * self.log_sharpness.exp(), dim=2)
        by_site = weight.flatten(0, 1).T.contiguous()  # (S, members · N)
        said: list[Tensor] = []
        for d, count in enumerate(self.classes):
            per_class = by_site.new_zeros(count + 1, by_site.shape[1])
            per_class = per_class.index_add(0, self.labels[d].long(), by_site)[:count]
            said.append(per_class / per_class.sum(0, keepdim=True).clamp_min(self.least))
        shape = [query.shape[1], query.shape[0], -1]
        probabilities = torch.cat(said).T.reshape(shape).transpose(0, 1)
        known = (~self.targets.isnan()).float()
        values = (weight @ self.targets.nan_to_num()) / (weight @ known).clamp_min(self.least)
        return probabilities.clamp_min(self.least).log(), values.transpose(0, 1)


class MaterialGroups:
    """Which sites are of which material, so that in training none recalls its own (N sites in all)."""

    def __init__(self, material: NDArray[np.str_]) -> None:
        self.of = torch.from_numpy(np.unique(material, return_inverse=True)[1])

    def barred(self, weights: Tensor, index: Tensor, sites: Tensor) -> Tensor:
        """(n, S): sites that share a material with a part of mixture ``weights`` (n, n) of the rows ``index``."""
        same = self.of[index].unsqueeze(1) == self.of[sites]
        return (weights > 0).float() @ same.float() > 0
