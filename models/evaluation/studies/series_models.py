"""Fine-tuned SPTs, PLS and linear combinations for left-out compositions of a layered series."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from ....agent.types import Array, Settings
from ...progress import Progress
from ...training import FINE_EV, Augmentation, TrainingConfig, shifted
from ..competitors import PLS, PLSSettings, end_member_share
from ..report import Arrays, Piece, run_all, slug
from .fine_tuning import fine_tune, weights_digest
from .layered_series import (
    AS_COMPUTED,
    AS_MEASURED,
    MEAN_BROADENING_EV,
    LayeredSeries,
    read_series,
    spectra_of,
    stacking,
)

PLS_NAME, PLS_COPIES_NAME, LCF_NAME = "PLS", "PLS, disturbed copies", "LCF"
OS_AT_X1, OS_AT_X0 = 3.0, 4.0
"""Mean oxidation states of the ends, x = 1 and x = 0."""


class FineTuneSettings(Settings):
    """Fine-tuning of a network for a series; other settings are those of the target's config."""

    epochs: int = 60
    """Epochs of each training."""
    rows_per_epoch: int = 256
    """Rows per epoch."""
    batch: int = 24
    """Rows per step."""
    learning_rate: float = 4e-3
    """Peak learning rate."""
    dropout: float = 0.0
    """Dropout rate; dropout blurs the small differences between the spectra of a series."""
    regression_weight: float = 10.0
    """Weight of the regression loss relative to one classified descriptor."""
    recall_weight: float = 0.0
    """Weight of the recall loss; the series has no site of a left-out composition to recall."""
    others: bool = False
    """Whether to train also on rows outside the series."""
    copies: int = Field(default=1, ge=1)
    """Number of times that an epoch repeats each layered row relative to another row."""
    augmentation: Augmentation = Augmentation(
        disturbed=0.8, shift_ev=0.3, broadening_ev=2.0, noise=0.01, slope=0.0, mixed=0.8, mixture_max=3
    )
    """Disturbances, equal to those in the copies that PLS learns from."""


class DelithiationSettings(Settings):
    """Leave-one-composition-out over the layered series of each target."""

    targets: tuple[TrainingConfig, ...]
    """Training configs, one per series."""
    pretrained: str
    """Name or folder of the model that fine-tuning starts from."""
    members: int = Field(default=3, ge=1)
    """Number of networks per left-out composition, whose answers are averaged."""
    recipes: dict[str, FineTuneSettings] = Field(default_factory=lambda: {"SPT": FineTuneSettings()})
    """Fine-tuning by name in the report; the first is compared with the linear models."""
    pls: PLSSettings = PLSSettings()
    """Partial least squares on the rows as computed."""
    pls_copies: PLSSettings = PLSSettings(copies=20)
    """Partial least squares on the rows and disturbed copies."""
    draws: int = Field(default=10, ge=1)
    """Number of disturbed versions of each judged row, for the figures under measured conditions."""
    seed: int = 0
    """Seed of all random numbers."""

    @property
    def models(self) -> list[str]:
        """Names of the compared models, in order."""
        return [*self.recipes, PLS_NAME, PLS_COPIES_NAME, LCF_NAME]


def network_answers(
    k: int,
    composition: float,
    recipe: FineTuneSettings,
    config: TrainingConfig,
    settings: DelithiationSettings,
    data: Path,
) -> Arrays:
    """Train network k without a composition; return its mean oxidation states by condition, (n,) or (draws · n,)."""
    series = read_series(config, settings.pretrained, data)
    learnt = series.learnt(composition)
    of_series = np.intersect1d(learnt, series.layered)
    train = np.concatenate([learnt if recipe.others else of_series, *([of_series] * (recipe.copies - 1))])
    plan = series.plan.variant(np.unique(train), fine_tuning_config(series.plan.config, recipe))
    fitted, _ = fine_tune(plan, plan.new_member(k), train, settings.seed + k, recall_share=0.0)
    spectra = spectra_of(series, composition, settings.draws, settings.seed)
    return {c: fitted.predict(s.numpy()).values["OS_mean"] for c, s in spectra.items()}


def fine_tuning_config(config: TrainingConfig, recipe: FineTuneSettings) -> TrainingConfig:
    """Return the target's config with the recipe's optimisation, augmentation and dropout."""
    named = recipe.model_dump(exclude={"others", "copies", "augmentation", "dropout"}) | {"patience": None}
    changes = {
        "optimisation": config.optimisation.model_copy(update=named),
        "augmentation": recipe.augmentation,
        "network": config.network.model_copy(update={"dropout": recipe.dropout}),
    }
    return config.model_copy(update=changes)


def linear_answers(config: TrainingConfig, settings: DelithiationSettings, data: Path) -> Arrays:
    """Return answers of PLS and linear combinations for all compositions, by ``model|composition|condition``."""
    series = read_series(config, settings.pretrained, data)
    true = series.plan.data.labels["OS_mean"]
    ends = {c: end_members(series, c) for c in (AS_COMPUTED, AS_MEASURED)}
    answers: Arrays = {}
    for composition in series.compositions:
        train = np.intersect1d(series.learnt(composition), series.layered)
        spectra = spectra_of(series, composition, settings.draws, settings.seed)
        for name, pls in ((PLS_NAME, settings.pls), (PLS_COPIES_NAME, settings.pls_copies)):
            fitted = PLS(series.plan.rows, train, true[train], true[train], pls)
            answers |= {f"{name}|{composition}|{c}": fitted.predict(s.double().numpy()) for c, s in spectra.items()}
        for c, s in spectra.items():
            share = end_member_share(s.double().numpy(), ends[c])
            answers[f"{LCF_NAME}|{composition}|{c}"] = OS_AT_X1 + (OS_AT_X0 - OS_AT_X1) * share
    return answers


def end_members(series: LayeredSeries, condition: str) -> list[Array]:
    """Return the mean O3 spectra (G,) of both ends; measured ones have the mean broadening of a beamline."""
    o3 = np.array([stacking(i) == "O3" for i in series.plan.data.ids.tolist()])
    rows, spectra = series.plan.rows, list[Array]()
    for composition in (OS_AT_X1, OS_AT_X0):
        fine = rows.fine[torch.as_tensor([i for i in series.held(composition) if o3[i]])]
        if condition == AS_MEASURED:
            fine = shifted(fine, FINE_EV, torch.zeros(len(fine), 1), torch.full((len(fine), 1), MEAN_BROADENING_EV))
        spectra.append(rows.aligned(fine).mean(0).double().numpy())
    return spectra


Answers = dict[tuple[str, float, str], Array]
"""Mean oxidation states by (model, left-out composition, condition)."""


def answers_for(
    series: LayeredSeries,
    config: TrainingConfig,
    settings: DelithiationSettings,
    data: Path,
    kept: Path,
    jobs: int,
    progress: Progress,
) -> Answers:
    """Return the answers of every model for every left-out composition (:func:`.kept.run_all`)."""
    common = [
        config.model_dump(mode="json"),
        settings.model_dump(
            mode="json", exclude={"targets", "members", "pretrained", "recipes", "pls", "pls_copies"}
        ),
        weights_digest(settings.pretrained),
    ]
    todo = [
        (name, k, c)
        for name in settings.recipes
        for k in range(settings.members)
        for c in series.compositions.tolist()
    ]
    pieces = [
        Piece(
            f"delithiation-{config.name}-{slug(name)}-{c:.4f}-{k}",
            [k, c, settings.recipes[name].model_dump(mode="json"), *common],
            partial(network_answers, k, c, settings.recipes[name], config, settings, data),
        )
        for name, k, c in todo
    ]
    linear_settings = [settings.pls.model_dump(), settings.pls_copies.model_dump()]
    pieces.append(
        Piece(
            f"delithiation-{config.name}-linear",
            [linear_settings, *common],
            partial(linear_answers, config, settings, data),
        )
    )
    *networks, linear = run_all("delithiation", pieces, kept, jobs, progress)
    answers: Answers = {}
    for key, values in linear.items():
        model, composition, condition = key.split("|")
        answers[model, float(composition), condition] = values
    for name in settings.recipes:
        for c in series.compositions.tolist():
            members = [a for (recipe, _, at), a in zip(todo, networks, strict=True) if (recipe, at) == (name, c)]
            answers |= {
                (name, c, condition): np.mean([m[condition] for m in members], axis=0) for condition in members[0]
            }
    return answers
