"""From a training config to a model folder: train the members in separate processes, calibrate, and write."""

import multiprocessing as mp
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..network import SPT, OODScore
from ..progress import Progress
from .augment import damped, shifted
from .calibration import fit_blend
from .config import TrainingConfig
from .export import export
from .metrics import scores
from .plan import TrainedMember, TrainingPlan, best, ensemble, estimates, held_out
from .rows import FINE_EV
from .train import train_member

_OOD_TRAINING_SPECTRA = 4000
RUN_SEED_STEP = 1000  # more than there are members, so that no two runs have the same seed
METAL_GAP_EV, METAL_AMPLITUDE = 6.0, 0.64
"""Shift below FEFF's spectrum and relative amplitude of a measured metal after an alignment that corrects the offset
and the amplitude of oxides (``xas-agent calibrate`` with Ni(OH)2 and Ni metal)."""


def train_one(config: TrainingConfig, folder: Path, k: int, threads: int, queue: Any) -> TrainedMember:
    """Train member k in this process; epochs are counted through all runs.

    Parameters
    ----------
    folder : with the FEFF rows
    threads : CPU threads of torch
    queue : receives (member, epoch, validation score) after every epoch
    """
    torch.set_num_threads(threads)
    plan = TrainingPlan.read(config, folder)
    truth = {d: v[plan.judged] for d, v in plan.data.labels.items()}
    train = plan.learnt_by(k)

    def watch(before: int, epoch: int, network: SPT) -> float | None:
        score = None
        if len(plan.judged):
            heads = ensemble(plan, [TrainedMember(network.state_dict(), None, epoch, 0.0)], train)
            values = best(estimates(plan, heads, plan.judged))
            score = float(np.nanmean(list(scores(truth, values, config.classified).values())))
        queue.put((k, before + epoch, score))
        return score

    def run(r: int) -> TrainedMember:
        seed = config.seed + k + RUN_SEED_STEP * r
        watched = partial(watch, r * config.optimisation.epochs)
        start, material = plan.new_member(k), plan.data.material
        return TrainedMember.of(train_member(start, plan.rows, train, plan.scale, config, seed, watched, material))

    return TrainedMember.mean([run(r) for r in range(config.runs)])


def build(config: TrainingConfig, data: Path, out: Path, jobs: int, progress: Progress) -> Path:
    """Train, calibrate and write the model folder ``out / config.name``.

    Parameters
    ----------
    data : folder with the FEFF rows (:mod:`xas_agent.models.training.data`)
    jobs : members trained at the same time
    progress : called after every epoch of a member

    Returns
    -------
    The model folder.

    Raises
    ------
    DataError
        The data are missing, or do not fit the config.
    """
    plan = TrainingPlan.read(config, data)
    epochs = config.runs * config.optimisation.epochs
    for k in range(config.members):
        progress(f"member {k}", 0, epochs)
    context = mp.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    with context.Manager() as manager, ProcessPoolExecutor(jobs, mp_context=context) as pool:
        queue = manager.Queue()
        running = [pool.submit(train_one, config, data, k, threads, queue) for k in range(config.members)]
        while not all(r.done() for r in running) or not queue.empty():
            try:
                k, epoch, score = queue.get(timeout=0.5)
            except Empty:
                continue
            progress(f"member {k}", epoch, epochs, "" if score is None else f"validation {score:.3f}")
        trained = [r.result() for r in running]
    return assemble(plan, trained, out)


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
    served.denoiser.fit(plan.rows.disturbed(weights, pick, noiseless, generator))
    material = np.unique(plan.data.material, return_inverse=True)[1]
    served.ood_score.fit(spectra, torch.from_numpy(material)[pick], augment_outliers(plan, generator))
    return export(plan, served, juries, members, out)


def augment_outliers(plan: TrainingPlan, generator: torch.Generator) -> Tensor | None:
    """Return augmented spectra (OUTLIERS, G) of the plan's outliers, None where it has none.

    Those of metals range from the spectrum that FEFF computes to the measured one, aligned as an oxide.
    """
    if plan.outliers is None:
        return None
    rows, some = plan.outliers, torch.arange(OODScore.OUTLIERS) % len(plan.outliers.fine)
    measured = torch.linspace(0, 1, len(some))[:, None] * plan.outlier_is_metal[some, None]
    fine = shifted(rows.fine[some], FINE_EV, -METAL_GAP_EV * measured, torch.zeros_like(measured))
    fine = damped(fine, FINE_EV, 1 + (METAL_AMPLITUDE - 1) * measured)
    every = torch.arange(len(some))
    return replace(rows, fine=fine).disturbed(torch.eye(len(some)), every, plan.config.augmentation, generator)
