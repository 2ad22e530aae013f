"""The paper's figures of merit, and calibration of intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...agent.types import Array, InputError

_SAME_ROWS = 0.9  # share of a window's rows that a longer window must have for a comparison of their factors


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
    Scores by descriptor; NaN if too few rows are labelled.
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
    return _quantile(np.abs(error) / sd, coverage)


def window_scales(ratios: Sequence[Array], coverage: float) -> list[float]:
    """Return the conformal factors of windows, from the shortest to the longest.

    A longer spectrum of the same sample contains more information. If its factor would exceed that of a shorter one,
    the difference is noise of the quantiles, and the rows of both windows are pooled (pool adjacent violators: Barlow
    et al., Statistical Inference under Order Restrictions, 1972; for quantiles Casady and Cryer, Ann. Stat. 4, 532,
    1976). Windows are compared only as far as the same rows reach them: other rows are other samples, which may be
    harder, and each window must cover its own.

    Parameters
    ----------
    ratios : (n,) |error| / sd of the rows that reach each window; longer windows have fewer rows
    coverage : share of rows that the intervals cover
    """
    blocks: list[tuple[Array, int, int]] = []  # ratios, rows of the first window, number of windows
    for ratio in ratios:
        block = (ratio, len(ratio), 1)
        while blocks and len(ratio) >= _SAME_ROWS * blocks[-1][1]:
            pooled, rows, count = blocks[-1]
            if _quantile(block[0], coverage) <= _quantile(pooled, coverage):
                break
            block = (np.concatenate([pooled, block[0]]), rows, count + block[2])
            blocks.pop()
        blocks.append(block)
    return [_quantile(ratio, coverage) for ratio, _, count in blocks for _ in range(count)]


def _quantile(ratio: Array, coverage: float) -> float:
    """Return the finite-sample quantile of (n,) ratios."""
    rank = int(np.ceil((len(ratio) + 1) * coverage)) - 1
    return float(np.sort(ratio)[min(rank, len(ratio) - 1)])
