"""Common methods for a series of spectra: PLS, and linear combinations of the end members."""

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
    """Numbers of components from which leave-one-group-out within the training rows chooses."""
    copies: int = Field(default=0, ge=0)
    """Number of disturbed copies of every training row; 0 trains on the rows alone."""
    shift_ev: float = 0.3
    """Energy error of a copy, ± eV."""
    broadening_ev: tuple[float, float] = (1.0, 2.0)
    """Range of the Gaussian σ of a copy, eV."""
    seed: int = 0
    """Seed of the copies."""


class PLS:
    """Partial least squares whose number of components is chosen by leaving out groups of the training rows.

    Parameters
    ----------
    rows : spectra before disturbances
    train : (n,) indices of the training rows
    values : (n,) labels of the training rows
    groups : (n,) group of each training row; rows of a group are left out together
    """

    def __init__(
        self, rows: Rows, train: NDArray[np.int_], values: Array, groups: NDArray[np.generic], settings: PLSSettings
    ) -> None:
        spectra, y, group = self._with_copies(rows, train, values, groups, settings)
        errors = {k: self._left_out(spectra, y, group, k) for k in settings.components}
        self.components = min(errors, key=lambda k: errors[k])
        self._fitted = PLSRegression(self.components, scale=False).fit(spectra, y)

    def predict(self, spectra: Array) -> Array:
        """Predict the values (n,) of aligned spectra (n, G)."""
        return self._fitted.predict(spectra).ravel()

    @staticmethod
    def _with_copies(
        rows: Rows, train: NDArray[np.int_], values: Array, groups: NDArray[np.generic], settings: PLSSettings
    ) -> tuple[Array, Array, NDArray[np.generic]]:
        fine = rows.fine[torch.as_tensor(train)]
        generator = torch.Generator().manual_seed(settings.seed)
        lowest, highest = settings.broadening_ev
        copies = [fine]
        for _ in range(settings.copies):
            shift = settings.shift_ev * (2 * torch.rand(len(fine), 1, generator=generator) - 1)
            sigma = lowest + (highest - lowest) * torch.rand(len(fine), 1, generator=generator)
            copies.append(shifted(fine, FINE_EV, shift, sigma))
        spectra = rows.aligned(torch.cat(copies)).double().numpy()
        return spectra, np.tile(values, len(copies)), np.tile(groups, len(copies))

    @staticmethod
    def _left_out(spectra: Array, y: Array, groups: NDArray[np.generic], components: int) -> float:
        """Return the mean squared error over left-out groups."""
        errors: list[float] = []
        for group in np.unique(groups):
            held = groups == group
            if components < min(spectra.shape[1], (~held).sum()):
                fitted = PLSRegression(components, scale=False).fit(spectra[~held], y[~held])
                errors.append(float(np.mean((fitted.predict(spectra[held]).ravel() - y[held]) ** 2)))
        return float(np.mean(errors)) if errors else np.inf


def end_member_share(spectra: Array, ends: Sequence[Array]) -> Array:
    """Return the share (n,) of the second end member (G,) in spectra (n, G), by least squares within 0 to 1."""
    first, second = ends
    difference = second - first
    return ((spectra - first) @ difference / (difference @ difference)).clip(0.0, 1.0)
