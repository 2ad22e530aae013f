"""Training of one network on FEFF rows; the same config and seed give the same weights."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..network import GATHERED_POINTS, SPT, MaterialGroups, Recall, SPTShape
from .config import TrainingConfig
from .rows import Rows, Scale, Targets

N = TypeVar("N", bound=nn.Module)
EpochCallback = Callable[[int, N], float | None]
"""Called with (epoch from 1, network); returns the validation score, or None."""


def joint_loss(
    output: tuple[Tensor, ...], targets: Targets, weights: Tensor, index: Tensor, balance: float
) -> Tensor:
    """Return cross entropy of all classified descriptors plus Gaussian likelihood of all regressed quantities.

    It is summed over networks side by side. The label of a mixture is the mixture of the labels of its parts; it
    counts only where all parts are labelled.

    Parameters
    ----------
    output : logits, mean and log-variance, (n, M, ·) each, as from :class:`~xas_agent.models.network.spt.SPT`; a
        missing log-variance is 0, that of the standardised quantities
    weights : (n, n) or (M, n, n) of the mixtures of the rows ``index`` (n,) or (M, n)
    balance : weight of the regression loss
    """
    logits, mean = output[0].transpose(0, 1), output[1].transpose(0, 1)
    log_variance = output[2].transpose(0, 1) if len(output) > 2 else torch.zeros_like(mean)
    sizes = [len(c) for c in targets.classes]
    loss = logits.new_zeros(())
    for part, one_hot in zip(logits.split(sizes, dim=2), targets.one_hot, strict=True):
        label = weights @ one_hot[index]
        known = (label.sum(-1) > 0.999).float()
        surprise = -(label * torch.log_softmax(part, dim=2)).sum(2)
        loss = loss + ((surprise * known).sum(1) / known.sum(-1).clamp_min(1.0)).sum()
    target = targets.regressed[index]
    known = ((weights > 0).float() @ target.isnan().float() == 0).float()
    label = weights @ target.nan_to_num()
    likelihood = 0.5 * (log_variance + (label - mean).square() * torch.exp(-log_variance))
    mean_likelihood = (likelihood * known).sum((1, 2)) / known.sum((-2, -1)).clamp_min(1.0)
    return loss + balance * mean_likelihood.sum()


@dataclass(frozen=True)
class Member(Generic[N]):
    """A trained network and the record of its training."""

    network: N
    epochs: int
    """Epochs after which its weights were kept."""
    seconds: float
    """Duration of the training."""
    recall: Recall | None = None
    """Memory of the training rows."""


class RecallMemory:
    """Recall during training: the sites are the rows ``train``, and no row recalls its own material."""

    def __init__(
        self, network: SPT, rows: Rows, train: NDArray[np.int_], scale: Scale, material: NDArray[np.str_]
    ) -> None:
        t, self.sites, self.groups = rows.targets, torch.as_tensor(train), MaterialGroups(material)
        self.network = network
        self.recall = Recall(1, len(train), network.key, tuple(len(c) for c in t.classes), t.regressed.shape[1])
        self.recall.learn([part[self.sites] for part in t.one_hot], t.regressed[self.sites])
        self.spectra = scale.apply(rows.clean(self.sites))
        self.targets = t

    def refresh(self) -> None:
        """Recompute all keys."""
        self.recall.keys.copy_(keys_of(self.network, self.spectra))

    def loss(self, query: Tensor, weights: Tensor, index: Tensor, balance: float) -> Tensor:
        """Return the loss of recall for the queries of the mixtures ``weights`` (n, n) of the rows ``index``."""
        recalled = self.recall(query, self.groups.barred(weights, index, self.sites))
        return joint_loss(recalled, self.targets, weights, index, balance)


@torch.no_grad()
def keys_of(network: SPT, spectra: Tensor, at_once: int = 64) -> Tensor:
    """Return the keys (members, N, key) of scaled clean spectra (N, G), ``at_once`` at a time."""
    training = network.training
    network.eval()
    keys = torch.cat([network(part)[3] for part in spectra.split(at_once)]).transpose(0, 1)
    network.train(training)
    return keys


def train_member(
    start: N,
    rows: Rows,
    train: NDArray[np.int_],
    scale: Scale,
    config: TrainingConfig,
    seed: int,
    watch: EpochCallback[N],
    material: NDArray[np.str_] | None = None,
) -> Member[N]:
    """Train one network on the rows ``train``.

    Parameters
    ----------
    start : network with its initial weights, which are changed
    watch : called after every epoch; ``patience`` acts on the validation score that it returns, if it returns one
    material : (N,) of all rows; an SPT then also learns to recall, unless ``recall_weight`` is 0
    """
    began, settings = time.perf_counter(), config.optimisation
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    index = torch.as_tensor(train)
    batch = min(settings.batch, len(index))
    steps = max(len(index), settings.rows_per_epoch) // batch
    memory = None
    if isinstance(start, SPT) and material is not None and settings.recall_weight > 0:
        memory = RecallMemory(start, rows, train, scale, material)
    learnt = [*start.parameters(), *(memory.recall.parameters() if memory else ())]
    optimiser = torch.optim.AdamW(learnt, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs
    )
    best, best_epoch, kept = -np.inf, settings.epochs, None
    for epoch in range(1, settings.epochs + 1):
        start.train()
        if memory:
            memory.refresh()
        rounds = steps * batch // len(index) + 1
        order = torch.cat([index[torch.randperm(len(index), generator=generator)] for _ in range(rounds)])
        for chosen in order[: steps * batch].split(batch):
            weights = rows.mixtures(chosen, config.augmentation, generator)
            spectra = rows.disturbed(weights, chosen, config.augmentation, generator)
            output = start(scale.apply(spectra))
            loss = joint_loss(output, rows.targets, weights, chosen, settings.regression_weight)
            if memory:
                loss = loss + settings.recall_weight * memory.loss(
                    output[3], weights, chosen, settings.regression_weight
                )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            schedule.step()
        score = watch(epoch, start.eval())
        if score is None or settings.patience is None:
            continue
        if score > best:
            best, best_epoch = score, epoch
            kept = {k: v.clone() for k, v in start.state_dict().items()}
        elif epoch - best_epoch >= settings.patience:
            break
    if kept is not None:
        start.load_state_dict(kept)
    if memory:
        memory.refresh()
    recall = memory.recall.eval() if memory else None
    return Member(start.eval(), best_epoch, time.perf_counter() - began, recall)


def folds(material: NDArray[np.str_], count: int, seed: int) -> list[NDArray[np.int_]]:
    """Return the row indices of ``count`` folds of similar size; all rows of a material are in one fold."""
    names = np.unique(material)
    np.random.default_rng(seed).shuffle(names)
    return [np.flatnonzero(np.isin(material, names[k::count])) for k in range(count)]


def share_of(material: NDArray[np.str_], rows: NDArray[np.int_], fraction: float, seed: int) -> NDArray[np.int_]:
    """Return those of ``rows`` whose material is in the first ``fraction`` of a random order, at least two."""
    names = np.unique(material[rows])
    np.random.default_rng(seed).shuffle(names)
    return rows[np.isin(material[rows], names[: max(2, round(fraction * len(names)))])]


def cropped(weights: dict[str, Tensor], shape: SPTShape) -> dict[str, Tensor]:
    """Cut weights for a longer grid to the grid of ``shape``, of the same start and step.

    Only the position vector, the border mask of the attention and the first latent layer depend on the length of the
    grid. Heads of other classes keep random weights.
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
        elif name == "embedding.local.weight" and old.shape[1] < new.shape[1]:  # no channel for what is known
            old = torch.nn.functional.pad(old, [0, 0, 0, new.shape[1] - old.shape[1]])
        kept[name] = old if old.shape == new.shape and not name.endswith("outside") else new
    return kept
