"""Fine-tuning of one network on a fraction of a small data set, from pre-trained or from random weights."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ....agent.types import Settings
from ... import card as cards
from ...network import SPT
from ...progress import Progress
from ...training import (
    Blend,
    FeffData,
    Network,
    TrainedMember,
    TrainingConfig,
    TrainingPlan,
    ensemble,
    folds,
    served_weights,
    share_of,
    train_member,
)
from ..competitors import FittedSPT, TrialOutcome, pack, unpack
from ..report import Arrays, Piece, run_all

TuningMode = Literal["scratch", "frozen", "partial", "full"]
TRAINED_WEIGHTS: dict[TuningMode, tuple[str, ...]] = {
    "frozen": ("heads.", "query."),
    "partial": ("heads.", "query.", "gather.", "latent."),
}
"""Prefixes of the weights that a mode trains; other modes train all weights."""


class TransferSettings(Settings):
    """Fine-tuning from a pre-trained model against training from scratch."""

    targets: tuple[TrainingConfig, ...]
    """Training configs, one per target set; the pre-trained model's network replaces theirs."""
    pretrained: str
    """Name or folder of the model whose weights fine-tuning starts from."""
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Fractions of the training materials of a fold; each contains the smaller ones."""
    modes: tuple[TuningMode, ...] = ("scratch", "frozen", "partial", "full")
    """``frozen`` trains the heads and the query, ``partial`` also the latent layer, ``full`` everything."""
    folds: int = Field(default=5, ge=2)
    """Folds of the materials of ``train`` and ``val``; each row is judged by a network that has not seen its
    material."""
    repeats: int = Field(default=1, ge=1)
    """Repetitions with other folds and other seeds."""
    epochs: int = 25
    """Epochs of each training."""
    rows_per_epoch: int = 256
    """Rows per epoch."""
    learning_rate: dict[TuningMode, float] = Field(
        default_factory=lambda: {"scratch": 3e-3, "frozen": 3e-3, "partial": 1e-3, "full": 1e-3}
    )
    """Peak learning rate by mode."""
    recall_share: float = Field(default=0.5, ge=0, le=1)
    """Share of recall in every answer; there are too few rows to fit it."""
    seed: int = 0
    """Seed of all random numbers."""

    def fold_seed(self, repeat: int) -> int:
        """Return the seed of the folds of a repetition."""
        return self.seed + repeat

    def read_plan(self, config: TrainingConfig, data: Path) -> TrainingPlan:
        """Read the rows of a target, for cross-validation with the pre-trained model's network."""
        return TrainingPlan.read(cross_validated(config, self.pretrained), data)


@dataclass(frozen=True)
class TransferTrial:
    """One network: its data set, mode, fraction of the training materials, and fold."""

    config: TrainingConfig
    mode: TuningMode
    fraction: float
    fold: int
    repeat: int

    @property
    def name(self) -> str:
        """Name of the trial in file names."""
        return f"transfer-{self.config.name}-{self.mode}-{self.fraction:g}-{self.repeat}.{self.fold}"


def all_trials(settings: TransferSettings) -> Iterator[TransferTrial]:
    """Yield the trials of the study."""
    for config in settings.targets:
        for mode in settings.modes:
            for fraction in settings.fractions:
                for repeat in range(settings.repeats):
                    for fold in range(settings.folds):
                        yield TransferTrial(config, mode, fraction, fold, repeat)


def run_trials(
    trials: Sequence[TransferTrial],
    settings: TransferSettings,
    data: Path,
    kept: Path,
    jobs: int,
    progress: Progress,
) -> list[TrialOutcome]:
    """Run trials and return the answers for their held-out rows.

    Parameters
    ----------
    data : folder of the FEFF rows
    kept : folder of finished results
    jobs : number of trials at the same time
    """
    start = weights_digest(settings.pretrained)
    recipe = settings.model_dump(mode="json", exclude={"targets", "fractions", "modes", "repeats", "pretrained"})
    pieces = [
        Piece(
            t.name,
            [
                t.config.model_dump(mode="json"),
                t.mode,
                t.fraction,
                t.fold,
                t.repeat,
                recipe,
                start,
                "member fold + repeat",
            ],
            partial(run_trial, t, settings, data),
        )
        for t in trials
    ]
    return [unpack(a) for a in run_all("transfer", pieces, kept, jobs, progress)]


def run_trial(trial: TransferTrial, settings: TransferSettings, data: Path) -> Arrays:
    """Train one network and return its answers for the rows of its fold, packed."""
    plan = settings.read_plan(trial.config, data)
    config = plan.config
    seed = settings.seed + trial.repeat
    held = fold_rows(plan.data, settings, trial.repeat)[trial.fold]
    train = share_of(plan.data.material, np.setdiff1d(plan.learnt, held), trial.fraction, seed)
    optimisation = config.optimisation.model_copy(
        update={
            "epochs": settings.epochs,
            "rows_per_epoch": settings.rows_per_epoch,
            "learning_rate": settings.learning_rate[trial.mode],
            "patience": None,
        }
    )
    changes = {"optimisation": optimisation} | ({"pretrained": None, "runs": 1} if trial.mode == "scratch" else {})
    variant = plan.variant(train, config.model_copy(update=changes))
    network = variant.new_member(trial.fold + trial.repeat)
    freeze(network, trial.mode)
    fitted, seconds = fine_tune(variant, network, train, seed * settings.folds + trial.fold, settings.recall_share)
    return pack(TrialOutcome({"clean": fitted.predict(plan.clean[held].numpy())}, fitted.parameters, seconds, 0.0))


def cross_validated(config: TrainingConfig, pretrained: str | None) -> TrainingConfig:
    """Return the config for cross-validation over ``train`` and ``val``, with the pre-trained model's network."""
    changes: dict[str, Any] = {"protocol": "cross-validation", "pretrained": pretrained}
    if pretrained is not None:
        card = cards.read_card(cards.find(pretrained))
        changes["network"] = Network.model_validate(card.training["network"])
    return config.model_copy(update=changes)


def weights_digest(pretrained: str) -> str:
    """Return the SHA-256 of the initial weights of fine-tuning, which recalibration does not change."""
    digest = hashlib.sha256()
    for name, weight in sorted(served_weights(cards.find(pretrained)).items()):
        if name.startswith("spt.") or name in ("centre", "spread"):
            digest.update(name.encode() + weight.numpy().tobytes())
    return digest.hexdigest()


def freeze(network: SPT, mode: TuningMode) -> None:
    """Freeze the weights that ``mode`` does not train."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(mode not in TRAINED_WEIGHTS or name.startswith(TRAINED_WEIGHTS[mode]))


def fine_tune(
    plan: TrainingPlan, network: SPT, train: NDArray[np.int_], seed: int, recall_share: float
) -> tuple[FittedSPT, float]:
    """Train ``network`` and return it with the duration of the training in seconds.

    Parameters
    ----------
    train : rows; repeated rows are seen more often, but recalled once
    recall_share : share of recall in every answer
    """
    member = train_member(network, plan.rows, train, plan.scale, plan.config, seed, plan.data.material)
    classified, regressed = len(plan.config.classified), len(plan.config.regressed)
    blend = Blend(torch.ones(classified), torch.full((classified + regressed,), recall_share))
    plan = replace(plan, blend=blend)
    served = ensemble(plan, [TrainedMember.of(member)], np.unique(train))
    trained_numbers = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return FittedSPT(plan, served, trained_numbers), member.seconds


def fold_rows(data: FeffData, settings: TransferSettings, repeat: int) -> list[NDArray[np.int_]]:
    """Return the rows that each fold leaves out."""
    return folds(data.material, settings.folds, settings.fold_seed(repeat))
