"""Trains all networks of an ensemble side by side, on CPU or GPU; an interrupted training can continue.

One network is too small for a GPU. As groups of channels of one network (:class:`~xas_agent.models.network.spt.SPT`),
the members, and the runs of each, take as many operations as one. Each has its own rows, order and disturbances.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...agent.types import get_logger
from ..network import SPT, channels_of, ensemble_weights, member_weights
from .metrics import scores
from .plan import TrainedMember, TrainingPlan, best, read_columns
from .rows import Scale
from .train import LARGEST_GRADIENT, Loop, RecallMemory

_log = get_logger()

_CHECKPOINT_S = 30.0  # shortest time between checkpoints, which take longer than a short epoch

EpochWatch = Callable[[int, float | None], object]
"""Called with the epoch, from 1, and the validation score of the ensemble or None."""


@dataclass(frozen=True)
class Checkpoint:
    """File that stores a training from time to time."""

    path: Path
    every_s: float = _CHECKPOINT_S
    """Shortest time between two checkpoints, s."""


class Training(Loop[SPT]):
    """The networks of a plan in training; they are judged after every epoch, and can continue from a checkpoint.

    Parameters
    ----------
    plan : rows, scaling and settings
    networks : single SPTs with their initial weights
    trains : rows that each network is trained on
    """

    def __init__(
        self, plan: TrainingPlan, networks: Sequence[SPT], trains: Sequence[NDArray[np.int_]], device: torch.device
    ) -> None:
        self.plan, self.count = plan, len(networks)
        network = SPT(plan.shape.model_copy(update={"members": self.count}))
        network.load_state_dict(ensemble_weights([n.state_dict() for n in networks]))
        network.to(device)
        rows, scale, memory = plan.rows.to(device), plan.scale.to(device), None
        if plan.config.optimisation.recall_weight > 0:
            held = np.stack([~np.isin(plan.learnt, train) for train in trains])
            memory = RecallMemory(network, rows, scale, plan.learnt, plan.data.material, held)
        shown = [torch.as_tensor(repeated(plan, train), device=device) for train in trains]
        clip = partial(clip_members, members=self.count)
        super().__init__(network, shown, rows, scale, plan.config, plan.config.seed, memory, clip)
        self.best, self.best_epoch, self.kept = -np.inf, 0, {}

    def watch(self) -> float | None:
        """Return the validation score of the ensemble; if training has patience, keep the best weights."""
        if not len(self.plan.judged):
            return None
        score = heads_score(self.plan, self.network, self.scale, self.device)
        if self.settings.patience is not None and score > self.best:
            self.best, self.best_epoch = score, self.epoch
            self.kept = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        return score

    @property
    def finished(self) -> bool:
        """Whether the schedule or the patience has ended."""
        patience = self.settings.patience
        impatient = patience is not None and self.kept and self.epoch - self.best_epoch >= patience
        return bool(impatient) or self.epoch >= self.settings.epochs

    def members(self) -> list[TrainedMember]:
        """Return the trained networks."""
        weights = self.kept or {k: v.detach().cpu() for k, v in self.network.state_dict().items()}
        epoch = self.best_epoch if self.kept else self.epoch
        found: list[TrainedMember] = []
        for k in range(self.count):
            own = member_weights(weights, k, self.count)
            own = {name: tensor.clone() for name, tensor in own.items()}
            sharpness = None if self.sharpness is None else self.sharpness[k : k + 1].cpu().clone()
            found.append(TrainedMember(own, sharpness, epoch, self.seconds / self.count))
        return found

    def save(self, path: Path) -> None:
        """Write a checkpoint; after an error the file is as before."""
        on_gpu = self.device.type == "cuda"
        state = {
            "fingerprint": fingerprint(self.plan, self.count),
            "device": self.device.type,
            "random": [self.generator.get_state(), torch.get_rng_state()],
            "random_cuda": torch.cuda.get_rng_state(self.device) if on_gpu else None,
            "network": self.network.state_dict(),
            "log_sharpness": self.sharpness,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": [self.epoch, self.seconds, float(self.best), self.best_epoch],
            "kept": self.kept,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        torch.save(state, beside)
        os.replace(beside, path)

    def load(self, path: Path) -> bool:
        """Continue from a checkpoint with the same config and data; return whether there was one.

        On the same kind of device, the result equals that of a training without interruption, on a GPU up to
        rounding. On another kind, the random numbers are new.
        """
        if not path.is_file():
            return False
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != fingerprint(self.plan, self.count):
            _log.warning("checkpoint is of another config or of other data: training begins anew", file=str(path))
            return False
        self.network.load_state_dict(state["network"])
        if self.sharpness is not None:
            self.sharpness.copy_(state["log_sharpness"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.seconds, self.best, self.best_epoch = state["progress"]
        self.kept = state["kept"]
        if state["device"] == self.device.type:
            self.generator.set_state(state["random"][0])
            torch.set_rng_state(state["random"][1])
            if state["random_cuda"] is not None:
                torch.cuda.set_rng_state(state["random_cuda"], self.device)
        else:
            self.generator.manual_seed(self.plan.config.seed + self.epoch)
        _log.info("training goes on", file=str(path), epoch=self.epoch)
        return True


def train_together(
    plan: TrainingPlan,
    networks: Sequence[SPT],
    trains: Sequence[NDArray[np.int_]],
    device: torch.device,
    watch: EpochWatch,
    checkpoint: Checkpoint | None = None,
) -> list[TrainedMember]:
    """Train networks side by side; the same config and seed give the same weights on a CPU.

    Parameters
    ----------
    networks, trains : single SPTs with their initial weights, and the rows that each is trained on
    watch : called after every epoch
    checkpoint : file that stores the training, and from which it continues
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        training = Training(plan, networks, trains, device)
        if checkpoint:
            training.load(checkpoint.path)
        saved = time.monotonic()
        while not training.finished:
            training.run_epoch()
            score = training.watch()
            due = training.finished or (checkpoint and time.monotonic() - saved >= checkpoint.every_s)
            if checkpoint and due:
                training.save(checkpoint.path)
                saved = time.monotonic()
            watch(training.epoch, score)
        return training.members()


def repeated(plan: TrainingPlan, train: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return the rows of an epoch: ``train``, with those that reach the grid's end repeated."""
    reach, times = plan.rows.reach, plan.config.optimisation.long_rows
    if reach is None or times == 1:
        return train
    is_long = reach.cpu().numpy()[train] == len(plan.rows.grid)
    return np.repeat(train, np.where(is_long, times, 1))


@torch.no_grad()
def clip_members(parameters: Mapping[str, Tensor], members: int) -> None:
    """Clip the gradient of each of the networks side by side to the norm 1."""
    named = [(channels_of(name), p.grad) for name, p in parameters.items() if p.grad is not None]
    squares = [g.movedim(axis, 0).reshape(members, -1).square().sum(1) for axis, g in named]
    scale = (LARGEST_GRADIENT / torch.stack(squares).sum(0).sqrt().clamp_min(1e-6)).clamp(max=1.0)
    for axis, g in named:
        size = [1] * g.dim()
        size[axis] = g.shape[axis]
        g.mul_(scale.repeat_interleave(g.shape[axis] // members).reshape(size))


@torch.no_grad()
def heads_score(plan: TrainingPlan, network: SPT, scale: Scale, device: torch.device) -> float:
    """Return the mean score over the descriptors of an ensemble without recall, on the rows that judge."""
    network.eval()
    sizes = [len(c) for c in plan.rows.targets.classes]
    spectra = scale.apply(plan.clean[plan.judged].to(device))
    parts = [network(x) for x in spectra.split(256)]
    logits, mean, log_variance, _ = (torch.cat(p) for p in zip(*parts, strict=True))
    p = torch.cat([part.log_softmax(2).mean(1).softmax(1) for part in logits.split(sizes, 2)], dim=1)
    t = plan.rows.targets
    value, sd = mean.mean(1).cpu() * t.sd + t.mean, log_variance.exp().mean(1).sqrt().cpu() * t.sd
    out = torch.cat([p.cpu(), value, sd], dim=1).double().numpy()
    truth = {d: v[plan.judged] for d, v in plan.data.labels.items()}
    found = scores(truth, best(read_columns(plan, out)), plan.config.classified)
    return float(np.nanmean(list(found.values())))


def fingerprint(plan: TrainingPlan, count: int) -> str:
    """Return the identity of a training: its config, its data and the number of networks."""
    digest = hashlib.sha256(plan.config.model_dump_json().encode())
    digest.update(str(count).encode())
    t = plan.rows.targets
    for tensor in (plan.rows.fine, t.regressed, *t.one_hot):
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
