"""Linear operators on spectra with one energy axis, whose results depend on a few neighbouring points each."""

import numpy as np

from ..types import Array

_BLOCK_RESULTS = 32  # number of results from one range of points
_BLOCK_PRODUCTS = 2**18  # size of one product: BLAS shares larger ones among threads, which wait for each other


class Banded:
    """A matrix with few non-zero values in each column, stored by blocks of columns.

    Parameters
    ----------
    matrix : (M, K), results for spectra that are 1 at one of the M points and 0 elsewhere
    """

    def __init__(self, matrix: Array) -> None:
        self._results = matrix.shape[1]
        self._blocks: list[tuple[slice, slice, Array]] = []
        """Range of points, range of results, and matrix of each block."""
        for first in range(0, self._results, _BLOCK_RESULTS):
            results = slice(first, first + _BLOCK_RESULTS)
            points = np.flatnonzero(matrix[:, results].any(axis=1))
            used = slice(int(points[0]), int(points[-1]) + 1) if len(points) else slice(0, 1)
            self._blocks.append((used, results, np.ascontiguousarray(matrix[used, results])))
        most = max((block.size for *_, block in self._blocks), default=1)
        self._rows = max(_BLOCK_PRODUCTS // most, 1)

    def __call__(self, mu: Array) -> Array:
        """Return the results, (N, K), for spectra (N, M)."""
        found = np.empty((len(mu), self._results))
        for k in range(0, len(mu), self._rows):
            rows = slice(k, k + self._rows)
            for points, results, block in self._blocks:
                np.matmul(mu[rows, points], block, out=found[rows, results])
        return found
