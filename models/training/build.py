"""Trains and calibrates a model from a training config, and writes its folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...agent.types import InputError
from ..network import OODScore
from ..progress import Progress
from .augment import damped, shifted
from .calibration import fit_blend
from .config import TrainingConfig
from .export import export
from .plan import TrainedMember, TrainingPlan, ensemble, held_out
from .rows import FINE_EV
from .together import Checkpoint, train_together

_OOD_TRAINING_SPECTRA = 4000
CHECKPOINT = "training.pt"
"""File in the model folder that stores an unfinished training."""
METAL_AMPLITUDE = 0.58
"""Amplitude of a measured metal relative to FEFF's (``xas-agent calibrate`` with Ni metal)."""
_COVALENT_SHARE = 0.5
"""Assumed offset of other outliers (sulphides, phosphides) above that of the oxides, relative to the metal's."""


def build(config: TrainingConfig, data: Path, out: Path, device: str, progress: Progress) -> Path:
    """Train, calibrate and write the model folder ``out / config.name``.

    An interrupted training continues from its last checkpoint in that folder.

    Parameters
    ----------
    data : folder of the FEFF rows (:mod:`xas_agent.models.training.data`)
    device : ``cpu``, ``cuda``, or ``auto`` for CUDA if available
    progress : called after every epoch

    Returns
    -------
    The model folder.

    Raises
    ------
    DataError
        The data are missing, or do not fit the config.
    InputError
        CUDA is not available.
    """
    on = device_of(device)
    plan = TrainingPlan.read(config, data)
    checkpoint = Checkpoint(out / config.name / CHECKPOINT)
    folder = assemble(plan, train_members(plan, on, progress, checkpoint), out)
    checkpoint.path.unlink(missing_ok=True)
    return folder


def device_of(name: str) -> torch.device:
    """Return the device of a name: ``cpu``, ``cuda``, or ``auto`` for CUDA if available.

    Raises
    ------
    InputError
        CUDA is not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda is not available to torch; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def train_members(
    plan: TrainingPlan, device: torch.device, progress: Progress, checkpoint: Checkpoint | None = None
) -> list[TrainedMember]:
    """Train all members of a plan, each as the mean of its runs."""
    config = plan.config
    numbers = [k for k in range(config.members) for _ in range(config.runs)]
    networks, trains = [plan.new_member(k) for k in numbers], [plan.learnt_by(k) for k in numbers]
    epochs, task = config.optimisation.epochs, f"{config.name}, {config.members} members"

    def watch(epoch: int, score: float | None) -> None:
        progress(task, epoch, epochs, "" if score is None else f"validation {score:.3f}")

    progress(task, 0, epochs)
    trained = train_together(plan, networks, trains, device, watch, checkpoint)
    runs = config.runs
    return [TrainedMember.mean(trained[k * runs : (k + 1) * runs]) for k in range(config.members)]


def assemble(plan: TrainingPlan, members: Sequence[TrainedMember], out: Path) -> Path:
    """Calibrate the ensemble of trained members on rows held out from each, and write its folder."""
    folds = plan.folds[: len(members)]
    juries = [ensemble(plan, [members[k] for k in plan.jury(j)], rest) for j, (rest, _) in enumerate(folds)]
    held = [held_out(plan, jury, index) for jury, (_, index) in zip(juries, folds, strict=True)]
    t = plan.rows.targets
    recalls = all(m.log_sharpness is not None for m in members)
    plan = replace(plan, blend=fit_blend(held, t.one_hot, t.regressed, recalls))
    for jury in juries:
        jury.temperature.copy_(plan.blend.temperature)
        jury.share.copy_(plan.blend.share)
    served = ensemble(plan, members, plan.learnt)
    generator = torch.Generator().manual_seed(plan.config.seed)
    pick = torch.as_tensor(plan.learnt)[
        torch.randint(len(plan.learnt), (_OOD_TRAINING_SPECTRA,), generator=generator)
    ]
    weights = plan.rows.mixtures(pick, plan.config.augmentation, generator)
    spectra = plan.rows.disturbed(weights, pick, plan.config.augmentation, generator)
    noiseless = plan.config.augmentation.model_copy(update={"noise": 0.0})
    served.denoiser.fit(plan.rows.disturbed(weights, pick, noiseless, generator)[:, : served.short])
    material = np.unique(plan.data.material, return_inverse=True)[1]
    outliers = augment_outliers(plan, generator)
    outliers = None if outliers is None else outliers[:, : served.short]
    served.ood_score.fit(spectra[:, : served.short], torch.from_numpy(material)[pick], outliers)
    return export(plan, served, juries, members, out)


def augment_outliers(plan: TrainingPlan, generator: torch.Generator) -> Tensor | None:
    """Return augmented spectra (OUTLIERS, G) of the plan's outliers; None if it has none.

    They range from the spectrum that FEFF computes to the measured one, whose alignment applies the offset and, for
    metals, the amplitude of oxides.
    """
    if plan.outliers is None:
        return None
    rows, some = plan.outliers, torch.arange(OODScore.OUTLIERS) % len(plan.outliers.fine)
    measured, metal = torch.linspace(0, 1, len(some))[:, None], plan.outlier_is_metal[some, None]
    domain = plan.config.domain
    gap_ev = torch.where(metal, domain.metal_gap_ev, _COVALENT_SHARE * domain.metal_gap_ev)
    fine = shifted(rows.fine[some], FINE_EV, -gap_ev * measured, torch.zeros_like(measured))
    fine = damped(fine, FINE_EV, 1 + (METAL_AMPLITUDE / domain.amplitude - 1) * measured * metal)
    every = torch.arange(len(some))
    return replace(rows, fine=fine).disturbed(torch.eye(len(some)), every, plan.config.augmentation, generator)
