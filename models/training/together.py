"""Training of all networks of an ensemble side by side, on CPU or GPU; a training that ends early can go on.

One network is too small for a GPU. As groups of channels of one network (:class:`~xas_agent.models.network.spt.SPT`),
the members, and the runs of each, take as many operations as one. Each has its own rows, order and disturbances.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...agent.types import get_logger
from ..network import SPT, MaterialGroups, Recall, channels_of, ensemble_weights, member_weights
from .metrics import scores
from .plan import TrainedMember, TrainingPlan, best, read_columns
from .rows import Scale
from .train import joint_loss, keys_of

_log = get_logger()

_CHECKPOINT_S = 30.0  # between checkpoints, which take longer than a short epoch
_LARGEST_GRADIENT = 1.0  # norm to which the gradient of a network is clipped
_KEY_ROWS = 1024  # sites whose keys are computed at once on a GPU

EpochWatch = Callable[[int, float | None], object]
"""Called with (epoch from 1, validation score of the ensemble or None)."""


@dataclass(frozen=True)
class Checkpoint:
    """File in which a training is kept from time to time."""

    path: Path
    every_s: float = _CHECKPOINT_S
    """Shortest time between two checkpoints, s."""


class Training:
    """Networks in training: weights, optimiser, random numbers and epoch.

    Parameters
    ----------
    plan : rows, scaling and settings
    networks : single SPTs with their initial weights
    trains : rows that each network trains on
    """

    def __init__(
        self, plan: TrainingPlan, networks: Sequence[SPT], trains: Sequence[NDArray[np.int_]], device: torch.device
    ) -> None:
        config, settings = plan.config, plan.config.optimisation
        self.plan, self.device, self.settings = plan, device, settings
        self.count = len(networks)
        self.network = SPT(plan.shape.model_copy(update={"members": self.count}))
        self.network.load_state_dict(ensemble_weights([n.state_dict() for n in networks]))
        self.network.to(device)
        self.rows, self.scale = plan.rows.to(device), plan.scale.to(device)
        self.trains = [torch.as_tensor(repeated(plan, train), device=device) for train in trains]
        self.batch = min(settings.batch, *(len(t) for t in self.trains))
        self.steps = max(settings.rows_per_epoch, *(len(t) for t in self.trains)) // self.batch
        self._remember(plan, trains)
        self.learnt = dict(self.network.named_parameters())
        if self.recall is not None:
            self.learnt |= {"log_sharpness": self.recall.log_sharpness}
        parameters, rate = list(self.learnt.values()), settings.learning_rate
        self.optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay)
        total = self.steps * settings.epochs
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, total_steps=total)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        torch.manual_seed(config.seed)
        self.epoch, self.seconds = 0, 0.0
        self.best, self.best_epoch, self.kept = -np.inf, 0, {}

    def _remember(self, plan: TrainingPlan, trains: Sequence[NDArray[np.int_]]) -> None:
        """Prepare recall: no row recalls sites of its own material, or such as its network does not train on."""
        self.recall = None
        if self.settings.recall_weight <= 0:
            return
        t, learnt = plan.rows.targets, plan.learnt
        classes = tuple(len(c) for c in t.classes)
        recall = Recall(self.count, len(learnt), self.network.key, classes, t.regressed.shape[1])
        recall.learn([part[learnt] for part in t.one_hot], t.regressed[learnt])
        self.recall = recall.to(self.device)
        self.sites = torch.as_tensor(learnt, device=self.device)
        self.spectra = self.scale.apply(self.rows.clean(self.sites))
        self.groups = MaterialGroups(plan.data.material, self.device)
        held = np.stack([~np.isin(learnt, train) for train in trains])
        self.held = torch.as_tensor(held, device=self.device).unsqueeze(1)

    def run_epoch(self) -> None:
        """Train for an epoch."""
        began, settings, augmentation = time.perf_counter(), self.settings, self.plan.config.augmentation
        self.network.train()
        self._refresh()
        for index in self._order().split(self.batch, dim=1):
            weights = self.rows.mixtures(index, augmentation, self.generator)
            spectra = self.rows.disturbed(weights, index, augmentation, self.generator)
            with torch.autocast("cuda", torch.bfloat16, enabled=self._mixed_precision):
                output = self.network(self.scale.apply(spectra).transpose(0, 1))
            output = tuple(part.float() for part in output)
            loss = joint_loss(output, self.rows.targets, weights, index, settings.regression_weight)
            if self.recall is not None:
                barred = self.groups.barred(weights, index, self.sites) | self.held
                recalled = self.recall(output[3], barred)
                recall_loss = joint_loss(recalled, self.rows.targets, weights, index, settings.regression_weight)
                loss = loss + settings.recall_weight * recall_loss
            self.optimiser.zero_grad()
            loss.backward()
            clip_members(self.learnt, self.count)
            self.optimiser.step()
            self.schedule.step()
        self.epoch += 1
        self.seconds += time.perf_counter() - began

    @property
    def _mixed_precision(self) -> bool:
        return self.settings.mixed_precision and self.device.type == "cuda"

    def _order(self) -> Tensor:
        """Draw the rows (networks, steps · batch) of an epoch."""
        wanted, orders = self.steps * self.batch, []
        for train in self.trains:
            rounds = range(wanted // len(train) + 1)
            drawn = [torch.randperm(len(train), generator=self.generator, device=self.device) for _ in rounds]
            orders.append(train[torch.cat(drawn)[:wanted]])
        return torch.stack(orders)

    def _refresh(self) -> None:
        if self.recall is not None:
            at_once = 64 if self.device.type == "cpu" else _KEY_ROWS
            self.recall.keys.copy_(keys_of(self.network, self.spectra, at_once))

    def watch(self) -> float | None:
        """Return the validation score of the ensemble, and keep the best weights where training has patience."""
        if not len(self.plan.judged):
            return None
        score = heads_score(self.plan, self.network, self.scale, self.device)
        if self.settings.patience is not None and score > self.best:
            self.best, self.best_epoch = score, self.epoch
            self.kept = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        return score

    @property
    def finished(self) -> bool:
        """Whether the schedule or the patience is at its end."""
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
            sharpness = None if self.recall is None else self.recall.log_sharpness[k : k + 1].detach().cpu().clone()
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
            "log_sharpness": None if self.recall is None else self.recall.log_sharpness.detach(),
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
        """Go on from a checkpoint, if there is one of the same config and data; return whether there was.

        On the same kind of device the result is that of a training without interruption, on a GPU up to rounding. On
        another the random numbers are new.
        """
        if not path.is_file():
            return False
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != fingerprint(self.plan, self.count):
            _log.warning("checkpoint is of another config or of other data: training begins anew", file=str(path))
            return False
        self.network.load_state_dict(state["network"])
        if self.recall is not None:
            with torch.no_grad():
                self.recall.log_sharpness.copy_(state["log_sharpness"])
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
    networks, trains : single SPTs with their initial weights, and the rows that each trains on
    watch : called after every epoch
    checkpoint : where to keep the training and from where it goes on
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
    """Return the rows of an epoch: ``train``, those that reach the grid's end several times."""
    reach, times = plan.rows.reach, plan.config.optimisation.long_rows
    if reach is None or times == 1:
        return train
    is_long = reach.cpu().numpy()[train] == len(plan.rows.grid)
    return np.repeat(train, np.where(is_long, times, 1))


@torch.no_grad()
def clip_members(parameters: Mapping[str, Tensor], members: int) -> None:
    """Clip the gradient of each network side by side to the norm 1."""
    named = [(channels_of(name), p.grad) for name, p in parameters.items() if p.grad is not None]
    squares = [g.movedim(axis, 0).reshape(members, -1).square().sum(1) for axis, g in named]
    scale = (_LARGEST_GRADIENT / torch.stack(squares).sum(0).sqrt().clamp_min(1e-6)).clamp(max=1.0)
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
    """Return what identifies a training: its config, its data and the number of networks."""
    digest = hashlib.sha256(plan.config.model_dump_json().encode())
    digest.update(str(count).encode())
    t = plan.rows.targets
    for tensor in (plan.rows.fine, t.regressed, *t.one_hot):
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
