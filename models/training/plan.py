"""The plan of a training: rows, folds, scaling and network of a training config; and estimates of trained members."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...agent.types import Array
from .. import card as cards
from ..engines.torchscript import load_module
from ..network import SPT, Served, SPTShape, dominant_periods, ensemble_weights, member_weights
from .calibration import Blend, HeldOut
from .config import TrainingConfig
from .data import DataError, FeffData, check_grid, load_sets
from .rows import Rows, Scale, fine_bins, prepare
from .train import Loop, cropped, folds, keys_of

_WHOLE_SPECTRA = 16  # fewer spectra do not determine periods


def config_of(card: cards.Card) -> TrainingConfig:
    """Return the training config of a model from its card, so that its training plan can be read again.

    The card names the model with the initial weights; if that model is missing, the config states none.
    """
    record = card.training
    start = record.get("pretrained")
    if start is not None and start not in cards.installed() and not (Path(start) / "card.yaml").is_file():
        record = record | {"pretrained": None, "runs": 1}
    return TrainingConfig.model_validate(
        {
            "classified": tuple(d.name for d in card.descriptors if d.kind == "classified"),
            "units": {d.name: d.unit for d in card.descriptors if d.unit},
            "lowest": {d.name: d.lowest for d in card.descriptors if d.lowest is not None},
            "not_for_mixtures": tuple(d.name for d in card.descriptors if not d.mixture),
            **card.model_dump(include=set(TrainingConfig.model_fields) & set(cards.Card.model_fields)),
            **{k: v for k, v in record.items() if k in TrainingConfig.model_fields},
        }
    )


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """Data and settings that all members share: rows, folds, scaling, and the sizes of the network."""

    config: TrainingConfig
    data: FeffData
    rows: Rows
    outliers: Rows | None
    """Spectra without labels that the out-of-distribution score must flag; None if there are none. Members are not
    trained on them."""
    outlier_is_metal: Tensor
    """(S,) whether each outlier is a metal."""
    judged: NDArray[np.int_]
    """Rows that judge the ensemble and that no member sees; empty in cross-validation."""
    clean: Tensor
    """(N, G) aligned spectra of the rows, undisturbed; NaN beyond the end of a row."""
    learnt: NDArray[np.int_]
    """Rows that members are trained on and recall."""
    folds: list[tuple[NDArray[np.int_], NDArray[np.int_]]]
    """Other rows and held-out rows of every fold; some members leave out each of the first ``members`` folds."""
    shape: SPTShape
    scale: Scale
    blend: Blend

    @classmethod
    def read(cls, config: TrainingConfig, folder: Path) -> "TrainingPlan":
        """Read the data of a training config.

        Parameters
        ----------
        folder : folder of the FEFF rows (:mod:`xas_agent.models.training.data`)

        Raises
        ------
        DataError
            The data are missing, or do not fit the config.
        """
        sets = [(name, 0.0) for name in config.datasets]
        sets += [(name, config.edge_ev - o.edge_ev) for o in config.others for name in o.datasets]
        names, shifts_ev = zip(*sets, strict=True)
        loaded = load_sets(folder, names, config.labels, shifts_ev)
        data = loaded.rows(np.isin(loaded.split, ["train", "val"]))
        check_grid(config.grid.grid(), data, config.edge_ev)
        if unlabelled := [d for d in (*config.classified, *config.regressed) if np.isnan(data.labels[d]).all()]:
            raise DataError(f"{data.name}: no row has {', '.join(unlabelled)}; remove it from the training config")
        if config.augmentation.within_framework and (data.framework == "").any():
            raise DataError(f"{data.name}: within_framework needs a formula in every row; found rows without one")
        rows = prepare(data, config)
        outliers = loaded.rows(loaded.split == "cal")
        judged = np.flatnonzero(data.split == "val") if config.protocol == "split" else np.empty(0, int)
        clean = rows.clean()
        return cls(
            config=config,
            data=data,
            rows=rows,
            outliers=replace(rows, fine=fine_bins(outliers, config), reach=None) if len(outliers) else None,
            outlier_is_metal=torch.from_numpy(outliers.kind == "metal"),
            judged=judged,
            clean=clean,
            **cls._derived_fields(config, data, rows, clean, np.setdiff1d(np.arange(len(data)), judged)),
        )

    def variant(self, train: NDArray[np.int_], config: TrainingConfig | None = None) -> Self:
        """Return a plan with the same rows that trains on ``train``, with another config if one is given."""
        config = config or self.config
        return replace(self, config=config, **self._derived_fields(config, self.data, self.rows, self.clean, train))

    @classmethod
    def _derived_fields(
        cls, config: TrainingConfig, data: FeffData, rows: Rows, clean: Tensor, learnt: NDArray[np.int_]
    ) -> dict[str, Any]:
        """Return the fields that follow from the training rows ``learnt``."""
        cut = folds(data.material[learnt], config.cuts, config.seed)
        shape, scale = cls._shape_and_scale(config, rows, clean, learnt)
        return {
            "learnt": learnt,
            "folds": [(np.setdiff1d(learnt, learnt[part]), learnt[part]) for part in cut],
            "shape": shape,
            "scale": scale,
            "blend": Blend.heads_alone(len(config.classified), len(config.regressed)),
        }

    @property
    def start(self) -> Path | None:
        """Folder of the pre-trained model; None for training from scratch."""
        return cards.find(self.config.pretrained) if self.config.pretrained else None

    def learnt_by(self, k: int) -> NDArray[np.int_]:
        """Return the rows that member k is trained on."""
        config = self.config
        held = [self.folds[(k + i) % config.members][1] for i in range(config.left_out)]
        return np.setdiff1d(self.learnt, np.concatenate(held))

    def jury(self, fold: int) -> list[int]:
        """Return the members that leave out a fold."""
        return [(fold - i) % self.config.members for i in range(self.config.left_out)]

    @classmethod
    def _shape_and_scale(
        cls, config: TrainingConfig, rows: Rows, clean: Tensor, learnt: NDArray[np.int_]
    ) -> tuple[SPTShape, Scale]:
        network = config.network
        train = clean[learnt]
        scale = Scale.of(train)
        nodes = whole(train)[:, :: network.node_points]
        periods = dominant_periods(nodes, network.bands)
        if config.pretrained:
            # The pre-trained filters hold for their own scaling and periods.
            start = cards.find(config.pretrained)
            source = served_weights(start)
            points = len(config.grid.grid())
            scale = Scale(source["centre"][:points], source["spread"][:points])
            periods = tuple(cards.read_card(start).training["periods"])
        shape = SPTShape(
            grid_points=clean.shape[1],
            periods=periods,
            classes=tuple(len(c) for c in rows.targets.classes),
            regressed=len(config.regressed),
            short_points=config.grid.grid().short_points,
            **network.model_dump(exclude={"bands"}),
        )
        return shape, scale

    def new_member(self, k: int) -> SPT:
        """Return a network with random weights, or with the pre-trained weights of member k."""
        torch.manual_seed(self.config.seed + k)
        network = SPT(self.shape)
        start = self.start
        if start is not None:
            joined = served_weights(start)
            spt = {n.removeprefix("spt."): w for n, w in joined.items() if n.startswith("spt.")}
            count = cards.read_card(start).training["members"]
            network.load_state_dict(cropped(member_weights(spt, k % count, count), self.shape))
        return network


def whole(spectra: Tensor) -> Tensor:
    """Return those spectra (N, G) that are known everywhere; if these are few, all, with means in place of NaN."""
    full = spectra[~spectra.isnan().any(1)]
    return full if len(full) >= _WHOLE_SPECTRA else spectra.where(~spectra.isnan(), spectra.nanmean(0))


@dataclass(frozen=True)
class TrainedMember:
    """A trained member as plain tensors, so that it can come from another process."""

    weights: dict[str, Tensor]
    log_sharpness: Tensor | None
    """Log sharpness of the member's recall; None without recall."""
    epochs: int
    """Number of epochs after which the weights were kept."""
    seconds: float
    """Duration of the training, s."""

    @classmethod
    def of(cls, trained: Loop[SPT]) -> "TrainedMember":
        """Keep weights and sharpness of a network; its keys can be computed again."""
        sharpness = None if trained.sharpness is None else trained.sharpness.clone()
        return cls(trained.network.state_dict(), sharpness, trained.epoch, trained.seconds)

    @classmethod
    def mean(cls, runs: "Sequence[TrainedMember]") -> "TrainedMember":
        """Average the weights of runs from the same start (model soup)."""
        if len(runs) == 1:
            return runs[0]
        sharpness = [r.log_sharpness for r in runs if r.log_sharpness is not None]
        return cls(
            {name: torch.stack([r.weights[name] for r in runs]).mean(0) for name in runs[0].weights},
            torch.stack(sharpness).mean(0) if sharpness else None,
            max(r.epochs for r in runs),
            sum(r.seconds for r in runs),
        )


_RENAMED_TENSORS = {"quieten.": "denoiser.", "familiar.strange": "ood_score.outliers", "familiar.": "ood_score."}
"""Earlier names of tensors, as in the shipped files, with their present names."""


def served_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a model folder's file, by their names in :class:`Served`.

    Raises
    ------
    ModelError
            The folder is not a model, or is a model of version 0.1.0, whose network was different.
    """
    cards.verify(folder)
    tensors = load_module(folder, torch.device("cpu")).state_dict()
    if "recall.keys" not in tensors:
        raise cards.ModelError(
            f"{folder}: a model of version 0.1.0, without recall; it can be served, but neither fine-tuned nor "
            "examined: train the model again"
        )
    return {_current_name(name): tensor.detach() for name, tensor in tensors.items()}


def _current_name(name: str) -> str:
    for old, new in _RENAMED_TENSORS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@torch.no_grad()
def ensemble(plan: TrainingPlan, members: Sequence[TrainedMember], sites: NDArray[np.int_]) -> Served:
    """Return the exported module of the members, which recall the rows ``sites``; its OOD score is not yet fitted.

    Its weights are rounded as in the file, so that keys, intervals and metrics are those of the file.
    """
    recalls = all(m.log_sharpness is not None for m in members)
    sites = sites if recalls else sites[:1]
    served = Served(plan.shape.model_copy(update={"members": len(members)}), len(sites))
    served.spt.load_state_dict(ensemble_weights([m.weights for m in members]))
    served.round_weights()
    t = plan.rows.targets
    for buffer, value in (
        (served.centre, plan.scale.centre),
        (served.spread, plan.scale.spread),
        (served.target_mean, t.mean),
        (served.target_sd, t.sd),
        (served.temperature, plan.blend.temperature),
        (served.share, plan.blend.share),
    ):
        buffer.copy_(value)
    served.eval()
    served.recall.learn([part[sites] for part in t.one_hot], t.regressed[sites])
    if recalls:
        served.recall.keys.copy_(keys_of(served.spt, plan.scale.apply(plan.clean[sites])))
        served.recall.log_sharpness.copy_(
            torch.cat([m.log_sharpness for m in members if m.log_sharpness is not None])
        )
    return served


@torch.no_grad()
def held_out(plan: TrainingPlan, members: Served, index: NDArray[np.int_]) -> HeldOut:
    """Return the answers of heads and recall for the clean rows ``index``, which the members were not trained on."""
    logits, mean, _, query = members.spt(plan.scale.apply(plan.clean[index]))
    return HeldOut(index, logits, mean, *members.recall(query))


Estimates = dict[str, tuple[Array, Array, Array]]
"""Most probable class or value, mean and sd, (n,) each, of each descriptor and regressed quantity."""


def read_columns(plan: TrainingPlan, out: Array) -> Estimates:
    """Return estimates from the output (n, ≥ classes + 2 R) of :class:`Served`."""
    read: Estimates = {}
    column = 0
    for name, classes in zip(plan.config.classified, plan.rows.targets.classes, strict=True):
        p = out[:, column : column + len(classes)]
        mean = p @ classes
        read[name] = classes[p.argmax(1)].astype(float), mean, np.sqrt(np.maximum(p @ classes**2 - mean**2, 0))
        column += len(classes)
    r = len(plan.config.regressed)
    for j, name in enumerate(plan.config.regressed):
        mean, sd = out[:, column + j], out[:, column + r + j]
        read[name] = mean, mean, sd
    return read


@torch.no_grad()
def estimates(plan: TrainingPlan, served: Served, spectra: Tensor) -> Estimates:
    """Return the estimates of a module for aligned spectra (n, G)."""
    return read_columns(plan, torch.cat([served(part) for part in spectra.split(64)]).double().numpy())


def best(estimated: Estimates) -> dict[str, Array]:
    """Return the most probable class or the regressed value (n,) of every descriptor."""
    return {d: e[0] for d, e in estimated.items()}
