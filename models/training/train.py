"""The training loop on FEFF rows, for one network or several side by side; a seed determines the weights."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..network import GATHERED_POINTS, SPT, MaterialGroups, Recall, SPTShape
from .config import TrainingConfig
from .rows import Rows, Scale, Targets

LARGEST_GRADIENT = 1.0
"""Norm to which the gradient of a network is clipped."""
_KEY_ROWS = {"cpu": 64, "cuda": 1024}  # number of sites whose keys are computed at once

N = TypeVar("N", bound=nn.Module)
Clip = Callable[[Mapping[str, Tensor]], object]
"""Called with the learnt parameters by name; clips their gradients."""


def joint_loss(
    output: tuple[Tensor, ...], targets: Targets, weights: Tensor, index: Tensor, balance: float
) -> Tensor:
    """Return cross entropy of all classified descriptors plus Gaussian likelihood of all regressed quantities.

    The loss is summed over networks side by side. The label of a mixture is the mixture of the labels of its parts;
    it counts only if all parts are labelled.

    Parameters
    ----------
    output : logits, mean and log-variance, (n, M, ·) each, as from :class:`~xas_agent.models.network.spt.SPT`; a
        missing log-variance is 0, that of the standardised quantities
    weights : (n, n) or (M, n, n) weights of the mixtures of the rows ``index`` (n,) or (M, n)
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


class RecallMemory:
    """Recall during training: no row recalls sites of its own material, or sites that its network is not trained on.

    Parameters
    ----------
    network : one SPT, or several side by side
    rows, scale : rows and scale on the device of the network
    sites : (S,) rows to recall
    material : (N,) materials of all rows
    held : (networks, S) sites that each network is not trained on; None for none
    """

    def __init__(
        self,
        network: SPT,
        rows: Rows,
        scale: Scale,
        sites: NDArray[np.int_],
        material: NDArray[np.str_],
        held: NDArray[np.bool_] | None = None,
    ) -> None:
        t, device = rows.targets, rows.fine.device
        self.network, self.targets = network, t
        self.sites = torch.as_tensor(sites, device=device)
        self.groups = MaterialGroups(material, device)
        self.held = None if held is None else torch.as_tensor(held, device=device).unsqueeze(1)
        classes = tuple(len(c) for c in t.classes)
        recall = Recall(network.members, len(sites), network.key, classes, t.regressed.shape[1]).to(device)
        recall.learn([part[self.sites] for part in t.one_hot], t.regressed[self.sites])
        self.recall = recall
        self.spectra = scale.apply(rows.clean(self.sites))

    def refresh(self) -> None:
        """Recompute all keys."""
        self.recall.keys.copy_(keys_of(self.network, self.spectra, _KEY_ROWS[self.spectra.device.type]))

    def loss(self, query: Tensor, weights: Tensor, index: Tensor, balance: float) -> Tensor:
        """Return the loss of recall for the queries of the mixtures ``weights`` (M, n, n) of the rows ``index``."""
        barred = self.groups.barred(weights, index, self.sites)
        if self.held is not None:
            barred = barred | self.held
        return joint_loss(self.recall(query, barred), self.targets, weights, index, balance)


@torch.no_grad()
def keys_of(network: SPT, spectra: Tensor, at_once: int = 64) -> Tensor:
    """Return the keys (members, N, key) of scaled clean spectra (N, G), ``at_once`` at a time."""
    training = network.training
    network.eval()
    keys = torch.cat([network(part)[3] for part in spectra.split(at_once)]).transpose(0, 1)
    network.train(training)
    return keys


def clip_together(parameters: Mapping[str, Tensor]) -> None:
    """Clip the gradient of all parameters, those of one network, to the norm 1."""
    nn.utils.clip_grad_norm_(parameters.values(), LARGEST_GRADIENT)


class Loop(Generic[N]):
    """Networks in training: weights, optimiser, schedule, random numbers and epoch.

    Parameters
    ----------
    network : one network, or M SPTs side by side, with its initial weights, which are changed; it takes spectra
        (n, M, G)
    trains : M tensors with the rows that each network is trained on
    rows, scale : rows and scale on the device of the network
    seed : seed of all random numbers
    memory : recall that the networks learn as well
    """

    def __init__(
        self,
        network: N,
        trains: Sequence[Tensor],
        rows: Rows,
        scale: Scale,
        config: TrainingConfig,
        seed: int,
        memory: RecallMemory | None = None,
        clip: Clip = clip_together,
    ) -> None:
        self.settings, self.augmentation = config.optimisation, config.augmentation
        self.network, self.trains, self.rows, self.scale = network, trains, rows, scale
        self.memory, self.clip, self.device = memory, clip, rows.fine.device
        self.batch = min(self.settings.batch, *(len(t) for t in trains))
        self.steps = max(self.settings.rows_per_epoch, *(len(t) for t in trains)) // self.batch
        self.learnt = dict(network.named_parameters())
        if memory is not None:
            self.learnt |= memory.recall.named_parameters()
        parameters, rate = list(self.learnt.values()), self.settings.learning_rate
        self.optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=self.settings.weight_decay)
        total = self.steps * self.settings.epochs
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, total_steps=total)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        torch.manual_seed(seed)
        self.epoch, self.seconds = 0, 0.0

    @property
    def sharpness(self) -> Tensor | None:
        """(M, 1, 1) log sharpness of recall; None without recall."""
        return None if self.memory is None else self.memory.recall.log_sharpness.detach()

    def run_epoch(self) -> None:
        """Train for an epoch."""
        began = time.perf_counter()
        self.network.train()
        if self.memory is not None:
            self.memory.refresh()
        for index in self._order().split(self.batch, dim=1):
            self.optimiser.zero_grad()
            self._loss(index).backward()
            self.clip(self.learnt)
            self.optimiser.step()
            self.schedule.step()
        self.epoch += 1
        self.seconds += time.perf_counter() - began

    def _loss(self, index: Tensor) -> Tensor:
        """Return the loss of a batch of mixed and disturbed rows ``index`` (M, n)."""
        balance = self.settings.regression_weight
        weights = self.rows.mixtures(index, self.augmentation, self.generator)
        spectra = self.rows.disturbed(weights, index, self.augmentation, self.generator)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._mixed_precision):
            output = self.network(self.scale.apply(spectra).transpose(0, 1))
        output = tuple(part.float() for part in output)
        loss = joint_loss(output, self.rows.targets, weights, index, balance)
        if self.memory is None:
            return loss
        return loss + self.settings.recall_weight * self.memory.loss(output[3], weights, index, balance)

    @property
    def _mixed_precision(self) -> bool:
        return self.settings.mixed_precision and self.device.type == "cuda"

    def _order(self) -> Tensor:
        """Draw the rows (M, steps · batch) of an epoch."""
        wanted, orders = self.steps * self.batch, []
        for train in self.trains:
            rounds = range(wanted // len(train) + 1)
            drawn = [torch.randperm(len(train), generator=self.generator, device=self.device) for _ in rounds]
            orders.append(train[torch.cat(drawn)[:wanted]])
        return torch.stack(orders)


def train_member(
    start: N,
    rows: Rows,
    train: NDArray[np.int_],
    scale: Scale,
    config: TrainingConfig,
    seed: int,
    material: NDArray[np.str_] | None = None,
) -> Loop[N]:
    """Train one network on the rows ``train``, to the last epoch.

    Parameters
    ----------
    start : network with its initial weights, which are changed; it takes spectra (n, 1, G)
    material : (N,) materials of all rows; an SPT then also learns to recall, unless ``recall_weight`` is 0
    """
    memory = None
    if isinstance(start, SPT) and material is not None and config.optimisation.recall_weight > 0:
        memory = RecallMemory(start, rows, scale, train, material)
    loop = Loop(start, [torch.as_tensor(train)], rows, scale, config, seed, memory)
    for _ in range(config.optimisation.epochs):
        loop.run_epoch()
    start.eval()
    return loop


def folds(material: NDArray[np.str_], count: int, seed: int) -> list[NDArray[np.int_]]:
    """Return the row indices of ``count`` folds of similar size; all rows of a material are in one fold."""
    names = np.unique(material)
    np.random.default_rng(seed).shuffle(names)
    return [np.flatnonzero(np.isin(material, names[k::count])) for k in range(count)]


def share_of(material: NDArray[np.str_], rows: NDArray[np.int_], fraction: float, seed: int) -> NDArray[np.int_]:
    """Return those of ``rows`` whose material is in the first ``fraction`` of a random order; at least two."""
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
        elif name == "embedding.local.weight" and old.shape[1] < new.shape[1]:  # no channel for known points
            old = torch.nn.functional.pad(old, [0, 0, 0, new.shape[1] - old.shape[1]])
        kept[name] = old if old.shape == new.shape and not name.endswith("outside") else new
    return kept
