"""Recall: the labels of the training sites most similar to a spectrum.

Sites of one structure type have nearly equal spectra, which a network of weights alone blurs. The SPT therefore also
compares sites: its latent vector is projected to a short query, the keys of the training sites lie in the same space,
and a softmax over squared distances weighs their labels (neighbourhood components: Goldberger et al., NeurIPS 2004;
with a deep embedding and a memory: Ye et al., Revisiting Nearest Neighbor for Tabular Data, ICLR 2025).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_BARRED_SQUARE_DISTANCE = 1e4  # squared distance of a site that must not be recalled
_MIN_PROBABILITY = 1e-5  # smallest probability of each class
_MOST_IN_SINGLE = 128.0  # largest sharpness times squared key at which single precision suffices


class Recall(nn.Module):
    """Keys and labels of S training sites, for the networks of an ensemble side by side.

    Parameters
    ----------
    members, sites, key : number of networks, number of sites, and length of a key
    classes, regressed : see :class:`~xas_agent.models.network.shape.SPTShape`
    """

    def __init__(self, members: int, sites: int, key: int, classes: tuple[int, ...], regressed: int) -> None:
        super().__init__()
        self.classes, self.total, self.regressed = list(classes), sum(classes), regressed
        zero, first = self.total + 2 * regressed, [sum(classes[:d]) for d in range(len(classes))]
        self.columns = [
            start + k if k < n else zero for start, n in zip(first, classes, strict=True) for k in range(max(classes))
        ]
        """Column of every class of every descriptor in :meth:`table`."""
        self.far, self.least = _BARRED_SQUARE_DISTANCE, _MIN_PROBABILITY  # TorchScript sees attributes, not globals
        self.most_in_single = _MOST_IN_SINGLE
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
        """Store the labels of the S sites: (S, classes) per classified descriptor, (S, R) with NaN if missing."""
        for d, part in enumerate(one_hot):
            # Missing labels get an extra class after the others, which is never read.
            self.labels[d] = torch.where(part.sum(1) > 0, part.argmax(1), part.shape[1])
        self.targets.copy_(regressed)

    def forward(self, query: Tensor, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log probabilities (N, members, sum of classes) and standardised values (N, members, R).

        Parameters
        ----------
        query : (N, members, key)
        barred : (N, S) or (members, N, S) sites that must not be recalled: in training, those of the query's own
            material
        """
        per_class, values = self.by_descriptor(query.transpose(0, 1), barred)
        parts: list[Tensor] = []
        for d, count in enumerate(self.classes):
            parts.append(per_class[:, :, d, :count])
        return torch.cat(parts, dim=2).log().transpose(0, 1), values.transpose(0, 1)

    def by_descriptor(self, query: Tensor, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return probabilities (members, N, descriptors, classes) and values (members, N, R), as :meth:`forward`.

        All descriptors have as many classes as the one with most; surplus entries have no meaning.

        Parameters
        ----------
        query : (members, N, key)
        """
        m, n = self.keys.shape[0], query.shape[1]
        weight = torch.softmax(self.nearness(query, barred), dim=2)
        recalled = (weight.reshape(m * n, -1) @ self.table()).reshape(m, n, -1)
        columns = torch.tensor(self.columns, device=self.labels.device)
        per_class = recalled.index_select(2, columns).reshape(m, n, len(self.classes), -1)
        per_class = per_class / per_class.sum(3, keepdim=True).clamp_min(self.least)
        known = recalled.narrow(2, self.total, self.regressed)
        values = recalled.narrow(2, self.total + self.regressed, self.regressed)
        return per_class.clamp_min(self.least), values / known.clamp_min(self.least)

    def nearness(self, query: Tensor, barred: Tensor | None) -> Tensor:
        """Return the squared distances (members, N, S) to the sites, times −sharpness.

        Without ``barred``, terms that are equal for all sites are left out.

        The distances are differences of squares. Single precision would make their error larger than the allowed
        influence of other frames in the batch, unless all keys are near their mean.
        """
        centre = self.keys.float().mean(1, keepdim=True)
        sharpness, keys, query = self.log_sharpness.exp(), self.keys.float() - centre, query - centre
        if self.training or not self.single_serves():
            sharpness, keys, query = sharpness.double(), keys.double(), query.double()
        near = (2 * sharpness * keys).transpose(1, 2)
        out = torch.baddbmm((-sharpness * keys.square().sum(2, keepdim=True)).transpose(1, 2), query, near)
        if barred is None:  # the square of the query is equal for all sites
            return out.float()
        out = (out - sharpness * query.square().sum(2, keepdim=True)).float()
        return torch.where(barred, -self.far * sharpness.float(), out)

    def single_serves(self) -> bool:
        """Return whether single precision suffices for the distances."""
        keys = self.keys.float() - self.keys.float().mean(1, keepdim=True)
        largest = (self.log_sharpness.exp() * keys.square().sum(2, keepdim=True)).detach().max()
        return float(largest) <= self.most_in_single

    def table(self) -> Tensor:
        """Return (S, sum of classes + 2 R + 1): 1 for each site's class; 1 for known values; the values; and 0."""
        parts: list[Tensor] = []
        for d, count in enumerate(self.classes):
            parts.append((self.labels[d].unsqueeze(1) == torch.arange(count, device=self.labels.device)).float())
        known = (~self.targets.isnan()).float()
        return torch.cat(parts + [known, self.targets.nan_to_num(), torch.zeros_like(known[:, :1])], dim=1)


class MaterialGroups:
    """Materials of N sites; in training, no site recalls sites of its own material.

    Parameters
    ----------
    material : (N,) material of each site
    device : device of the tensors
    """

    def __init__(self, material: NDArray[np.str_], device: torch.device | None = None) -> None:
        self.number = torch.from_numpy(np.unique(material, return_inverse=True)[1]).to(device)

    def barred(self, weights: Tensor, index: Tensor, sites: Tensor) -> Tensor:
        """Return the sites that a mixture must not recall.

        Parameters
        ----------
        weights : (..., n, n) weights of the mixtures of the rows ``index`` (..., n)
        sites : (S,) indices of the sites

        Returns
        -------
        (..., n, S) True if a site shares a material with a part of the mixture.
        """
        same = self.number[index].unsqueeze(-1) == self.number[sites]
        return (weights > 0).float() @ same.float() > 0
