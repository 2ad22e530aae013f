"""Interface of the competitors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ...agent.types import Array
from ..training import TrainingPlan

Spectra = NDArray[np.float32]
"""(N, G) aligned spectra on the grid of the plan."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a competitor for N spectra."""

    logits: dict[str, Array]
    """(N, classes) logits of each classified descriptor, in the plan's order of classes."""
    values: dict[str, Array]
    """(N,) values of each regressed quantity, in its unit."""
    spreads: dict[str, Array] = field(default_factory=dict)
    """(N,) standard deviations of each regressed quantity, from competitors that estimate them."""

    def probabilities(self, descriptor: str) -> Array:
        """Return the probabilities (N, classes) of a classified descriptor."""
        return softmax(self.logits[descriptor], axis=1)

    def best(self, classes: Mapping[str, NDArray[np.int_]]) -> dict[str, Array]:
        """Return the most probable class or the value (N,) of every descriptor."""
        chosen = {d: classes[d][z.argmax(1)].astype(float) for d, z in self.logits.items()}
        return chosen | self.values


def averaged(members: Sequence[Predictions]) -> Predictions:
    """Average an ensemble: mean logits and values; the spread combines the members' spreads and that among them."""
    first = members[0]
    logits = {d: np.mean([m.logits[d] for m in members], axis=0) for d in first.logits}
    values = {d: np.mean([m.values[d] for m in members], axis=0) for d in first.values}
    spreads: dict[str, Array] = {}
    for d in first.spreads:
        variance = np.mean([m.spreads[d] ** 2 for m in members], axis=0)
        spreads[d] = np.sqrt(variance + np.var([m.values[d] for m in members], axis=0))
    return Predictions(logits, values, spreads)


def classes_of(plan: TrainingPlan) -> dict[str, NDArray[np.int_]]:
    """Return the classes of every classified descriptor."""
    return dict(zip(plan.config.classified, plan.rows.targets.classes, strict=True))


class Fitted(Protocol):
    """A trained competitor."""

    @property
    def parameters(self) -> int:
        """Number of trained values: weights of a network, or split thresholds and leaf values of trees."""
        ...

    def predict(self, spectra: Spectra) -> Predictions:
        """Predict the descriptors of aligned spectra (N, G)."""
        ...


class Competitor(Protocol):
    """A method that can be trained on rows of a plan.

    It may use only ``plan.data``, ``plan.rows`` (labels, and spectra before disturbances) and ``plan.clean`` (aligned
    spectra), at the indices ``train``. Missing labels (NaN) are left out for each descriptor.
    """

    @property
    def name(self) -> str:
        """Name in tables and files."""
        ...

    @property
    def search(self) -> Sequence[Mapping[str, Any]]:
        """Settings to choose from on an inner split of the training materials; the default comes first."""
        ...

    def fit(self, plan: TrainingPlan, train: NDArray[np.int_], settings: Mapping[str, Any], seed: int) -> Fitted:
        """Train on the rows ``train`` with one of the settings."""
        ...
