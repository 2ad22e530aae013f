"""The study of one network for several absorbers, against one network per absorber."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ....agent.types import Array
from ... import card as cards
from ...progress import Progress
from ...training import TrainingPlan
from ..competitors import TrialOutcome, pack, unpack
from ..contract import Predictions, averaged, classes_of
from ..report import Arrays, Piece, Section, plain, run_all
from .fine_tuning import TransferTrial, cross_validated, fine_tune, run_trials, weights_digest
from .joint_plan import JointPlan, UniversalSettings, fold_of, unseen_spectra
from .pooled_predictions import PooledPredictions, compare, pool, predict_with_pretrained

_WITH_SOURCE_BLEND, _WITH_TARGET_BLEND = "blended as the source's model", "blended as the targets' models"
_SIM = "second ordering of target"
_UNIVERSAL, _PER_ABSORBER = "the universal network", "one network for this absorber"


def universal(settings: UniversalSettings, data: Path, kept: Path, jobs: int, progress: Progress) -> Section:
    """Compare the universal network with the pre-trained model on the source and with fine-tuned ones on the targets.

    Parameters
    ----------
    data : folder of the FEFF rows
    kept : folder of finished results
    jobs : number of trainings at the same time

    Raises
    ------
    InputError
        The pre-trained model regresses other quantities than the source's config.
    """
    study = settings.transfer
    source = TrainingPlan.read(
        settings.source.model_copy(update={"pretrained": None, "runs": 1, "protocol": "split"}), data
    )
    shipped = predict_with_pretrained(source, source.judged, study.pretrained)
    recipe = settings.model_dump(mode="json", exclude={"transfer": {"pretrained"}})
    depends = [recipe, weights_digest(study.pretrained), _SIM]
    pieces = [
        Piece(f"universal-{k}", [k, *depends], partial(run_fold, k, settings, data)) for k in range(study.folds)
    ]
    outcomes = [unpack(a) for a in run_all("universal", pieces, kept, jobs, progress)]
    plan = JointPlan.join(settings, data)
    section = Section("One network for all absorbers", _protocol(settings))
    findings = [compare(section, source, _predict_source(plan, outcomes), shipped, _UNIVERSAL, _PER_ABSORBER)]
    for part, config in enumerate(study.targets, 1):
        trials = [TransferTrial(config, "full", 1.0, k, 0) for k in range(study.folds)]
        target = TrainingPlan.read(cross_validated(config, study.pretrained), data)
        done = zip(trials, run_trials(trials, study, data, kept, jobs, progress), strict=True)
        ours, theirs = _predict_target(plan, settings, outcomes, part), pool(target, study, list(done))
        findings.append(compare(section, target, ours, theirs, _UNIVERSAL, _PER_ABSORBER))
        findings += _second_ordering(plan, settings, data, outcomes, part)
    section.text += "\n\n" + "\n\n".join(findings)
    return section


def run_fold(k: int, settings: UniversalSettings, data: Path) -> Arrays:
    """Train the universal network of fold k and return its answers for the held-out rows, packed."""
    plan = JointPlan.join(settings, data)
    train, held = fold_of(plan, settings, k)
    # With structures as materials, no row recalls another of its own structure.
    variant = replace(plan.variant(np.unique(train)), data=replace(plan.data, material=plan.structure))
    fitted, seconds = fine_tune(
        variant, variant.new_member(k), train, settings.seed + k, settings.transfer.recall_share
    )
    spectra = plan.clean[held].numpy()
    answers = {_WITH_TARGET_BLEND: fitted.predict(spectra)}
    # The pre-trained model of the comparison has a fitted blend.
    fitted.served.temperature.copy_(torch.tensor(_blend_of_card(settings, plan.config.classified, "temperature")))
    names = (*plan.config.classified, *plan.config.regressed)
    fitted.served.share.copy_(torch.tensor(_blend_of_card(settings, names, "recall_share")))
    answers[_WITH_SOURCE_BLEND] = fitted.predict(spectra)
    for part in range(1, plan.parts.max() + 1):
        unseen, _ = unseen_spectra(settings, plan, data, part)
        answers[f"{_SIM} {part}"] = fitted.predict(unseen.float().numpy())
    return pack(TrialOutcome(answers, fitted.parameters, seconds, 0.0))


def _blend_of_card(settings: UniversalSettings, names: Sequence[str], key: str) -> list[float]:
    """Return temperatures or shares of some descriptors from the card of the pre-trained model."""
    card = cards.read_card(cards.find(settings.transfer.pretrained))
    described = [d.name for d in card.descriptors if d.kind == "classified"] + list(card.regressed)
    values = dict(zip(described, card.training[key], strict=False))
    return [values[name] for name in names]


def _predict_source(plan: JointPlan, outcomes: Sequence[TrialOutcome]) -> PooledPredictions:
    """Return the predictions of the universal networks of all folds, as an ensemble, for the source's ``val``."""
    rows = np.arange(len(plan.judged))  # these come first in the rows that every fold holds out
    mean = averaged([_select(outcome.predictions[_WITH_SOURCE_BLEND], rows) for outcome in outcomes])
    return PooledPredictions(plan.judged, np.zeros(len(rows), int), mean.best(classes_of(plan)))


def _predict_target(
    plan: JointPlan, settings: UniversalSettings, outcomes: Sequence[TrialOutcome], part: int
) -> PooledPredictions:
    """Return the universal networks' predictions for one target, with the row numbers of the target's own plan."""
    first = int(np.flatnonzero(plan.parts == part)[0])
    rows: list[NDArray[np.int_]] = []
    best: list[dict[str, Array]] = []
    for k, outcome in enumerate(outcomes):
        _, held = fold_of(plan, settings, k)
        of_target = np.flatnonzero(plan.parts[held] == part)
        rows.append(held[of_target] - first)
        best.append(_select(outcome.predictions[_WITH_TARGET_BLEND], of_target).best(classes_of(plan)))
    fold = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return PooledPredictions(np.concatenate(rows), fold, {d: np.concatenate([b[d] for b in best]) for d in best[0]})


def _second_ordering(
    plan: JointPlan, settings: UniversalSettings, data: Path, outcomes: Sequence[TrialOutcome], part: int
) -> list[str]:
    """Return the ensemble's error on rows with another Li ordering, in a list that is empty without such rows."""
    _, true = unseen_spectra(settings, plan, data, part)
    if not len(true):
        return []
    predicted = np.mean([o.predictions[f"{_SIM} {part}"].values["OS_mean"] for o in outcomes], axis=0)
    error, name = np.abs(predicted - true).mean(), plain(settings.transfer.targets[part - 1].name)
    return [
        f"On the {len(true)} rows of split `sim`, which have another Li ordering and are never trained on, the "
        f"ensemble of universal networks has an MAE of the mean OS of {error:.3f} e; `xas-agent evaluate {name} "
        "--split sim` prints that of the shipped model."
    ]


def _select(p: Predictions, rows: NDArray[np.int_]) -> Predictions:
    logits, values, spreads = ({d: v[rows] for d, v in of.items()} for of in (p.logits, p.values, p.spreads))
    return Predictions(logits, values, spreads)


def _protocol(settings: UniversalSettings) -> str:
    study = settings.transfer
    return _PROTOCOL.format(
        absorbers=" + ".join(plain(c.absorber) for c in (settings.source, *study.targets)),
        epochs=settings.epochs,
        copies=settings.copies,
        folds=study.folds,
        source=plain(settings.source.name),
    )


_PROTOCOL = """
**Question.** Is one network for {absorbers} as good as one network for each?

**Protocol.** The universal network reads the spectra of all absorbers on a common grid, in eV relative to the edge of
each. The absorber is an input: behind the spectrum each absorber has a group of points, which are 1 for the absorber
of the row and 0 otherwise. The classes are the union of those of all sets. Training starts from the pre-trained
network, as that of the compared networks does, and takes {epochs} epochs, in which rows of the small sets occur
{copies} times as often; only sites of one absorber are mixed. {folds} networks leave out one fold of each small set,
the same folds as in transfer, and the {source} validation rows. A structure that is held out with one absorber is not
trained on with another; pre-training has seen the same structures as in transfer. On the small sets each network
answers for its fold and is compared with one full fine-tuning on all other rows. On the large set all networks answer
together and are compared with the pre-trained model. Training uses the disturbances of the small sets' configs. Heads
and recall are blended as in the compared model.
""".strip()
