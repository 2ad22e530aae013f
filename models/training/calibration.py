"""Fits temperatures and shares of recall on held-out rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from ...agent.types import Array

_TEMPERATURES = np.geomspace(0.5, 5.0, 24)
_RECALL_SHARES = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class HeldOut:
    """Answers of m members for n rows that they were not trained on, by heads and recall separately."""

    index: NDArray[np.int_]
    """(n,) indices of the rows."""
    logits: Tensor
    """(n, m, sum of classes) logits of the heads."""
    mean: Tensor
    """(n, m, R) standardised means of the heads."""
    recalled: Tensor
    """(n, m, sum of classes) log probabilities from recall."""
    recalled_values: Tensor
    """(n, m, R) standardised values from recall."""


@dataclass(frozen=True)
class Blend:
    """The weights of heads and recall."""

    temperature: Tensor
    """(D,) temperature of each classified descriptor's logits (Guo et al., ICML 2017)."""
    share: Tensor
    """(D + R,) share of recall in each classified descriptor's probabilities and each regressed quantity's value."""

    @classmethod
    def heads_alone(cls, classified: int, regressed: int) -> "Blend":
        """Return the blend without recall, at temperature 1."""
        return cls(torch.ones(classified), torch.zeros(classified + regressed))


def fit_blend(held: Sequence[HeldOut], one_hot: Sequence[Tensor], regressed: Tensor, recall: bool) -> Blend:
    """Fit temperatures and shares: maximum likelihood for classes, least squares for regressed quantities.

    Parameters
    ----------
    held : answers for held-out rows
    one_hot, regressed : labels of all rows, as in :class:`~xas_agent.models.training.rows.Targets`
    recall : False leaves recall out
    """
    sizes = [part.shape[1] for part in one_hot]
    temperatures: list[float] = []
    shares: list[float] = []
    for d, label in enumerate(one_hot):
        logits: list[Array] = []
        recalled: list[Array] = []
        true: list[NDArray[np.int_]] = []
        for part in held:
            y = label[part.index]
            known = y.sum(1) > 0
            logits.append(part.logits.split(sizes, 2)[d][known].double().numpy())
            recalled.append(part.recalled.split(sizes, 2)[d][known].double().numpy())
            true.append(y[known].argmax(1).numpy())
        t, share = fit_temperature(np.concatenate(logits), np.concatenate(recalled), np.concatenate(true), recall)
        temperatures.append(t)
        shares.append(share)
    for r in range(regressed.shape[1]):
        y = torch.cat([regressed[part.index, r] for part in held])
        from_heads = torch.cat([part.mean[:, :, r].mean(1) for part in held])
        difference = torch.cat([part.recalled_values[:, :, r].mean(1) for part in held]) - from_heads
        known = ~y.isnan()
        best = ((y - from_heads) * difference)[known].sum() / difference[known].square().sum().clamp_min(1e-9)
        shares.append(float(best.clamp(0, 1)) if recall else 0.0)
    return Blend(torch.tensor(temperatures), torch.tensor(shares))


def fit_temperature(logits: Array, recalled: Array, true: NDArray[np.int_], recall: bool) -> tuple[float, float]:
    """Find the temperature and the share of recall for which the true classes (n,) are most likely.

    Probabilities are blended as in :meth:`~xas_agent.models.network.ensemble.Served.probabilities`.

    Parameters
    ----------
    logits, recalled : (n, m, classes) logits of the heads, log probabilities from recall
    """
    if len(true) == 0:
        return 1.0, 0.0
    rows = np.arange(len(true))
    recalled_probability = np.exp(recalled)
    lowest, best = np.inf, (1.0, 0.0)
    for t in _TEMPERATURES:
        from_heads = softmax(logits / t, axis=2)
        for share in _RECALL_SHARES if recall else _RECALL_SHARES[:1]:
            blended = np.log(np.maximum((1 - share) * from_heads + share * recalled_probability, 1e-9)).mean(1)
            surprise = -log_softmax(blended, axis=1)[rows, true].mean()
            if surprise < lowest:
                lowest, best = surprise, (float(t), float(share))
    return best
