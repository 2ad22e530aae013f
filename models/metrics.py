"""How good a model is: the paper's figures of merit, and calibrated intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax

from ..agent.errors import InputError
from ..agent.grid import Array


def scores(
    true: Mapping[str, Array], predicted: Mapping[str, Array], classified: tuple[str, ...]
) -> dict[str, float]:
    """Weighted F1 of the classified descriptors and R² of the regressed ones.

    Both mappings hold (N,) per descriptor; rows whose true value is NaN do not count.
    """
    try:
        from sklearn.metrics import f1_score, r2_score
    except ImportError:
        raise InputError("training and evaluation need the [train] extra: pip install 'xas-agent[train]'") from None

    found: dict[str, float] = {}
    for name, value in predicted.items():
        known = ~np.isnan(true[name])
        t, p = true[name][known], value[known]
        if name in classified:
            zero: Any = 0.0  # scikit-learn annotates it as a string
            found[name] = float(f1_score(t.astype(int), p.astype(int), average="weighted", zero_division=zero))
        else:
            found[name] = float(r2_score(t, p))
    return found


TEMPERATURES = np.geomspace(0.5, 5.0, 47)


def temperature(logits: Sequence[Array], labels: Sequence[Array]) -> float:
    """The temperature at which held-out labels are most likely (Guo et al., ICML 2017).

    Parameters
    ----------
    logits, labels : groups of (n, classes) logits and (n,) indices of the true class
    """

    def surprise(t: float) -> float:
        total = 0.0
        for z, y in zip(logits, labels, strict=True):
            total -= log_softmax(z / t, axis=1)[np.arange(len(y)), y.astype(int)].sum()
        return total

    return float(min(TEMPERATURES, key=surprise))


def conformal_scale(error: Array, sd: Array, coverage: float) -> float:
    """Factor on ``sd`` whose interval holds ``coverage`` of rows like these.

    Split-conformal with normalised residuals (Lei et al., JASA 113, 1094, 2018): the finite-sample quantile of
    |error| / sd.
    """
    ratio = np.sort(np.abs(error) / sd)
    rank = int(np.ceil((len(ratio) + 1) * coverage)) - 1
    return float(ratio[min(rank, len(ratio) - 1)])
