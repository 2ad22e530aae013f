"""``xas-agent evaluate --beside``: compares a model and a competitor on the same rows."""

import sys
from pathlib import Path

import numpy as np

from ...agent.types import Array, InputError
from ...models import card as cards
from ...models.runtime import Model
from ...models.training import DataError, TrainingPlan, scores
from ..output.tables import print_table
from .evaluate import config_in

try:
    from ...models.evaluation.competitors import COMPETITORS
    from ...models.evaluation.contract import Spectra, classes_of
except ImportError as error:
    raise InputError(
        f"evaluation requires the [train] extra: pip install 'xas-agent[train]' (no {error.name})"
    ) from None


def compare(name: str, folder: Path, competitor: str) -> None:
    """Print the scores on validation rows of a model and of a competitor trained on the same rows.

    Parameters
    ----------
    name : str
        Name or folder of the model.
    folder : Path
        Folder with the FEFF rows that the model was trained on.
    competitor : str
        Name of the competitor, such as ``extra-trees``; it has its default settings.

    Raises
    ------
    DataError
        The data are missing, or the model's training has no validation rows.
    InputError
        There is no such competitor.
    """
    if competitor not in COMPETITORS:
        raise InputError(f"no competitor {competitor}; there are {', '.join(COMPETITORS)}")
    model = Model(cards.find(name), "cpu")
    plan = TrainingPlan.read(config_in(model.card, folder), folder)
    if not len(plan.judged):
        raise DataError(
            f"{plan.data.name}: {model.name} has no validation rows, it was trained by cross-validation; its card "
            f"has the scores of that: xas-agent models show {name}"
        )
    spectra = plan.clean[plan.judged].numpy()
    truth = {d: v[plan.judged] for d, v in plan.data.labels.items()}
    other = COMPETITORS[competitor].fit(plan, plan.learnt, {}, plan.config.seed).predict(spectra)
    both = [_answers(model, spectra), other.best(classes_of(plan))]
    kinds = {d: "weighted F1" if d in plan.config.classified else "R2" for d in both[1]}
    ours, theirs = (scores(truth, {d: p[d] for d in kinds}, plan.config.classified) for p in both)
    table = [
        [
            d,
            f"{ours[d]:.3f}",
            f"{theirs[d]:.3f}",
            f"{ours[d] - theirs[d]:+.3f}",
            str(np.sum(~np.isnan(truth[d]))),
            kind,
        ]
        for d, kind in kinds.items()
    ]
    apart = np.array([ours[d] - theirs[d] for d in kinds])
    sys.stdout.write(
        f"{model.name} and {competitor}, both trained on {len(plan.learnt)} rows of {plan.data.name}, on its"
        f" {len(plan.judged)} rows for validation, of other materials\n\n"
    )
    print_table(["descriptor", model.name, competitor, "difference", "rows", "metric"], table)
    sys.stdout.write(
        f"\n{model.name} is ahead on {np.sum(apart > 0)} of {len(apart)}, mean {np.nanmean(apart):+.3f}\n"
    )


def _answers(model: Model, spectra: Spectra) -> dict[str, Array]:
    """Return the most probable class or the value (N,) of each descriptor, and, under their names, class means."""
    found = [e.descriptors for e in model.estimate(spectra)]
    answers: dict[str, Array] = {}
    for d in model.card.descriptors:
        each = [e[d.name] for e in found]
        answers[d.name] = np.array([e.mean if e.value is None else e.value for e in each], float)
        if d.mean_head:
            answers[d.mean_head] = np.array([e.mean for e in each])
    return answers
