"""What is fitted on rows that the member judging them has not trained on: temperatures and shares of recall."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from ...agent.types import Array

TEMPERATURES = np.geomspace(0.5, 5.0, 24)
SHARES = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class HeldOut:
    """What m members say of rows that they have not trained on; heads and recall apart."""

    index: NDArray[np.int_]
    """(n,) the rows."""
    logits: Tensor
    """(n, m, sum of classes)"""
    mean: Tensor
    """(n, m, R) standardised."""
    recalled: Tensor
    """(n, m, sum of classes) log probabilities."""
    recalled_values: Tensor
    """(n, m, R) standardised."""


@dataclass(frozen=True)
class Blend:
    """How heads and recall go together."""

    temperature: Tensor
    """(D,) of each classified descriptor's logits (Guo et al., ICML 2017)."""
    share: Tensor
    """(D + R,) of recall in each classified descriptor's probabilities and each regressed quantity's value."""

    @classmethod
    def heads_alone(cls, classified: int, regressed: int) -> "Blend":
        """No recall, no tempering."""
        return cls(torch.ones(classified), torch.zeros(classified + regressed))


def fit_blend(held: Sequence[HeldOut], one_hot: Sequence[Tensor], regressed: Tensor, recall: bool) -> Blend:
    """The temperatures and shares under which held-out labels are most likely, values least wrong.

    Parameters
    ----------
    one_hot, regressed : labels of all rows, as in :class:`~xas_agent.models.training.rows.Targets`
    recall : False leaves recall out
    """
    sizes = [part.shape[1] for part in one_hot]
    temperatures: list[float] = []
    shares: list[float] = []
    for d, label in enumerate(one_hot):
        own: list[Array] = []
        recalled: list[Array] = []
        true: list[NDArray[np.int_]] = []
        for part in held:
            y = label[part.index]
            known = y.sum(1) > 0
            own.append(part.logits.split(sizes, 2)[d][known].double().numpy())
            recalled.append(part.recalled.split(sizes, 2)[d][known].double().numpy())
            true.append(y[known].argmax(1).numpy())
        t, share = tempered(np.concatenate(own), np.concatenate(recalled), np.concatenate(true), recall)
        temperatures.append(t)
        shares.append(share)
    for r in range(regressed.shape[1]):
        y = torch.cat([regressed[part.index, r] for part in held])
        own_value = torch.cat([part.mean[:, :, r].mean(1) for part in held])
        apart = torch.cat([part.recalled_values[:, :, r].mean(1) for part in held]) - own_value
        known = ~y.isnan()
        best = ((y - own_value) * apart)[known].sum() / apart[known].square().sum().clamp_min(1e-9)
        shares.append(float(best.clamp(0, 1)) if recall else 0.0)
    return Blend(torch.tensor(temperatures), torch.tensor(shares))


def tempered(logits: Array, recalled: Array, true: NDArray[np.int_], recall: bool) -> tuple[float, float]:
    """Temperature and share of recall under which the true classes (n,) are most likely, by search.

    Members' probabilities, of (n, m, classes) logits and log probabilities recalled, are averaged in the logarithm,
    as :meth:`~xas_agent.models.network.ensemble.Served.probabilities` does.
    """
    if len(true) == 0:
        return 1.0, 0.0
    rows = np.arange(len(true))
    remembered = np.exp(recalled)
    best, found = np.inf, (1.0, 0.0)
    for t in TEMPERATURES:
        own = softmax(logits / t, axis=2)
        for share in SHARES if recall else SHARES[:1]:
            together = np.log(np.maximum((1 - share) * own + share * remembered, 1e-9)).mean(1)
            surprise = -log_softmax(together, axis=1)[rows, true].mean()
            if surprise < best:
                best, found = surprise, (float(t), float(share))
    return found
