"""The study of disordered structures: a model of crystals unchanged and fine-tuned, and networks from scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ....agent.types import Array
from ... import card as cards
from ...progress import Progress
from ...training import TrainingConfig, TrainingPlan, prepare, served_weights
from ..competitors import TrialOutcome
from ..contract import averaged, classes_of
from ..report import Section, bootstrap, plain, score, score_bars
from .fine_tuning import TransferSettings, TransferTrial, TuningMode, all_trials, fold_rows, run_trials
from .pooled_predictions import PooledPredictions, compare, predict_with_pretrained, varied

_ZERO_SHOT = "zero-shot"
_NAMES: dict[TuningMode, str] = {
    "scratch": "training from scratch",
    "frozen": "frozen fine-tuning",
    "partial": "partial fine-tuning",
    "full": "full fine-tuning",
}
"""Names of the ways of training in tables and figures."""
_COMPARED: tuple[tuple[TuningMode, str], ...] = (("full", _ZERO_SHOT), ("full", _NAMES["scratch"]))
"""Ways of training that are compared row by row."""


class DisorderSettings(TransferSettings):
    """Zero-shot answers, fine-tuning and training from scratch on disordered structures of the model's absorber."""

    dataset: str
    """Data set of the disordered rows; by default ``ti_k_disordered`` for Ti and so on."""
    targets: tuple[TrainingConfig, ...]
    """The model's own training config with this data set."""
    fractions: tuple[float, ...] = (1.0,)
    """Fractions of the training structures; the study reads 1 only."""
    modes: tuple[TuningMode, ...] = ("scratch", "full")
    """As for ``transfer``; the zero-shot answers of the model always come first."""
    repeats: int = 3
    """Number of networks per fold, whose answers are averaged."""
    epochs: int = 30
    """Epochs of each training."""

    def fold_seed(self, repeat: int) -> int:
        """Return the same seed for all networks of a fold."""
        return self.seed

    def read_plan(self, config: TrainingConfig, data: Path) -> TrainingPlan:
        """Read the disordered rows, with the classes and the standardisation of the pre-trained model.

        All heads thus start from its weights. Labels without a class in the model are not learnt, and count as wrong.
        """
        plan = super().read_plan(config, data)
        folder = cards.find(self.pretrained)
        described = cards.read_card(folder).descriptors
        rows = prepare(plan.data, plan.config, [np.array(d.classes) for d in described if d.kind == "classified"])
        weights, t = served_weights(folder), rows.targets
        mean, sd = weights["target_mean"], weights["target_sd"]
        targets = replace(t, regressed=(t.regressed * t.sd + t.mean - mean) / sd, mean=mean, sd=sd)
        return replace(plan, rows=replace(rows, targets=targets)).variant(plan.learnt)


def disorder(settings: DisorderSettings, data: Path, kept: Path, jobs: int, progress: Progress) -> Section:
    """Run the study and return the section of the report.

    Parameters
    ----------
    data : folder of the FEFF rows
    kept : folder of finished results
    jobs : number of trials at the same time
    """
    (config,) = settings.targets
    plan = settings.read_plan(config, data)
    every = np.arange(len(plan.data))
    answers = {_ZERO_SHOT: predict_with_pretrained(plan, every, settings.pretrained)}
    trials = [t for t in all_trials(settings) if t.fraction == 1.0]
    done = list(zip(trials, run_trials(trials, settings, data, kept, jobs, progress), strict=True))
    for mode in settings.modes:
        answers[_NAMES[mode]] = _averaged(plan, settings, [(t, o) for t, o in done if t.mode == mode])
    section = Section("Disordered and amorphous structures", _protocol(settings, plan))
    judged = varied({d: plan.data.labels[d] for d in answers[_ZERO_SHOT].best})
    _add_scores(section, plan, answers, judged)
    section.tables["disorder-kinds"] = pd.DataFrame(_by_kind(plan, answers, judged))
    section.captions["disorder-kinds"] = "Weighted F1 and R² by kind of structure, and the MAE of the mean OS (e)."
    section.text += "\n\n" + "\n\n".join(_findings(section, plan, answers, judged))
    return section


def _averaged(
    plan: TrainingPlan, settings: DisorderSettings, done: Sequence[tuple[TransferTrial, TrialOutcome]]
) -> PooledPredictions:
    """Average the networks of each fold, and join the folds in the order of the rows."""
    held = fold_rows(plan.data, settings, 0)
    of_fold = [[o.predictions["clean"] for t, o in done if t.fold == k] for k in range(settings.folds)]
    best = [averaged(members).best(classes_of(plan)) for members in of_fold]
    rows = np.concatenate(held)
    order = np.argsort(rows)
    fold = np.repeat(np.arange(len(held)), [len(h) for h in held])
    joined = {d: np.concatenate([b[d] for b in best])[order] for d in best[0]}
    return PooledPredictions(rows[order], fold[order], joined)


def _add_scores(
    section: Section, plan: TrainingPlan, answers: Mapping[str, PooledPredictions], judged: Sequence[str]
) -> None:
    """Add the table and the figure of the scores, with their intervals over structures."""
    classified, data = plan.config.classified, plan.data
    merits = {
        name: {d: bootstrap(data.labels, p.best, classified, data.material, d) for d in judged}
        for name, p in answers.items()
    }
    section.tables["disorder-scores"] = pd.DataFrame(
        [
            {"descriptor": d, "training": name, "score": m.value, "low": m.lo, "high": m.hi}
            for d in judged
            for name, m in ((name, of[d]) for name, of in merits.items())
        ]
    )
    section.captions["disorder-scores"] = "Weighted F1 or R² of all rows, with 95 % intervals over structures."
    section.figures["disorder"] = score_bars(merits, classified)
    section.captions["disorder"] = "Scores of the disordered rows; bars: 95 % interval over structures."


def _by_kind(
    plan: TrainingPlan, answers: Mapping[str, PooledPredictions], judged: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the scores of each kind of structure, with a row per kind and way of training."""
    rows: list[dict[str, Any]] = []
    for kind in np.unique(plan.data.kind):
        here = plan.data.kind == kind
        truth = {d: v[here] for d, v in plan.data.labels.items()}
        for name, p in answers.items():
            best = {d: v[here] for d, v in p.best.items()}
            scores = {d: score(d, truth, best, plan.config.classified) for d in judged}
            rows.append(
                {"kind": kind, "rows": int(here.sum()), "training": name, **scores, "OS_mean MAE": _mae(truth, best)}
            )
    return rows


def _mae(truth: Mapping[str, Array], best: Mapping[str, Array]) -> float:
    """Return the mean absolute error of the mean oxidation state, e; NaN without a label."""
    if "OS_mean" not in best or np.isnan(truth["OS_mean"]).all():
        return float("nan")
    return float(np.nanmean(np.abs(best["OS_mean"] - truth["OS_mean"])))


def _findings(
    section: Section, plan: TrainingPlan, answers: Mapping[str, PooledPredictions], judged: Sequence[str]
) -> list[str]:
    """Return which way of training is best, what is not scored, and how significant the differences are."""
    labels, classified = plan.data.labels, plan.config.classified
    means = {n: float(np.mean([score(d, labels, p.best, classified) for d in judged])) for n, p in answers.items()}
    best = max(means, key=lambda n: means[n])
    listed = ", ".join(f"{n} {m:.3f}" for n, m in means.items())
    error = ", ".join(f"{n} {_mae(labels, p.best):.3f} e" for n, p in answers.items())
    said = [
        f"**Result.** The mean of {len(judged)} scores is highest for {best}: {listed}. "
        f"The MAE of the mean OS: {error}."
    ]
    if constant := [d for d in answers[_ZERO_SHOT].best if d not in judged]:
        said.append(f"Not scored, since all rows have the same label: {', '.join(map(plain, constant))}.")
        if "OS_mean" in constant:
            said[-1] += (
                " Training on rows of one mean OS learns that number alone: only the zero-shot error is a test."
            )
    known = classes_of(plan)
    strange = {d: int((~np.isin(labels[d], [*known[d], np.nan]) & ~np.isnan(labels[d])).sum()) for d in known}
    if missing := {d: n for d, n in strange.items() if n}:
        said.append(
            "Labels that no crystal of the training has, which count as wrong: "
            + ", ".join(f"{plain(d)} in {n} rows" for d, n in missing.items())
            + "."
        )
    for mode, other in _COMPARED:
        if _NAMES[mode] in answers and other in answers:
            a, b = answers[_NAMES[mode]], answers[other]
            said.append(compare(section, plan, a, b, _NAMES[mode], other))
    return said


def _protocol(settings: DisorderSettings, plan: TrainingPlan) -> str:
    kinds, counts = np.unique(plan.data.kind, return_counts=True)
    return _PROTOCOL.format(
        model=plain(Path(settings.pretrained).name),
        rows=len(plan.data),
        structures=len(np.unique(plan.data.material)),
        kinds=", ".join(f"{n} {plain(k or 'without a kind')}" for k, n in zip(kinds, counts, strict=True)),
        folds=settings.folds,
        repeats=settings.repeats,
        epochs=settings.epochs,
        per_epoch=settings.rows_per_epoch,
        share=settings.recall_share,
    )


_PROTOCOL = """
**Question.** Does {model}, trained on crystals, read disordered structures, and do a few of these help it?

**Data.** {rows} sites of {structures} structures: {kinds}. The number is the standard deviation of the displacements
along each axis, Å; amorphous structures are quenched from the melt by molecular dynamics.

**Protocol.** *zero-shot* is the model as it is, with its recall of crystals; it has seen crystals of the same
compound. *Fine-tuning* starts from its weights and *training from scratch* from random ones; both see the disordered
rows alone, for {epochs} epochs of {per_epoch} rows, and recall them with a share of {share:.0%}. They are
judged by {folds}-fold cross-validation by structure (networks per fold: {repeats}), so that no structure is both
learnt and judged.
""".strip()
