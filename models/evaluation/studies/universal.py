"""One network for several absorbers, against one per absorber."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ....agent.types import Array, InputError, Settings
from ... import card as cards
from ...network import GATHERED_POINTS, SPT, SPTShape
from ...training import (
    FINE_EV,
    Augmentation,
    FeffData,
    Rows,
    Scale,
    Targets,
    TrainingConfig,
    TrainingPlan,
    add_noise,
    disturb,
    folds,
    load_feff,
    mixtures,
    prepare,
)
from ..competitors import TrialOutcome, from_columns, pack, unpack
from ..contract import Predictions, averaged, classes_of
from ..report import Arrays, Piece, Progress, Section, plain, run_all
from .transfer import (
    PooledPredictions,
    TransferSettings,
    TransferTrial,
    compared,
    judged_by_folds,
    pool,
    start_of,
    taught,
    tuned,
)

OF_SOURCE, OF_TARGETS = "blended as the source's model", "blended as the targets' models"
SIM = "second ordering of target"
UNIVERSAL, OWN = "the universal network", "one for this absorber"


class UniversalSettings(Settings):
    """One network for the source's and all targets' rows."""

    source: TrainingConfig
    """Training config of the large set; its ``val`` rows judge."""
    transfer: TransferSettings
    """Targets, folds, pre-trained model and fine-tuning of the networks per target."""
    epochs: int = 8
    """Epochs of the training."""
    copies: int = Field(default=10, ge=1)
    """How often an epoch repeats each target row relative to a source row."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    seed: int = 0
    """Seed of all random numbers."""


@dataclass
class FlaggedRows(Rows):
    """Rows of several absorbers: behind every spectrum stand flags that say whose it is."""

    flags: int
    """Last columns of ``fine``."""

    def aligned(self, fine: Tensor) -> Tensor:
        """As :meth:`Rows.aligned`, the flags behind."""
        return torch.cat([super().aligned(fine[:, : -self.flags]), fine[:, -self.flags :]], dim=1)

    def mixtures(self, index: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
        """As :meth:`Rows.mixtures`, among rows of one absorber: of two it would be none."""
        group = self.fine[index, -self.flags :].argmax(1)
        if how.within_framework:
            group = group * (self.framework.max() + 1) + self.framework[index]
        return mixtures(len(index), len(index), how, generator, group)

    def disturbed(self, weights: Tensor, index: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
        """As :meth:`Rows.disturbed`, the flags behind as they are."""
        fine = weights @ self.fine[index]
        spectra = super().aligned(disturb(fine[:, : -self.flags], self.fine_start_ev, FINE_EV, how, generator))
        spectra = self.footing(add_noise(spectra, self.slope_shape, how, generator))
        return torch.cat([spectra, fine[:, -self.flags :]], dim=1)


@dataclass(frozen=True, eq=False)
class JointPlan(TrainingPlan):
    """Rows of several absorbers on the grid that all share, in eV relative to each one's edge.

    The absorber is an input: a group of points of its own behind the spectrum, 1 for its absorber and 0 for the
    others. The classes of a descriptor are the union.
    """

    parts: NDArray[np.int_]
    """(N,) whose a row is: 0 the source's, then the targets' in order."""
    structure: NDArray[np.str_]
    """(N,) of which a row is, whichever its absorber."""

    @classmethod
    def join(cls, settings: UniversalSettings, data: Path) -> "JointPlan":
        """Lay out the rows of the source and of all targets."""
        targets = [judged_by_folds(c, settings.transfer.pretrained) for c in settings.transfer.targets]
        shared = targets[0]
        optimisation = settings.source.optimisation.model_copy(
            update={"epochs": settings.epochs, "learning_rate": settings.learning_rate, "rows_per_epoch": 1}
        )
        config = shared.model_copy(update={"name": "universal", "optimisation": optimisation})
        alike = {"grid": shared.grid, "classified": shared.classified, "regressed": shared.regressed}
        configs = [c.model_copy(update=alike) for c in (settings.source, *targets)]
        loaded = [_rows_of(c, data, ["train", "val"]) for c in configs]
        parts = np.repeat(np.arange(len(loaded)), [len(p) for p in loaded])
        together, rows = _together(loaded), _flagged(loaded, configs)
        clean = rows.aligned(rows.fine)
        judged = np.flatnonzero((parts == 0) & (together.split == "val"))
        return cls(
            config=config,
            data=together,
            rows=rows,
            outliers=None,
            outlier_is_metal=torch.empty(0, dtype=torch.bool),
            judged=judged,
            clean=clean,
            parts=parts,
            structure=prototype(together.material, np.array([c.absorber for c in configs])[parts]),
            **cls._settled(config, together, rows, clean, np.setdiff1d(np.arange(len(together)), judged)),
        )

    @classmethod
    def _shape_and_scale(
        cls, config: TrainingConfig, rows: Rows, clean: Tensor, learnt: NDArray[np.int_]
    ) -> tuple[SPTShape, Scale]:
        shape, scale = super()._shape_and_scale(config, rows, clean, learnt)
        points = len(config.grid.grid())
        flags = shape.grid_points - points
        centre = torch.cat([scale.centre[:points], torch.zeros(flags)])
        return shape, Scale(centre, torch.cat([scale.spread[:points], torch.ones(flags)]))

    def new_member(self, k: int) -> SPT:
        """A network with the pre-trained weights of member k, in whose latent layer the flags begin at 0."""
        shape = self.shape.model_copy(update={"grid_points": len(self.config.grid.grid())})
        bare = replace(self, shape=shape)
        start, network = TrainingPlan.new_member(bare, k).state_dict(), SPT(self.shape)
        for name, weight in network.state_dict().items():
            old = start[name]
            if name == "embedding.place":
                weight[:, :, : old.shape[2]] = old
            elif name == "latent.1.weight":
                weight.zero_()
                split = (len(weight), self.shape.gathered, -1)
                weight.reshape(split)[:, :, : old.reshape(split).shape[2]] = old.reshape(split)
            elif not name.endswith("outside"):
                weight.copy_(old)
        return network


def _rows_of(config: TrainingConfig, data: Path, splits: Sequence[str]) -> FeffData:
    labels = config.classified + tuple(d for d in config.regressed if d != "OS_mean")
    loaded = load_feff(data, config.dataset, labels)
    return loaded.rows(np.isin(loaded.split, splits))


def _together(parts: Sequence[FeffData]) -> FeffData:
    """All rows one after the other, without their spectra, whose energies differ in number."""

    def column(name: str) -> NDArray[np.str_]:
        return np.concatenate([getattr(p, name) for p in parts])

    ids, labels = column("ids"), {d: np.concatenate([p.labels[d] for p in parts]) for d in parts[0].labels}
    none = np.empty((len(ids), 0))
    material, split, kind, framework = (column(name) for name in ("material", "split", "kind", "framework"))
    return FeffData("universal", ids, material, split, kind, framework, none, none, labels)


def _flagged(parts: Sequence[FeffData], configs: Sequence[TrainingConfig]) -> FlaggedRows:
    """Spectra and labels of all rows, the classes being the union."""

    def classes_in(d: str) -> NDArray[np.int_]:
        values = np.concatenate([p.labels[d] for p in parts])
        return np.unique(values[~np.isnan(values)]).astype(int)

    classes = [classes_in(d) for d in configs[0].classified]
    each = [prepare(p, c, classes) for p, c in zip(parts, configs, strict=True)]
    fine: list[Tensor] = []
    for k, rows in enumerate(each):
        fine.append(torch.cat([rows.fine, _flags(len(rows.fine), k, len(parts))], dim=1))
    of = [rows.targets for rows in each]
    raw = torch.cat([t.regressed * t.sd + t.mean for t in of])
    mean = raw.nanmean(0)
    sd = (raw - mean).square().nanmean(0).sqrt()
    one_hot = [torch.cat([t.one_hot[k] for t in of]) for k in range(len(classes))]
    targets = Targets(one_hot, (raw - mean) / sd, classes, mean, sd)
    framework = torch.cat([rows.framework for rows in each])
    return FlaggedRows(torch.cat(fine), targets, each[0].grid, framework, flags=len(parts) * GATHERED_POINTS)


def _flags(rows: int, part: int, parts: int) -> Tensor:
    """(rows, parts · GATHERED_POINTS) what stands behind the spectra of the absorber ``part``."""
    flags = torch.zeros(rows, parts, GATHERED_POINTS)
    flags[:, part] = 1.0
    return flags.flatten(1)


def never_trained_on(settings: UniversalSettings, plan: JointPlan, data: Path, part: int) -> tuple[Tensor, Array]:
    """Spectra (n, G + flags) of the target ``part``'s rows of split ``sim``, and their mean oxidation states (n,)."""
    alike = {"grid": plan.config.grid, "classified": plan.config.classified, "regressed": plan.config.regressed}
    config = settings.transfer.targets[part - 1].model_copy(update=alike)
    found = _rows_of(config, data, ["sim"])
    if not len(found):
        return torch.empty(0, plan.clean.shape[1]), np.empty(0)
    rows = prepare(found, config)
    flags = _flags(len(found), part, plan.parts.max() + 1)
    return torch.cat([rows.aligned(rows.fine), flags], dim=1), found.labels["OS_mean"]


def prototype(material: NDArray[np.str_], absorber: NDArray[np.str_]) -> NDArray[np.str_]:
    """(N,) the structure of a material, whichever its absorber: ``mp-361`` of ``mp-361_Co``, ``CoO``: ``MO``."""

    def of(m: str, symbol: str) -> str:
        if m.startswith(("mp-", "mvc-")):
            return m.rsplit("_", 1)[0]
        return re.sub(rf"{symbol}(?![a-z])", "M", m)

    return np.array([of(m, a) for m, a in zip(material.tolist(), absorber.tolist(), strict=True)])


def fold_of(plan: JointPlan, settings: UniversalSettings, k: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Rows to learn from, targets' ones repeated, and the rows held out in fold k.

    Held out are the source's ``val`` and the same folds of each target as in :mod:`.transfer`; no row is learnt from
    whose structure, with whichever absorber, is held out.
    """
    held = [plan.judged]
    for part in range(1, plan.parts.max() + 1):
        rows = np.flatnonzero(plan.parts == part)
        held.append(rows[folds(plan.data.material[rows], settings.transfer.folds, settings.transfer.seed)[k]])
    out = np.concatenate(held)
    structure = plan.structure
    learnt = np.flatnonzero(~np.isin(structure, structure[out]))
    times = np.where(plan.parts[learnt] == 0, 1, settings.copies)
    return np.repeat(learnt, times), out


def teach(k: int, settings: UniversalSettings, data: Path) -> Arrays:
    """Train the universal network of fold k and let it answer for what that fold holds out."""
    plan = JointPlan.join(settings, data)
    learnt, held = fold_of(plan, settings, k)
    # No row recalls another of its own structure.
    mine = replace(plan.variant(np.unique(learnt)), data=replace(plan.data, material=plan.structure))
    fitted, seconds = taught(mine, mine.new_member(k), learnt, settings.seed + k, settings.transfer.recall_share)
    spectra = plan.clean[held].numpy()
    said = {OF_TARGETS: fitted.predict(spectra)}
    # The model that it is compared with on the source has its blend fitted; a fixed one would be a handicap.
    fitted.served.temperature.copy_(torch.tensor(_of_card(settings, plan.config.classified, "temperature")))
    names = (*plan.config.classified, *plan.config.regressed)
    fitted.served.share.copy_(torch.tensor(_of_card(settings, names, "recall_share")))
    said[OF_SOURCE] = fitted.predict(spectra)
    for part in range(1, plan.parts.max() + 1):
        unseen, _ = never_trained_on(settings, plan, data, part)
        said[f"{SIM} {part}"] = fitted.predict(unseen.float().numpy())
    return pack(TrialOutcome(said, fitted.parameters, seconds, 0.0))


def _of_card(settings: UniversalSettings, names: Sequence[str], key: str) -> list[float]:
    """What the pre-trained model's card says of its blend, for some of its descriptors."""
    card = cards.read_card(cards.find(settings.transfer.pretrained))
    own = [d.name for d in card.descriptors if d.kind == "classified"] + list(card.regressed)
    found = dict(zip(own, card.training[key], strict=False))
    return [found[name] for name in names]


# --- against one per absorber ----------------------------------------------------------------


def universal(settings: UniversalSettings, data: Path, kept: Path, jobs: int, progress: Progress) -> Section:
    """The universal network against the pre-trained model on the source and the fine-tuned ones on the targets.

    Parameters
    ----------
    data, kept : folder of the rows, and where finished pieces of work lie
    """
    study = settings.transfer
    own = TrainingPlan.read(
        settings.source.model_copy(update={"pretrained": None, "runs": 1, "protocol": "split"}), data
    )
    shipped = _shipped(own, study.pretrained)
    recipe = settings.model_dump(mode="json", exclude={"transfer": {"pretrained"}})
    depends = [recipe, start_of(study.pretrained), SIM]
    pieces = [Piece(f"universal-{k}", [k, *depends], partial(teach, k, settings, data)) for k in range(study.folds)]
    outcomes = [unpack(a) for a in run_all(pieces, kept, jobs, progress)]
    plan = JointPlan.join(settings, data)
    section = Section("One network for all absorbers", _protocol(settings))
    found = [compared(section, own, _of_source(plan, outcomes), shipped, UNIVERSAL, OWN)]
    for part, config in enumerate(study.targets, 1):
        once = [TransferTrial(config, "full", 1.0, k, 0) for k in range(study.folds)]
        target = TrainingPlan.read(judged_by_folds(config, study.pretrained), data)
        done = zip(once, tuned(once, study, data, kept, jobs, progress), strict=True)
        ours, theirs = _of_target(plan, settings, outcomes, part), pool(target, study, list(done))
        found.append(compared(section, target, ours, theirs, UNIVERSAL, OWN))
        found += _second_ordering(plan, settings, data, outcomes, part)
    section.text += "\n\n" + "\n\n".join(found)
    return section


def _of_source(plan: JointPlan, outcomes: Sequence[TrialOutcome]) -> PooledPredictions:
    """The universal networks of all folds as an ensemble on the source's ``val``, which none has seen."""
    rows = np.arange(len(plan.judged))  # they stand first among what every fold holds out
    mean = averaged([_part(outcome.predictions[OF_SOURCE], rows) for outcome in outcomes])
    return PooledPredictions(plan.judged, np.zeros(len(rows), int), mean.best(classes_of(plan)))


def _shipped(own: TrainingPlan, pretrained: str) -> PooledPredictions:
    """The pre-trained model, all members of it, on the same rows."""
    folder = cards.find(pretrained)
    card = cards.verify(folder)
    if card.regressed != own.config.regressed:
        raise InputError(
            f"{folder}: regresses {', '.join(card.regressed)}; expected {', '.join(own.config.regressed)}"
        )
    model = torch.jit.load(folder / "model.ts", map_location="cpu")
    with torch.no_grad():
        out = torch.cat([model(part) for part in own.clean[own.judged].split(64)]).double().numpy()
    return PooledPredictions(own.judged, np.zeros(len(out), int), from_columns(own, out).best(classes_of(own)))


def _of_target(
    plan: JointPlan, settings: UniversalSettings, outcomes: Sequence[TrialOutcome], part: int
) -> PooledPredictions:
    """The universal networks on one target, rows numbered as in the target's own plan."""
    first = int(np.flatnonzero(plan.parts == part)[0])
    rows: list[NDArray[np.int_]] = []
    said: list[dict[str, Array]] = []
    for k, outcome in enumerate(outcomes):
        _, held = fold_of(plan, settings, k)
        mine = np.flatnonzero(plan.parts[held] == part)
        rows.append(held[mine] - first)
        said.append(_part(outcome.predictions[OF_TARGETS], mine).best(classes_of(plan)))
    fold = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return PooledPredictions(np.concatenate(rows), fold, {d: np.concatenate([s[d] for s in said]) for d in said[0]})


def _second_ordering(
    plan: JointPlan, settings: UniversalSettings, data: Path, outcomes: Sequence[TrialOutcome], part: int
) -> list[str]:
    """What all networks together err by along a series of which none has seen this ordering."""
    _, true = never_trained_on(settings, plan, data, part)
    if not len(true):
        return []
    said = np.mean([o.predictions[f"{SIM} {part}"].values["OS_mean"] for o in outcomes], axis=0)
    error, name = np.abs(said - true).mean(), plain(settings.transfer.targets[part - 1].name)
    return [
        f"On the {len(true)} rows of split `sim`, another Li ordering of its layered series, never trained on, the "
        f"universal networks together have a mean-OS MAE of {error:.3f} e; the shipped model's is printed by "
        f"`xas-agent evaluate {name} --split sim`."
    ]


def _part(said: Predictions, rows: NDArray[np.int_]) -> Predictions:
    logits, values, spreads = ({d: v[rows] for d, v in of.items()} for of in (said.logits, said.values, said.spreads))
    return Predictions(logits, values, spreads)


def _protocol(settings: UniversalSettings) -> str:
    study = settings.transfer
    return PROTOCOL.format(
        absorbers=" + ".join(plain(c.absorber) for c in (settings.source, *study.targets)),
        epochs=settings.epochs,
        copies=settings.copies,
        folds=study.folds,
        source=plain(settings.source.name),
    )


PROTOCOL = """
**Question.** Can one network serve {absorbers} as well as one for each?

**Protocol.** The universal network reads all absorbers' spectra on the grid that they share, in eV relative to
each one's edge, and which absorber it is: a group of points of its own behind the spectrum, 1 for its absorber
and 0 for the others. Its classes are the union. It starts from the pre-trained network, as those do that it is
compared with, and goes through the rows {epochs} times, through those of the small sets {copies} times as
often; sites are mixed within one absorber alone. {folds} networks leave out a fold
of each small set, the same folds as in transfer, and the {source} validation rows; a structure that is held out
with one absorber is not learnt from with another (what pre-training has seen is as in transfer). On the small
sets each network answers for its fold, against full fine-tuning, once, on all other rows; on the large one all answer
together, against the pre-trained model itself. Spectra are disturbed in training as the configs of the small sets
say; heads and recall are blended as in what it is compared with.
""".strip()
