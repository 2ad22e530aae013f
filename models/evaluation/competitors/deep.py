"""Deep competitors: other networks, trained like the SPT on all descriptors together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ....agent.types import Array, Settings
from ...network import SPTShape
from ...training import Augmentation, Scale, Targets, TrainingPlan, continued, train_member
from ..contract import Fitted, Predictions, Spectra
from .networks import ArithmeticSizes, CNNSizes, Joint, TokenSizes, amformer, cnn, ft_transformer

_BATCH_ROWS = 512  # number of rows per prediction, which fit the cache of a core
_NO_AUGMENTATION = Augmentation(disturbed=0.0, mixed=0.0)


class DeepSettings(Settings):
    """Training of a deep competitor."""

    epochs: int = 60
    batch: int = 64
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 0.05
    augmented: bool = True
    """Whether the training spectra are disturbed and mixed as for the SPT."""


@dataclass
class TrainedCompetitor:
    """A trained network, with the scales of its input and output."""

    network: nn.Module
    scale: Scale
    classified: Mapping[str, int]
    """Number of classes, by descriptor."""
    regressed: Sequence[str]
    mean: Tensor
    sd: Tensor
    """(R,) standard deviations of the regressed quantities among the training rows."""

    def __post_init__(self) -> None:
        self.parameters = sum(p.numel() for p in self.network.parameters())

    def predict(self, spectra: Spectra) -> Predictions:
        """Predict the descriptors of aligned spectra (N, G)."""
        with torch.no_grad():
            parts = [self.network(self.scale.apply(x)) for x in torch.as_tensor(spectra).split(_BATCH_ROWS)]
        logits, mean, log_variance = (torch.cat(p).squeeze(1) for p in zip(*parts, strict=True))
        each = logits.split(list(self.classified.values()), dim=1)
        value, spread = mean * self.sd + self.mean, torch.exp(log_variance / 2) * self.sd
        return Predictions(
            {d: as_array(z) for d, z in zip(self.classified, each, strict=True)},
            {d: as_array(value[:, j]) for j, d in enumerate(self.regressed)},
            {d: as_array(spread[:, j]) for j, d in enumerate(self.regressed)},
        )


def standardised(targets: Targets, train: NDArray[np.int_]) -> Targets:
    """Standardise the targets by mean and standard deviation of the training rows."""
    values = (targets.regressed * targets.sd + targets.mean)[train].double().numpy()
    mean, sd = (torch.tensor(f(values, axis=0), dtype=torch.float32) for f in (np.nanmean, np.nanstd))
    regressed = (targets.regressed * targets.sd + targets.mean - mean) / sd
    return replace(targets, regressed=regressed, mean=mean, sd=sd)


def as_array(x: Tensor) -> Array:
    return x.double().numpy()


@dataclass(frozen=True)
class Deep:
    """A network as a competitor; its settings are the fields of ``sizes`` and of :class:`DeepSettings`."""

    name: str
    network: Callable[[SPTShape, Any], Joint]
    sizes: type[Settings]
    search: Sequence[Mapping[str, Any]]

    def fit(self, plan: TrainingPlan, train: NDArray[np.int_], settings: Mapping[str, Any], seed: int) -> Fitted:
        """Train on the rows ``train`` to the last epoch, since no rows remain for early stopping."""
        sizes = {k: v for k, v in settings.items() if k in self.sizes.model_fields}
        recipe = DeepSettings.model_validate({k: v for k, v in settings.items() if k not in sizes})
        schedule = plan.config.optimisation.model_copy(update=recipe.model_dump(exclude={"augmented"}))
        augmentation = plan.config.augmentation if recipe.augmented else _NO_AUGMENTATION
        config = plan.config.model_copy(update={"optimisation": schedule, "augmentation": augmentation})
        torch.manual_seed(seed)
        network = self.network(plan.shape, self.sizes.model_validate(sizes))
        spectra = continued(plan.clean[train])
        scale = Scale(spectra.mean(0), spectra.std(0) + 0.02)
        targets = standardised(plan.rows.targets, train)
        rows = replace(plan.rows, targets=targets)
        train_member(network, rows, train, scale, config, seed)
        counts = dict(zip(config.classified, (len(c) for c in targets.classes), strict=True))
        return TrainedCompetitor(network, scale, counts, config.regressed, targets.mean, targets.sd)


CNN = Deep(
    "cnn",
    cnn,
    CNNSizes,
    (
        {"width": 64, "dropout": 0.2, "augmented": True},
        {"width": 32, "dropout": 0.2, "augmented": True},
        {"width": 64, "dropout": 0.4, "augmented": True},
        {"width": 64, "dropout": 0.2, "augmented": False},
    ),
)
FT_TRANSFORMER = Deep(
    "ft-transformer",
    ft_transformer,
    TokenSizes,
    (
        {"width": 96, "epochs": 60, "augmented": True},
        {"width": 96, "epochs": 100, "augmented": True},
        {"width": 96, "epochs": 60, "augmented": False},
        {"width": 128, "epochs": 60, "augmented": True},
    ),
)
AMFORMER = Deep(
    "amformer",
    amformer,
    ArithmeticSizes,
    (
        {"width": 64, "epochs": 60, "augmented": True},
        {"width": 64, "epochs": 100, "augmented": True},
        {"width": 64, "epochs": 60, "augmented": False},
        {"width": 96, "epochs": 60, "augmented": True},
    ),
)
