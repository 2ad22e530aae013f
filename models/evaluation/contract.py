"""What every competitor is given, and what it gives."""

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
    """What a competitor says of N spectra."""

    logits: dict[str, Array]
    """(N, classes) per classified descriptor, its softmax the probabilities; the order of classes is the plan's."""
    values: dict[str, Array]
    """(N,) per regressed quantity, in its own unit."""
    spreads: dict[str, Array] = field(default_factory=dict)
    """(N,) standard deviation per regressed quantity, from competitors that give one."""

    def probabilities(self, descriptor: str) -> Array:
        """(N, classes)"""
        return softmax(self.logits[descriptor], axis=1)

    def best(self, classes: Mapping[str, NDArray[np.int_]]) -> dict[str, Array]:
        """(N,) most probable class or value of every descriptor."""
        chosen = {d: classes[d][z.argmax(1)].astype(float) for d, z in self.logits.items()}
        return chosen | self.values


def averaged(members: Sequence[Predictions]) -> Predictions:
    """An ensemble: mean logits and values; the spread is the members' own and that among them."""
    first = members[0]
    logits = {d: np.mean([m.logits[d] for m in members], axis=0) for d in first.logits}
    values = {d: np.mean([m.values[d] for m in members], axis=0) for d in first.values}
    spreads: dict[str, Array] = {}
    for d in first.spreads:
        own = np.mean([m.spreads[d] ** 2 for m in members], axis=0)
        spreads[d] = np.sqrt(own + np.var([m.values[d] for m in members], axis=0))
    return Predictions(logits, values, spreads)


def classes_of(plan: TrainingPlan) -> dict[str, NDArray[np.int_]]:
    """The classes of every classified descriptor."""
    return dict(zip(plan.config.classified, plan.rows.targets.classes, strict=True))


class Fitted(Protocol):
    """A trained competitor."""

    @property
    def parameters(self) -> int:
        """Trained numbers: weights of a network; split thresholds and leaf values of trees."""
        ...

    def predict(self, spectra: Spectra) -> Predictions:
        """Answer for aligned spectra (N, G)."""
        ...


class Competitor(Protocol):
    """A recipe that can be trained on rows of a plan.

    Only ``plan.data``, ``plan.rows`` (labels, and spectra that can still be disturbed) and ``plan.clean`` (aligned)
    at the indices ``train`` may be looked at; missing labels (NaN) are left out descriptor by descriptor.
    """

    @property
    def name(self) -> str: ...

    @property
    def search(self) -> Sequence[Mapping[str, Any]]:
        """Settings to choose among on an inner split of the training materials, the default first."""
        ...

    def fit(self, plan: TrainingPlan, train: NDArray[np.int_], settings: Mapping[str, Any], seed: int) -> Fitted:
        """Train on the rows ``train`` with one of the settings."""
        ...
