"""What pre-training on a large set is worth to a small one of another absorber."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from ....agent.types import Array, Settings
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
from ..contract import classes_of
from ..report import Arrays, Piece, Section, curves, paired_bootstrap, plain, run_all, score, slug

Mode = Literal["scratch", "frozen", "partial", "full"]
LEARNT: dict[Mode, tuple[str, ...]] = {
    "frozen": ("heads.", "query."),
    "partial": ("heads.", "query.", "gather.", "latent."),
}
"""Weights that a mode trains, by how their names begin; other modes train all."""
MEAN_OS_ERROR = "OS_mean MAE (e)"
LITTLE = 0.25
"""Fraction of the target rows at which transfer is asked to stand up to all of them without it."""


class TransferSettings(Settings):
    """Fine-tuning from a pre-trained model against training from scratch."""

    targets: tuple[TrainingConfig, ...]
    """Training configs, one per target set; the pre-trained model's network replaces theirs."""
    pretrained: str
    """Name or folder of the model whose weights fine-tuning starts from."""
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Fractions of the training materials of a fold; a smaller one is part of a larger one."""
    modes: tuple[Mode, ...] = ("scratch", "frozen", "partial", "full")
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
    learning_rate: dict[Mode, float] = Field(
        default_factory=lambda: {"scratch": 3e-3, "frozen": 3e-3, "partial": 1e-3, "full": 1e-3}
    )
    """Peak learning rate by mode."""
    recall_share: float = Field(default=0.5, ge=0, le=1)
    """Share of recall in every answer; there are too few rows to fit it."""
    seed: int = 0
    """Seed of all random numbers."""


@dataclass(frozen=True)
class TransferTrial:
    """One network: what it starts from, what it may learn, from how many rows."""

    config: TrainingConfig
    mode: Mode
    fraction: float
    fold: int
    repeat: int

    @property
    def name(self) -> str:
        """As in file names."""
        return f"transfer-{self.config.name}-{self.mode}-{self.fraction:g}-{self.repeat}.{self.fold}"


def transfer(settings: TransferSettings, data: Path, kept: Path, jobs: int, progress: Progress) -> Section:
    """Every target, fraction and mode by grouped cross-validation.

    Parameters
    ----------
    data, kept : folder of the rows, and where finished pieces of work lie
    """
    tunings = list(all_tunings(settings))
    done = list(zip(tunings, tuned(tunings, settings, data, kept, jobs, progress), strict=True))
    section = Section("Transfer to other absorbers", _protocol(settings))
    rows: list[dict[str, Any]] = []
    for config in settings.targets:
        plan = TrainingPlan.read(judged_by_folds(config, settings.pretrained), data)
        mine = [(t, o) for t, o in done if t.config is config]
        pooled: dict[tuple[Mode, float], PooledPredictions] = {
            (mode, fraction): pool(
                plan, settings, [(t, o) for t, o in mine if (t.mode, t.fraction) == (mode, fraction)]
            )
            for mode in settings.modes
            for fraction in settings.fractions
        }
        found = list(_scores(plan, pooled))
        rows += [{"target": config.name, **r} for r in found]
        shown = pd.DataFrame([r for r in found if r["descriptor"] != MEAN_OS_ERROR])
        key = slug(config.name)
        section.figures[f"transfer-{key}"] = curves(
            shown, "training", "fraction", "fraction of the training materials", config.classified
        )
        section.captions[f"transfer-{key}"] = (
            f"{plain(config.name)}: score over all held-out rows; bars: standard error over folds."
        )
        section.text += "\n\n" + _little_against_all(section, plan, pooled)
    section.tables["transfer-scores"] = pd.DataFrame(rows)
    section.captions["transfer-scores"] = "Weighted F1, R² or MAE of all held-out rows, and over folds."
    return section


# --- one network ----------------------------------------------------------------


def judged_by_folds(config: TrainingConfig, pretrained: str | None) -> TrainingConfig:
    """The config on ``train`` and ``val`` alike, with the network of the pre-trained model."""
    changes: dict[str, Any] = {"protocol": "cross-validation", "pretrained": pretrained}
    if pretrained is not None:
        card = cards.read_card(cards.find(pretrained))
        changes["network"] = Network.model_validate(card.training["network"])
    return config.model_copy(update=changes)


def all_tunings(settings: TransferSettings) -> Iterator[TransferTrial]:
    """What the study consists of."""
    for config in settings.targets:
        for mode in settings.modes:
            for fraction in settings.fractions:
                for repeat in range(settings.repeats):
                    for fold in range(settings.folds):
                        yield TransferTrial(config, mode, fraction, fold, repeat)


def tuned(
    tunings: Sequence[TransferTrial],
    settings: TransferSettings,
    data: Path,
    kept: Path,
    jobs: int,
    progress: Progress,
) -> list[TrialOutcome]:
    """What comes of each, on its held-out rows; see :func:`.kept.run_all`."""
    start = start_of(settings.pretrained)
    recipe = settings.model_dump(mode="json", exclude={"targets", "fractions", "modes", "repeats", "pretrained"})
    pieces = [
        Piece(
            t.name,
            [t.config.model_dump(mode="json"), t.mode, t.fraction, t.fold, t.repeat, recipe, start],
            partial(tune, t, settings, data),
        )
        for t in tunings
    ]
    return [unpack(a) for a in run_all("transfer", pieces, kept, jobs, progress)]


def start_of(pretrained: str) -> str:
    """SHA-256 of the weights that fine-tuning starts from; calibrating the model anew leaves it as it is."""
    digest = hashlib.sha256()
    for name, weight in sorted(served_weights(cards.find(pretrained)).items()):
        if name.startswith("spt.") or name in ("centre", "spread"):
            digest.update(name.encode() + weight.numpy().tobytes())
    return digest.hexdigest()


def tune(tuning: TransferTrial, settings: TransferSettings, data: Path) -> Arrays:
    """Train one network and let it answer for the rows of its fold."""
    config = judged_by_folds(tuning.config, settings.pretrained)
    plan = TrainingPlan.read(config, data)
    seed = settings.seed + tuning.repeat
    held = held_out_rows(plan.data, settings, tuning.repeat)[tuning.fold]
    train = share_of(plan.data.material, np.setdiff1d(plan.learnt, held), tuning.fraction, seed)
    optimisation = config.optimisation.model_copy(
        update={
            "epochs": settings.epochs,
            "rows_per_epoch": settings.rows_per_epoch,
            "learning_rate": settings.learning_rate[tuning.mode],
            "patience": None,
        }
    )
    changes = {"optimisation": optimisation} | ({"pretrained": None, "runs": 1} if tuning.mode == "scratch" else {})
    mine = plan.variant(train, config.model_copy(update=changes))
    network = mine.new_member(tuning.fold)
    only_learns(network, tuning.mode)
    fitted, seconds = taught(mine, network, train, seed * settings.folds + tuning.fold, settings.recall_share)
    return pack(TrialOutcome({"clean": fitted.predict(plan.clean[held].numpy())}, fitted.parameters, seconds, 0.0))


def only_learns(network: SPT, mode: Mode) -> None:
    """Leave the weights that ``mode`` does not train as they are."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(mode not in LEARNT or name.startswith(LEARNT[mode]))


def taught(
    plan: TrainingPlan, network: SPT, train: NDArray[np.int_], seed: int, recall_share: float
) -> tuple[FittedSPT, float]:
    """``network`` trained on the rows ``train``, of which it recalls each once, and the seconds that took.

    Parameters
    ----------
    train : rows; one that stands there several times is seen more often
    """
    member = train_member(
        network, plan.rows, train, plan.scale, plan.config, seed, lambda *_: None, plan.data.material
    )
    classified, regressed = len(plan.config.classified), len(plan.config.regressed)
    blend = Blend(torch.ones(classified), torch.full((classified + regressed,), recall_share))
    plan = replace(plan, blend=blend)
    served = ensemble(plan, [TrainedMember.of(member)], np.unique(train))
    learnt = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return FittedSPT(plan, served, learnt), member.seconds


def held_out_rows(data: FeffData, settings: TransferSettings, repeat: int) -> list[NDArray[np.int_]]:
    """Rows that each fold leaves out."""
    return folds(data.material, settings.folds, settings.seed + repeat)


# --- what came of it ----------------------------------------------------------------


@dataclass(frozen=True)
class PooledPredictions:
    """What networks that had not seen them say of rows of a plan."""

    rows: NDArray[np.int_]
    """(n,)"""
    fold: NDArray[np.int_]
    """(n,) numbered through all repeats."""
    best: dict[str, Array]
    """(n,) per descriptor, the most probable class or the value."""


def pool(
    plan: TrainingPlan, settings: TransferSettings, done: Sequence[tuple[TransferTrial, TrialOutcome]]
) -> PooledPredictions:
    """All folds, and repeats, of one way of training together."""
    rows = [held_out_rows(plan.data, settings, t.repeat)[t.fold] for t, _ in done]
    fold = [np.full(len(r), t.repeat * settings.folds + t.fold) for r, (t, _) in zip(rows, done, strict=True)]
    best = [outcome.predictions["clean"].best(classes_of(plan)) for _, outcome in done]
    return PooledPredictions(
        np.concatenate(rows), np.concatenate(fold), {d: np.concatenate([b[d] for b in best]) for d in best[0]}
    )


def fold_scores(
    descriptor: str,
    truth: Mapping[str, Array],
    value: Mapping[str, Array],
    classified: Sequence[str],
    fold: NDArray[np.int_],
) -> Array:
    """(folds,) weighted F1, or R² against the spread of all rows: a fold's few have none of their own."""
    spread = float(np.nanvar(truth[descriptor]))
    found: list[float] = []
    for f in np.unique(fold[~np.isnan(truth[descriptor])]):
        t, v = truth[descriptor][fold == f], value[descriptor][fold == f]
        if descriptor in classified:
            found.append(score(descriptor, {descriptor: t}, {descriptor: v}, classified))
        else:
            found.append(1 - float(np.nanmean((t - v) ** 2)) / spread)
    return np.array(found)


def standard_error(values: Array) -> float:
    """Of the mean of (n,) values; NaN of one."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def _scores(plan: TrainingPlan, pooled: Mapping[tuple[Mode, float], PooledPredictions]) -> Iterator[dict[str, Any]]:
    classified = plan.config.classified
    for (mode, fraction), p in pooled.items():
        truth = {d: v[p.rows] for d, v in plan.data.labels.items()}
        off = np.abs(p.best["OS_mean"] - truth["OS_mean"])
        found = {
            d: (score(d, truth, p.best, classified), fold_scores(d, truth, p.best, classified, p.fold))
            for d in p.best
        }
        by_fold = np.array([float(np.nanmean(off[p.fold == f])) for f in np.unique(p.fold)], dtype=float)
        found[MEAN_OS_ERROR] = float(np.nanmean(off)), by_fold
        for d, (value, each) in found.items():
            yield {
                "descriptor": d,
                "training": mode,
                "fraction": fraction,
                "score": value,
                "mean over folds": float(each.mean()),
                "standard_error": standard_error(each),
            }


def _protocol(settings: TransferSettings) -> str:
    return PROTOCOL.format(
        model=plain(Path(settings.pretrained).name),
        folds=settings.folds,
        fractions=", ".join(f"{f:.0%}" for f in settings.fractions),
        epochs=settings.epochs,
        rows=settings.rows_per_epoch,
        share=settings.recall_share,
    )


PROTOCOL = """
**Question.** What is the pre-trained {model} worth to the small set of another absorber?

**Protocol.** {folds}-fold cross-validation by material over `train` and `val` of each target; of the materials
that a fold leaves, {fractions} are learnt from. *scratch* starts from random weights; *frozen* trains only the
heads and the query of a pre-trained network, *partial* also its latent layer, *full* all of it. Every network
goes through {epochs} epochs of {rows} rows, a short training and the same for all, and recalls the target rows
that it has learnt from, with a share of {share:.0%} in every answer. Scores are of all held-out rows together,
since a fold alone has too few; beside them stand mean and standard error over folds, R² there being against the
spread of all rows. The prototypes' originals have been seen in pre-training, with another absorber's spectra.
""".strip()


def _little_against_all(
    section: Section, plan: TrainingPlan, pooled: Mapping[tuple[Mode, float], PooledPredictions]
) -> str:
    """Fine-tuned on few rows against scratch on all."""
    few, every = pooled.get(("full", LITTLE)), pooled.get(("scratch", 1.0))
    if few is None or every is None:
        return ""
    return compared(section, plan, few, every, f"full fine-tuning on {LITTLE:.0%}", "scratch on 100%")


def compared(
    section: Section, plan: TrainingPlan, a: PooledPredictions, b: PooledPredictions, name_a: str, name_b: str
) -> str:
    """Add a table of paired differences between two ways of training on the same rows; a sentence on them."""
    one, other = (_in_order(p) for p in (a, b))
    rows = np.sort(a.rows)
    truth = {d: v[rows] for d, v in plan.data.labels.items()}
    material, classified = plan.data.material[rows], plan.config.classified
    found: dict[str, dict[str, float]] = {}
    for d in one:
        if d in other:
            m = paired_bootstrap(truth, one, other, classified, material, d)
            values = {n: score(d, truth, v, classified) for n, v in ((name_a, one), (name_b, other))}
            found[d] = values | {"difference": m.value, "low": m.lo, "high": m.hi}
    key = slug(f"{plan.config.name} {name_a} against {name_b}")
    section.tables[key] = pd.DataFrame.from_dict(found, orient="index").rename_axis("descriptor")
    section.captions[key] = (
        f"{plain(plan.config.name)}: {name_a} against {name_b}, the difference with its 95 % interval over materials."
    )
    higher = sum(f["difference"] > 0 for f in found.values())
    ahead, behind = [d for d, f in found.items() if f["low"] > 0], [d for d, f in found.items() if f["high"] < 0]
    mae = [float(np.nanmean(np.abs(v["OS_mean"] - truth["OS_mean"]))) for v in (one, other)]
    return (
        f"**{plain(plan.config.name)}.** {name_a[0].upper()}{name_a[1:]} scores higher than {name_b} on {higher} of "
        f"{len(found)} descriptors{_named('clearly on', ahead)}{_named('clearly lower on', behind)}; the mean-OS MAE "
        f"is {mae[0]:.3f} e against {mae[1]:.3f} e."
    )


def _in_order(p: PooledPredictions) -> dict[str, Array]:
    order = np.argsort(p.rows, kind="stable")
    return {d: v[order] for d, v in p.best.items()}


def _named(what: str, names: Sequence[str]) -> str:
    return f", {what} {', '.join(plain(n) for n in names)}" if names else ""
