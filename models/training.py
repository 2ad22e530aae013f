"""Training an ensemble of Joint SPTs from FEFF rows, reproducibly from one config."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..agent.grid import Grid
from ..agent.settings import Settings
from .augment import Augmentation, add_noise, disturb, mixtures
from .card import GridCard, OffsetCard
from .data import FeffData
from .spt import SPT, STRIDE, SPTShape, SPTSizes

FINE_EV = 0.5  # spectra are disturbed on bins this fine and only then averaged over the grid's

Watch = Callable[[int, SPT], float | None]


class Network(SPTSizes):
    """Sizes of one SPT, and how many bands to look for in the training spectra."""

    bands: int = 4


class Optimisation(Settings):
    """AdamW under a one-cycle schedule."""

    epochs: int = 60
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    rows_per_epoch: int = 512
    """A smaller set is gone through several times an epoch, each time disturbed anew."""
    patience: int = 15
    """Epochs without a better validation score after which training stops; the best weights are kept."""
    regression_weight: float = 3.0
    """Of the regressed quantities' loss against one classified descriptor's."""


class TrainingConfig(Settings):
    """One model: data, network, optimisation."""

    name: str
    """Of the model folder that is written."""
    dataset: str
    """``DATASET.npz`` and ``DATASET.csv`` in the data folder."""
    absorber: str
    edge: str = "K"
    edge_ev: float
    grid: GridCard
    classified: tuple[str, ...] = ("OS", "CN", "OCN", "CN2", "PSGO")
    regressed: tuple[str, ...] = ("NNRS", "MOOD", "OS_mean")
    units: dict[str, str] = Field(default_factory=dict)
    lowest: dict[str, float] = Field(default_factory=lambda: {"NNRS": 0.0, "MOOD": 0.0})
    """Least value of a regressed descriptor that means anything."""
    not_for_mixtures: tuple[str, ...] = ("CN2", "PSGO")
    network: Network = Network()
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation = Optimisation()
    pretrained: str | None = None
    """Model name or folder whose members' weights training starts from."""
    protocol: Literal["split", "cross-validation"] = "split"
    """``split``: every member trains on ``train`` and is judged on ``val``. ``cross-validation``: the rows of both
    are cut into folds by material, member k never sees fold k, and every row is judged by the member that has not
    seen its material."""
    members: int = 4
    seed: int = 0
    feff_minus_experiment: OffsetCard
    licence: str
    sources: tuple[str, ...]
    cite: tuple[str, ...]


@dataclass
class Targets:
    """Labels of N rows as tensors; what is missing is masked."""

    one_hot: list[Tensor]
    """Per classified descriptor (N, classes); a row of zeros where the label is missing."""
    regressed: Tensor
    """(N, R) standardised; NaN where missing."""
    classes: list[NDArray[np.int_]]
    mean: Tensor
    sd: Tensor


@dataclass
class Rows:
    """Spectra and labels, ready to be disturbed."""

    fine: Tensor
    """(N, F) bin means on FINE_EV."""
    targets: Targets
    grid: Grid
    slope_shape: Tensor = field(init=False)

    def __post_init__(self) -> None:
        above = (self.grid.energy - 10.0) / (self.grid.stop_ev - 10.0)
        self.slope_shape = torch.tensor(above.clip(0, 1), dtype=torch.float32)
        self._foot, self._anchor = self.grid.window(self.grid.foot_ev), self.grid.window(self.grid.anchor_ev)

    def aligned(self, fine: Tensor) -> Tensor:
        """(n, F) fine spectra → (n, G) on the grid and its footing."""
        coarse = fine.reshape(len(fine), len(self.grid), -1).mean(2)
        return self.footing(coarse)

    def footing(self, coarse: Tensor) -> Tensor:
        """As :meth:`Grid.footing`, on tensors."""
        foot = coarse[:, self._foot].mean(1, keepdim=True)
        return (coarse - foot) / (coarse[:, self._anchor].mean(1, keepdim=True) - foot)

    def disturbed(self, weights: Tensor, index: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
        """Mixtures of the rows at ``index``, disturbed as a beamline would, (n, G)."""
        fine = disturb(weights @ self.fine[index], FINE_EV, how, generator)
        return self.footing(add_noise(self.aligned(fine), self.slope_shape, how, generator))


def prepare(data: FeffData, config: TrainingConfig, classes: list[NDArray[np.int_]] | None = None) -> Rows:
    """Bin the spectra finely and encode the labels; classes are those of ``data`` unless given."""
    grid = config.grid.grid()
    bins = round((grid.bounds[-1] - grid.bounds[0]) / FINE_EV)
    fine = data.on_bins(grid.bounds[0] + FINE_EV * np.arange(bins + 1), config.edge_ev)
    if classes is None:
        classes = [np.unique(v[~np.isnan(v)]).astype(int) for v in (data.labels[d] for d in config.classified)]
    one_hot = [
        torch.tensor(data.labels[d][:, None] == c, dtype=torch.float32)
        for d, c in zip(config.classified, classes, strict=True)
    ]
    regressed = np.stack([data.labels[d] for d in config.regressed], axis=1)
    mean, sd = np.nanmean(regressed, axis=0), np.nanstd(regressed, axis=0)
    targets = Targets(
        one_hot,
        torch.tensor((regressed - mean) / sd, dtype=torch.float32),
        classes,
        torch.tensor(mean, dtype=torch.float32),
        torch.tensor(sd, dtype=torch.float32),
    )
    return Rows(torch.tensor(fine, dtype=torch.float32), targets, grid)


def joint_loss(
    output: tuple[Tensor, Tensor, Tensor], targets: Targets, weights: Tensor, index: Tensor, balance: float
) -> Tensor:
    """Cross entropy of every classified descriptor plus Gaussian likelihood of every regressed one.

    A mixture's label is the mixture of its parts' labels, and counts only where all parts have one.
    """
    logits, mean, log_variance = (part.squeeze(1) for part in output)  # of the only member
    sizes = [len(c) for c in targets.classes]
    loss = logits.new_zeros(())
    for part, one_hot in zip(logits.split(sizes, dim=1), targets.one_hot, strict=True):
        label = weights @ one_hot[index]
        known = label.sum(1) > 0.999
        if known.any():
            loss = loss - (label * torch.log_softmax(part, dim=1)).sum(1)[known].mean()
    target = targets.regressed[index]
    known = (weights > 0).float() @ target.isnan().float() == 0
    label = weights @ target.nan_to_num()
    likelihood = 0.5 * (log_variance + (label - mean).square() * torch.exp(-log_variance))
    return loss + balance * likelihood[known].mean()


@dataclass(frozen=True)
class Scale:
    """Centre and spread of every grid point over the training rows."""

    centre: Tensor
    spread: Tensor

    def apply(self, spectra: Tensor) -> Tensor:
        """(N, G) aligned spectra as the network reads them."""
        return (spectra - self.centre) / self.spread


@dataclass(frozen=True)
class Member:
    """A trained network and how training went."""

    network: SPT
    epochs: int
    """After which its weights were kept."""
    seconds: float


def train_member(
    start: SPT, rows: Rows, train: NDArray[np.int_], scale: Scale, config: TrainingConfig, seed: int, watch: Watch
) -> Member:
    """Train one network on the rows ``train``.

    ``watch`` is called after every epoch with (epoch from 1, network) and gives its validation score; the weights
    of the best score are kept. Where it gives None there is nothing to choose by, and the last weights are kept.
    """
    began, o = time.perf_counter(), config.optimisation
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    index = torch.as_tensor(train)
    batch = min(o.batch, len(index))
    steps = max(len(index), o.rows_per_epoch) // batch
    optimiser = torch.optim.AdamW(start.parameters(), lr=o.learning_rate, weight_decay=o.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, o.learning_rate, total_steps=steps * o.epochs)
    best, best_epoch, kept = -np.inf, o.epochs, None
    for epoch in range(1, o.epochs + 1):
        start.train()
        rounds = steps * batch // len(index) + 1
        order = torch.cat([index[torch.randperm(len(index), generator=generator)] for _ in range(rounds)])
        for chosen in order[: steps * batch].split(batch):
            weights = mixtures(batch, batch, config.augmentation, generator)
            spectra = rows.disturbed(weights, chosen, config.augmentation, generator)
            loss = joint_loss(start(scale.apply(spectra)), rows.targets, weights, chosen, o.regression_weight)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(start.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        score = watch(epoch, start.eval())
        if score is not None and score > best:
            best, best_epoch = score, epoch
            kept = {k: v.clone() for k, v in start.state_dict().items()}
        elif kept is not None and epoch - best_epoch >= o.patience:
            break
    if kept is not None:
        start.load_state_dict(kept)
    return Member(start.eval(), best_epoch, time.perf_counter() - began)


def folds(material: NDArray[np.str_], count: int, seed: int) -> list[NDArray[np.int_]]:
    """Row indices of ``count`` folds of like size; all rows of a material are in one fold."""
    names = np.unique(material)
    np.random.default_rng(seed).shuffle(names)
    return [np.flatnonzero(np.isin(material, names[k::count])) for k in range(count)]


def cropped(weights: dict[str, Tensor], shape: SPTShape) -> dict[str, Tensor]:
    """Weights of a longer grid cut to one with the same start and step; heads of other classes are left out.

    Only the place vector, the attention's border mask and the first latent layer know the grid's length.
    """
    fresh = SPT(shape).state_dict()
    kept: dict[str, Tensor] = {}
    for name, new in fresh.items():
        old = weights[name]
        if name == "latent.1.weight":
            points = shape.grid_points // STRIDE
            old = old.reshape(len(old), shape.gathered, -1)[:, :, :points].flatten(1)
        elif name == "embedding.place":
            old = old[:, :, : shape.grid_points]
        kept[name] = old if old.shape == new.shape and not name.endswith("outside") else new
    return kept
