"""The paper's figures of merit, and calibration of intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...agent.types import Array, InputError


def scores(
    true: Mapping[str, Array], predicted: Mapping[str, Array], classified: tuple[str, ...]
) -> dict[str, float]:
    """Return weighted F1 of the classified descriptors and R² of the regressed ones.

    Parameters
    ----------
    true, predicted : (N,) per descriptor; rows whose true value is NaN do not count
    classified : names of the classified descriptors

    Returns
    -------
    Scores by descriptor; NaN where too few rows are labelled.
    """
    try:
        from sklearn.metrics import f1_score, r2_score
    except ImportError:
        raise InputError("training and evaluation need the [train] extra: pip install 'xas-agent[train]'") from None

    found: dict[str, float] = {}
    for name, value in predicted.items():
        known = ~np.isnan(true[name])
        t, p = true[name][known], value[known]
        if len(t) < (1 if name in classified else 2):
            found[name] = float("nan")
            continue
        if name in classified:
            zero: Any = 0.0  # scikit-learn annotates it as a string
            found[name] = float(f1_score(t.astype(int), p.astype(int), average="weighted", zero_division=zero))
        else:
            found[name] = float(r2_score(t, p))
    return found


def conformal_scale(error: Array, sd: Array, coverage: float) -> float:
    """Return the factor by which ``sd`` is multiplied to cover the given share of similar rows.

    This is split-conformal prediction with normalised residuals (Lei et al., JASA 113, 1094, 2018): the finite-sample
    quantile of |error| / sd.

    Parameters
    ----------
    error, sd : (n,) errors and standard deviations on rows that calibrate
    coverage : share of rows that the intervals cover

    Raises
    ------
    InputError
        There are no rows.
    """
    if len(error) == 0:
        raise InputError(
            "a descriptor has no label among the rows that calibrate; remove it from the training config"
        )
    ratio = np.sort(np.abs(error) / sd)
    rank = int(np.ceil((len(ratio) + 1) * coverage)) - 1
    return float(ratio[min(rank, len(ratio) - 1)])
