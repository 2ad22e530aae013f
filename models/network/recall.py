"""Recall: the labels of the training sites most similar to a spectrum.

Sites of one structure type have nearly the same spectrum, and a network that consists of weights alone blurs them.
The SPT therefore also compares sites: its latent vector is projected to a short query, the keys of the training sites
lie in the same space, and a softmax over squared distances weighs their labels (neighbourhood components: Goldberger
et al., NeurIPS 2004; with a deep embedding and a memory: Ye et al., Revisiting Nearest Neighbor for Tabular Data,
ICLR 2025).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_BARRED_SQUARE_DISTANCE = 1e4  # of a site that must not be recalled
_MIN_PROBABILITY = 1e-5  # of every class


class Recall(nn.Module):
    """Keys and labels of S training sites, for the networks of an ensemble side by side.

    Parameters
    ----------
    members, sites, key : number of networks, number of sites, and length of a key
    classes, regressed : see :class:`~xas_agent.models.network.spt.SPTShape`
    """

    def __init__(self, members: int, sites: int, key: int, classes: tuple[int, ...], regressed: int) -> None:
        super().__init__()
        self.classes = list(classes)
        self.far, self.least = _BARRED_SQUARE_DISTANCE, _MIN_PROBABILITY  # TorchScript sees attributes, not globals
        self.log_sharpness = nn.Parameter(torch.zeros(members, 1, 1))
        # The keys are the largest part of the file, and distances tolerate half precision.
        self.register_buffer("keys", torch.zeros(members, sites, key, dtype=torch.float16))
        self.register_buffer("labels", torch.zeros(len(classes), sites, dtype=torch.int16))
        self.register_buffer("targets", torch.zeros(sites, regressed))
        self.keys: Tensor
        self.labels: Tensor
        self.targets: Tensor

    @torch.no_grad()
    def learn(self, one_hot: list[Tensor], regressed: Tensor) -> None:
        """Store the labels of the S sites: (S, classes) per classified descriptor, (S, R) with NaN where missing."""
        for d, part in enumerate(one_hot):
            # Missing labels get an extra class behind the others, which is never read.
            self.labels[d] = torch.where(part.sum(1) > 0, part.argmax(1), part.shape[1])
        self.targets.copy_(regressed)

    def forward(self, query: Tensor, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log probabilities (N, members, sum of classes) and values (N, members, R), standardised.

        Parameters
        ----------
        query : (N, members, key)
        barred : (N, S) or (members, N, S) sites that may not be recalled: in training, those of the query's own
            material
        """
        # (members, N, key) and (members, S, key). In single precision the difference of large squares would make the
        # fourth digit of a frame's estimate depend on the other frames of its batch.
        q, k = query.transpose(0, 1).double(), self.keys.double()
        square = q.square().sum(2, keepdim=True) + k.square().sum(2).unsqueeze(1) - 2 * q @ k.transpose(1, 2)
        square = square.float()
        if barred is not None:
            square = square.masked_fill(barred, self.far)
        weight = torch.softmax(-square * self.log_sharpness.exp(), dim=2)
        by_site = weight.flatten(0, 1).T.contiguous()  # (S, members · N)
        by_class: list[Tensor] = []
        for d, count in enumerate(self.classes):
            per_class = by_site.new_zeros(count + 1, by_site.shape[1])
            per_class = per_class.index_add(0, self.labels[d].long(), by_site)[:count]
            by_class.append(per_class / per_class.sum(0, keepdim=True).clamp_min(self.least))
        shape = [query.shape[1], query.shape[0], -1]
        probabilities = torch.cat(by_class).T.reshape(shape).transpose(0, 1)
        known = (~self.targets.isnan()).float()
        values = (weight @ self.targets.nan_to_num()) / (weight @ known).clamp_min(self.least)
        return probabilities.clamp_min(self.least).log(), values.transpose(0, 1)


class MaterialGroups:
    """Materials of N sites; in training no site recalls sites of its own material.

    Parameters
    ----------
    material : (N,) material of each site
    device : of the tensors to come
    """

    def __init__(self, material: NDArray[np.str_], device: torch.device | None = None) -> None:
        self.number = torch.from_numpy(np.unique(material, return_inverse=True)[1]).to(device)

    def barred(self, weights: Tensor, index: Tensor, sites: Tensor) -> Tensor:
        """Sites that a mixture must not recall.

        Parameters
        ----------
        weights : (..., n, n) of the mixtures of the rows ``index`` (..., n)
        sites : (S,) indices of the sites

        Returns
        -------
        (..., n, S) True where a site shares a material with a part of the mixture.
        """
        same = self.number[index].unsqueeze(-1) == self.number[sites]
        return (weights > 0).float() @ same.float() > 0
