"""Training an ensemble of Joint SPTs from FEFF rows, reproducibly from one config."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from ...agent.types.grid import Grid
from ...agent.types.settings import Settings
from ..card import DomainCard, GridCard, OffsetCard
from ..network.recall import Kinship, Recall
from ..network.spt import GATHERED_POINTS, SPT, SPTShape, SPTSizes
from .augment import Augmentation, add_noise, disturb, mixtures
from .data import FeffData

FINE_EV = 0.5  # spectra are disturbed on bins this fine and only then averaged over the grid's

N = TypeVar("N", bound=nn.Module)
Watch = Callable[[int, N], float | None]


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
    patience: int | None = None
    """Epochs without a better validation score after which training stops; the best weights are kept. None: the
    schedule runs to its end, and the last weights are kept."""
    regression_weight: float = 3.0
    """Of the regressed quantities' loss against one classified descriptor's."""
    recall_weight: float = 1.0
    """Of the loss of what is recalled against that of the heads; 0 trains without recall."""


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
    """The rows are cut into folds by material, and members never see some: what they say of those calibrates.
    ``split``: folds of ``train``; the ensemble is judged on ``val``. ``cross-validation``: folds of both, and every
    row is judged by the member that has not seen its material."""
    members: int = Field(default=5, ge=1)
    folds: int = Field(default=5, ge=2)
    """Of ``split``: at least as many as members; with more, each member sees more of the rows, and fewer rows
    calibrate. In cross-validation there are as many as members."""
    left_out: int = Field(default=1, ge=1)
    """Folds that each member leaves out, in a ring: member k the folds k, k + 1, … of the first ``members``. So many
    members judge each of those folds together: an ensemble errs less than its members, and is calibrated as one."""
    runs: int = Field(default=1, ge=1)
    """How often each member is fine-tuned from the same weights, in another order and disturbed otherwise; what is
    kept is the mean of the runs' weights, which errs less than one run and costs no more in serving (model soups:
    Wortsman et al., ICML 2022)."""
    seed: int = 0
    feff_minus_experiment: OffsetCard
    domain: DomainCard = DomainCard()
    """What augmentation must rehearse."""
    limits: tuple[str, ...] = ()
    """Where the model is not to be trusted, in sentences for its users."""
    licence: str
    sources: tuple[str, ...]
    cite: tuple[str, ...]

    @property
    def cuts(self) -> int:
        """How many folds there are."""
        return self.members if self.protocol == "cross-validation" else max(self.members, self.folds)

    @model_validator(mode="after")
    def _folds_fit_members(self) -> "TrainingConfig":
        if self.left_out > self.members or self.left_out >= self.cuts:
            raise ValueError(
                f"left_out {self.left_out}: at most the {self.members} members, and fewer than all folds"
            )
        if self.runs > 1 and self.pretrained is None:
            raise ValueError(f"runs {self.runs}: weights trained from scratch have no mean; name what is pretrained")
        return self


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
    framework: Tensor
    """(N,) number of each row's framework (:class:`~xas_agent.models.training.data.FeffData`)."""
    slope_shape: Tensor = field(init=False)

    def __post_init__(self) -> None:
        above = (self.grid.energy - 10.0) / (self.grid.stop_ev - 10.0)
        self.slope_shape = torch.tensor(above.clip(0, 1), dtype=torch.float32)
        self._foot, self._anchor = self.grid.window(self.grid.foot_ev), self.grid.window(self.grid.anchor_ev)

    @property
    def fine_start_ev(self) -> float:
        """Centre of the first fine bin, relative to the tabulated edge."""
        return float(self.grid.bounds[0]) + FINE_EV / 2

    def aligned(self, fine: Tensor) -> Tensor:
        """(n, F) fine spectra → (n, G) on the grid and its footing."""
        coarse = fine.reshape(len(fine), len(self.grid), -1).mean(2)
        return self.footing(coarse)

    def footing(self, coarse: Tensor) -> Tensor:
        """As :meth:`Grid.footing`, on tensors."""
        foot = coarse[:, self._foot].mean(1, keepdim=True)
        return (coarse - foot) / (coarse[:, self._anchor].mean(1, keepdim=True) - foot)

    def mixtures(self, index: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
        """Weights (n, n) of :func:`~xas_agent.models.training.augment.mixtures` among the rows ``index``."""
        group = self.framework[index] if how.within_framework else None
        return mixtures(len(index), len(index), how, generator, group)

    def disturbed(self, weights: Tensor, index: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
        """Mixtures of the rows at ``index``, disturbed as a beamline would, (n, G)."""
        fine = disturb(weights @ self.fine[index], self.fine_start_ev, FINE_EV, how, generator)
        return self.footing(add_noise(self.aligned(fine), self.slope_shape, how, generator))


def prepare(data: FeffData, config: TrainingConfig, classes: list[NDArray[np.int_]] | None = None) -> Rows:
    """Bin the spectra finely and encode the labels; classes are those of ``data`` unless given."""
    if classes is None:
        classes = [np.unique(v[~np.isnan(v)]).astype(int) for v in (data.labels[d] for d in config.classified)]
    one_hot = [
        torch.tensor(data.labels[d][:, None] == c, dtype=torch.float32)
        for d, c in zip(config.classified, classes, strict=True)
    ]
    regressed = np.stack([data.labels[d] for d in config.regressed], axis=1)
    mean, sd = np.nanmean(regressed, axis=0), np.nanstd(regressed, axis=0)
    sd = np.where(sd > 0, sd, 1.0)  # a label that is the same everywhere has no scale of its own
    targets = Targets(
        one_hot,
        torch.tensor((regressed - mean) / sd, dtype=torch.float32),
        classes,
        torch.tensor(mean, dtype=torch.float32),
        torch.tensor(sd, dtype=torch.float32),
    )
    framework = torch.from_numpy(np.unique(data.framework, return_inverse=True)[1])
    return Rows(fine_bins(data, config), targets, config.grid.grid(), framework)


def fine_bins(data: FeffData, config: TrainingConfig) -> Tensor:
    """(N, F) bin means on FINE_EV, over the model's grid."""
    bounds = config.grid.grid().bounds
    bins = round((bounds[-1] - bounds[0]) / FINE_EV)
    fine = data.on_bins(bounds[0] + FINE_EV * np.arange(bins + 1), config.edge_ev)
    return torch.tensor(fine, dtype=torch.float32)


def joint_loss(
    output: tuple[Tensor, ...], targets: Targets, weights: Tensor, index: Tensor, balance: float
) -> Tensor:
    """Cross entropy of every classified descriptor plus Gaussian likelihood of every regressed one.

    A mixture's label is the mixture of its parts' labels, and counts only where all parts have one.

    Parameters
    ----------
    output : logits, mean and log-variance as :class:`~xas_agent.models.network.spt.SPT` gives them, of one member;
        where there is no log-variance it is that of the standardised quantities, 0
    """
    logits, mean = output[0].squeeze(1), output[1].squeeze(1)
    log_variance = output[2].squeeze(1) if len(output) > 2 else torch.zeros_like(mean)
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
    return loss + balance * likelihood[known].mean() if known.any() else loss


@dataclass(frozen=True)
class Scale:
    """Centre and spread of every grid point over the training rows."""

    centre: Tensor
    spread: Tensor

    def apply(self, spectra: Tensor) -> Tensor:
        """(N, G) aligned spectra as the network reads them."""
        return (spectra - self.centre) / self.spread


@dataclass(frozen=True)
class Member(Generic[N]):
    """A trained network and how training went."""

    network: N
    epochs: int
    """After which its weights were kept."""
    seconds: float
    recall: Recall | None = None
    """What it recalls: the rows that it was trained on."""


class Remembering:
    """Recall while its keys are being learnt: the rows ``train``, none of which may recall its own material."""

    def __init__(
        self, network: SPT, rows: Rows, train: NDArray[np.int_], scale: Scale, material: NDArray[np.str_]
    ) -> None:
        t, self.sites, self.kin = rows.targets, torch.as_tensor(train), Kinship(material)
        self.network = network
        self.recall = Recall(1, len(train), network.key, tuple(len(c) for c in t.classes), t.regressed.shape[1])
        self.recall.learn([part[self.sites] for part in t.one_hot], t.regressed[self.sites])
        self.spectra = scale.apply(rows.aligned(rows.fine[self.sites]))
        self.targets = t

    def refresh(self) -> None:
        """Compute all keys anew."""
        self.recall.keys.copy_(keys_of(self.network, self.spectra))

    def loss(self, query: Tensor, weights: Tensor, index: Tensor, balance: float) -> Tensor:
        """Of what the queries of the mixtures ``weights`` of the rows ``index`` recall."""
        recalled = self.recall(query, self.kin.barred(weights, index, self.sites))
        return joint_loss(recalled, self.targets, weights, index, balance)


@torch.no_grad()
def keys_of(network: SPT, spectra: Tensor) -> Tensor:
    """(members, N, key) of clean spectra (N, G) as the network reads them."""
    was = network.training
    network.eval()
    keys = torch.cat([network(part)[3] for part in spectra.split(64)]).transpose(0, 1)
    network.train(was)
    return keys


def train_member(
    start: N,
    rows: Rows,
    train: NDArray[np.int_],
    scale: Scale,
    config: TrainingConfig,
    seed: int,
    watch: Watch[N],
    material: NDArray[np.str_] | None = None,
) -> Member[N]:
    """Train one network on the rows ``train``.

    ``watch`` is called after every epoch with (epoch from 1, network) and gives its validation score, by which
    ``patience`` stops; where it gives None there is nothing to choose by.

    Parameters
    ----------
    material : (N,) of all rows; an SPT then also learns to recall, unless ``recall_weight`` is 0
    """
    began, o = time.perf_counter(), config.optimisation
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    index = torch.as_tensor(train)
    batch = min(o.batch, len(index))
    steps = max(len(index), o.rows_per_epoch) // batch
    memory = None
    if isinstance(start, SPT) and material is not None and o.recall_weight > 0:
        memory = Remembering(start, rows, train, scale, material)
    learnt = [*start.parameters(), *(memory.recall.parameters() if memory else ())]
    optimiser = torch.optim.AdamW(learnt, lr=o.learning_rate, weight_decay=o.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, o.learning_rate, total_steps=steps * o.epochs)
    best, best_epoch, kept = -np.inf, o.epochs, None
    for epoch in range(1, o.epochs + 1):
        start.train()
        if memory:
            memory.refresh()
        rounds = steps * batch // len(index) + 1
        order = torch.cat([index[torch.randperm(len(index), generator=generator)] for _ in range(rounds)])
        for chosen in order[: steps * batch].split(batch):
            weights = rows.mixtures(chosen, config.augmentation, generator)
            spectra = rows.disturbed(weights, chosen, config.augmentation, generator)
            output = start(scale.apply(spectra))
            loss = joint_loss(output, rows.targets, weights, chosen, o.regression_weight)
            if memory:
                loss = loss + o.recall_weight * memory.loss(output[3], weights, chosen, o.regression_weight)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            schedule.step()
        score = watch(epoch, start.eval())
        if score is None or o.patience is None:
            continue
        if score > best:
            best, best_epoch = score, epoch
            kept = {k: v.clone() for k, v in start.state_dict().items()}
        elif epoch - best_epoch >= o.patience:
            break
    if kept is not None:
        start.load_state_dict(kept)
    if memory:
        memory.refresh()
    recall = memory.recall.eval() if memory else None
    return Member(start.eval(), best_epoch, time.perf_counter() - began, recall)


def folds(material: NDArray[np.str_], count: int, seed: int) -> list[NDArray[np.int_]]:
    """Row indices of ``count`` folds of like size; all rows of a material are in one fold."""
    names = np.unique(material)
    np.random.default_rng(seed).shuffle(names)
    return [np.flatnonzero(np.isin(material, names[k::count])) for k in range(count)]


def share_of(material: NDArray[np.str_], rows: NDArray[np.int_], fraction: float, seed: int) -> NDArray[np.int_]:
    """Those of ``rows`` whose material is among the first ``fraction`` of a random order, at least two."""
    names = np.unique(material[rows])
    np.random.default_rng(seed).shuffle(names)
    return rows[np.isin(material[rows], names[: max(2, round(fraction * len(names)))])]


def cropped(weights: dict[str, Tensor], shape: SPTShape) -> dict[str, Tensor]:
    """Weights of a longer grid cut to one with the same start and step; heads of other classes are left out.

    Only the place vector, the attention's border mask and the first latent layer know the grid's length.
    """
    fresh = SPT(shape).state_dict()
    kept: dict[str, Tensor] = {}
    for name, new in fresh.items():
        old = weights[name]
        if name == "latent.1.weight":
            points = shape.nodes // (GATHERED_POINTS // shape.node_points)
            old = old.reshape(len(old), shape.gathered, -1)[:, :, :points].flatten(1)
        elif name == "embedding.place":
            old = old[:, :, : shape.nodes]
        kept[name] = old if old.shape == new.shape and not name.endswith("outside") else new
    return kept
