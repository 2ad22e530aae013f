"""A model of which only the card is read until it estimates."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..agent.types import Array, Estimate, Estimator
from . import card as cards


class LazyModel:
    """A model folder whose network is loaded for its first estimate; implements :class:`Estimator`.

    Of all installed models, the spectra of some files need one or two, and an alignment needs none.

    Parameters
    ----------
    folder, device
        As for :class:`~xas_agent.models.runtime.Model`.

    Raises
    ------
    ModelError
        The folder is not a model, or its file does not match its card.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        card = cards.verify(folder)
        self._folder, self._device = folder, device
        self.name, self.sha256 = card.name, card.sha256
        self.grid, self.edge = card.grid.grid(), card.edge_of_absorber()
        self.absorber, self.edge_name = card.absorber, card.edge
        self.units = {d.name: d.unit for d in card.descriptors}
        self.reach = {d.name: d.reach() for d in card.descriptors}
        self.single_site = frozenset(d.name for d in card.descriptors if not d.mixture)

    @cached_property
    def _model(self) -> Estimator:
        from .runtime import Model  # which imports torch

        return Model(self._folder, self._device)

    def estimate(
        self, spectra: NDArray[np.float32], extra_sd: Mapping[str, Array] | None = None
    ) -> Sequence[Estimate]:
        """As :meth:`Estimator.estimate`."""
        return self._model.estimate(spectra, extra_sd)
