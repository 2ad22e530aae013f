"""What a beamline does with a series of spectra: PLS, and linear combinations of its end members."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.cross_decomposition import PLSRegression

from ....agent.types import Array, Settings
from ...training import FINE_EV, Rows, shifted


class PLSSettings(Settings):
    """Partial least squares on aligned spectra."""

    components: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Among which leaving out one group at a time within the training rows chooses."""
    copies: int = Field(default=0, ge=0)
    """Disturbed copies of every training row beside the row itself; 0 trains on the rows alone."""
    shift_ev: float = 0.3
    """± energy error of a copy."""
    broadening_ev: tuple[float, float] = (1.0, 2.0)
    """Between which the Gaussian σ of a copy is drawn."""
    seed: int = 0
    """Of the copies."""


class PLS:
    """A regression whose number of components is chosen by leaving out groups of its own training rows.

    Parameters
    ----------
    rows : spectra that can still be disturbed
    train : (n,) indices of the rows to learn from
    values, groups : (n,) what to learn, and which rows are left out together
    """

    def __init__(
        self, rows: Rows, train: NDArray[np.int_], values: Array, groups: NDArray[np.generic], how: PLSSettings
    ) -> None:
        spectra, y, group = self._with_copies(rows, train, values, groups, how)
        errors = {k: self._left_out(spectra, y, group, k) for k in how.components}
        self.components = min(errors, key=lambda k: errors[k])
        self._fitted = PLSRegression(self.components, scale=False).fit(spectra, y)

    def predict(self, spectra: Array) -> Array:
        """(n,) values of aligned spectra (n, G)."""
        return self._fitted.predict(spectra).ravel()

    @staticmethod
    def _with_copies(
        rows: Rows, train: NDArray[np.int_], values: Array, groups: NDArray[np.generic], how: PLSSettings
    ) -> tuple[Array, Array, NDArray[np.generic]]:
        fine = rows.fine[torch.as_tensor(train)]
        generator = torch.Generator().manual_seed(how.seed)
        least, most = how.broadening_ev
        found = [fine]
        for _ in range(how.copies):
            shift = how.shift_ev * (2 * torch.rand(len(fine), 1, generator=generator) - 1)
            sigma = least + (most - least) * torch.rand(len(fine), 1, generator=generator)
            found.append(shifted(fine, FINE_EV, shift, sigma))
        spectra = rows.aligned(torch.cat(found)).double().numpy()
        return spectra, np.tile(values, len(found)), np.tile(groups, len(found))

    @staticmethod
    def _left_out(spectra: Array, y: Array, groups: NDArray[np.generic], components: int) -> float:
        """Mean squared error over groups that were left out."""
        found: list[float] = []
        for group in np.unique(groups):
            held = groups == group
            if components < min(spectra.shape[1], (~held).sum()):
                fitted = PLSRegression(components, scale=False).fit(spectra[~held], y[~held])
                found.append(float(np.mean((fitted.predict(spectra[held]).ravel() - y[held]) ** 2)))
        return float(np.mean(found)) if found else np.inf


def end_member_share(spectra: Array, ends: Sequence[Array]) -> Array:
    """(n,) share of the second of two end members (G,) in each spectrum (n, G), by least squares within 0 to 1."""
    first, second = ends
    apart = second - first
    return ((spectra - first) @ apart / (apart @ apart)).clip(0.0, 1.0)
