"""Training an ensemble of Joint SPTs from FEFF rows, reproducibly from one config."""

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
Watch = Callable[[int, N], float | None]


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
class Member(Generic[N]):
    """A trained network and how training went."""

    network: N
    epochs: int
    """After which its weights were kept."""
    seconds: float
    recall: Recall | None = None
    """What it recalls: the rows that it was trained on."""


class RecallMemory:
    """Recall while its keys are being learnt: the rows ``train``, none of which may recall its own material."""

    def __init__(
        self, network: SPT, rows: Rows, train: NDArray[np.int_], scale: Scale, material: NDArray[np.str_]
    ) -> None:
        t, self.sites, self.kin = rows.targets, torch.as_tensor(train), MaterialGroups(material)
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
        memory = RecallMemory(start, rows, train, scale, material)
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
