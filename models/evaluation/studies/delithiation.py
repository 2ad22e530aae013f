"""Mean oxidation state along the delithiation of a layered oxide, compositions left out one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from ....agent.types import Array, Settings
from ...progress import Progress
from ...training import FINE_EV, Augmentation, TrainingConfig, shifted
from ..competitors import PLS, PLSSettings, end_member_share
from ..report import Arrays, Piece, Section, plain, run_all, slug
from ..report import delithiation as drawn
from .layered import CLEAN, MEASURED, MEASURED_EV, LayeredSeries, read_series, spectra_of, stacking
from .transfer import start_of, taught

PLS_NAME, PLS_COPIES_NAME, LCF_NAME = "PLS", "PLS, disturbed copies", "LCF"
LEAST, MOST = 3.0, 4.0
"""Mean oxidation states of the ends, x = 1 and x = 0."""


class FineTuneSettings(Settings):
    """How a network is fine-tuned for a series; what is not here is as in the target's config."""

    epochs: int = 60
    """Epochs of each training."""
    rows_per_epoch: int = 256
    """Rows per epoch."""
    batch: int = 24
    """Rows per step."""
    learning_rate: float = 4e-3
    """Peak learning rate."""
    dropout: float = 0.0
    """Dropout rate; the few spectra of a series differ by little, which dropout blurs."""
    regression_weight: float = 10.0
    """Weight of the regression loss relative to one classified descriptor."""
    recall_weight: float = 0.0
    """Weight of the recall loss; a series without the composition in question has no site to recall for it."""
    others: bool = False
    """Whether to train also on rows outside the series."""
    copies: int = Field(default=1, ge=1)
    """How often an epoch repeats each layered row relative to another row."""
    augmentation: Augmentation = Augmentation(
        disturbed=0.8, shift_ev=0.3, broadening_ev=2.0, noise=0.01, slope=0.0, mixed=0.8, mixture_max=3
    )
    """Disturbances, as in the copies that PLS learns from."""


class DelithiationSettings(Settings):
    """Leave-one-composition-out over the layered series of each target."""

    targets: tuple[TrainingConfig, ...]
    """Training configs, one per series."""
    pretrained: str
    """Name or folder of the model that fine-tuning starts from."""
    members: int = Field(default=3, ge=1)
    """Networks per left-out composition; their answers are averaged."""
    recipes: dict[str, FineTuneSettings] = Field(default_factory=lambda: {"SPT": FineTuneSettings()})
    """Fine-tuning by name in the report; the first is compared with the linear models."""
    pls: PLSSettings = PLSSettings()
    """Partial least squares on the rows as computed."""
    pls_copies: PLSSettings = PLSSettings(copies=20)
    """Partial least squares on the rows and disturbed copies."""
    draws: int = Field(default=10, ge=1)
    """Disturbed versions of each judged row, for the figures under measured conditions."""
    seed: int = 0
    """Seed of all random numbers."""

    @property
    def models(self) -> list[str]:
        """What is compared, in order."""
        return [*self.recipes, PLS_NAME, PLS_COPIES_NAME, LCF_NAME]


# --- answers for a left-out composition ----------------------------------------------------------------


def ask_network(
    k: int,
    composition: float,
    recipe: FineTuneSettings,
    config: TrainingConfig,
    settings: DelithiationSettings,
    data: Path,
) -> Arrays:
    """Mean oxidation states by condition, (n,) or (draws · n,), from network k that has not seen the composition."""
    series = read_series(config, settings.pretrained, data)
    learnt = series.learnt(composition)
    of_series = np.intersect1d(learnt, series.layered)
    train = np.concatenate([learnt if recipe.others else of_series, *([of_series] * (recipe.copies - 1))])
    mine = series.plan.variant(np.unique(train), tuned_config(series.plan.config, recipe))
    fitted, _ = taught(mine, mine.new_member(k), train, settings.seed + k, recall_share=0.0)
    spectra = spectra_of(series, composition, settings.draws, settings.seed)
    return {c: fitted.predict(s.numpy()).values["OS_mean"] for c, s in spectra.items()}


def tuned_config(config: TrainingConfig, recipe: FineTuneSettings) -> TrainingConfig:
    """The target's config with the recipe's optimisation, augmentation and dropout."""
    named = recipe.model_dump(exclude={"others", "copies", "augmentation", "dropout"}) | {"patience": None}
    changes = {
        "optimisation": config.optimisation.model_copy(update=named),
        "augmentation": recipe.augmentation,
        "network": config.network.model_copy(update={"dropout": recipe.dropout}),
    }
    return config.model_copy(update=changes)


def ask_linear(config: TrainingConfig, settings: DelithiationSettings, data: Path) -> Arrays:
    """As :func:`ask_network`, from PLS and linear combinations, for all compositions; by ``name|state|condition``."""
    series = read_series(config, settings.pretrained, data)
    true = series.plan.data.labels["OS_mean"]
    ends = {c: end_members(series, c) for c in (CLEAN, MEASURED)}
    found: Arrays = {}
    for composition in series.compositions:
        train = np.intersect1d(series.learnt(composition), series.layered)
        spectra = spectra_of(series, composition, settings.draws, settings.seed)
        for name, how in ((PLS_NAME, settings.pls), (PLS_COPIES_NAME, settings.pls_copies)):
            fitted = PLS(series.plan.rows, train, true[train], true[train], how)
            found |= {f"{name}|{composition}|{c}": fitted.predict(s.double().numpy()) for c, s in spectra.items()}
        for c, s in spectra.items():
            share = end_member_share(s.double().numpy(), ends[c])
            found[f"{LCF_NAME}|{composition}|{c}"] = LEAST + (MOST - LEAST) * share
    return found


def end_members(series: LayeredSeries, condition: str) -> list[Array]:
    """Mean O3 spectra (G,) of both ends; those of a beamline are as broad as what it measures on average."""
    o3 = np.array([stacking(i) == "O3" for i in series.plan.data.ids.tolist()])
    rows, found = series.plan.rows, list[Array]()
    for composition in (LEAST, MOST):
        fine = rows.fine[torch.as_tensor([i for i in series.held(composition) if o3[i]])]
        if condition == MEASURED:
            fine = shifted(fine, FINE_EV, torch.zeros(len(fine), 1), torch.full((len(fine), 1), MEASURED_EV))
        found.append(rows.aligned(fine).mean(0).double().numpy())
    return found


# --- the study ----------------------------------------------------------------


def delithiation(settings: DelithiationSettings, data: Path, kept: Path, jobs: int, progress: Progress) -> Section:
    """Predicted mean oxidation state against 4 − x, SPT, PLS and linear combinations in one protocol.

    Parameters
    ----------
    data, kept : folder of the rows, and where finished pieces of work lie
    """
    means: list[CompositionMean] = []
    for config in settings.targets:
        series = read_series(config, settings.pretrained, data)
        for (model, composition, condition), said in answered(
            series, config, settings, data, kept, jobs, progress
        ).items():
            means += means_of(series, composition, said, config.name, model, condition)
    summary = summarised(means, settings.models)
    section = Section(
        "Delithiation of layered oxides", _protocol(settings) + "\n\n" + _found(summary, next(iter(settings.recipes)))
    )
    section.tables["delithiation"] = pd.DataFrame(summary)
    section.captions["delithiation"] = "Mean absolute error of the mean oxidation state, e."
    section.tables["delithiation-compositions"] = pd.DataFrame(_compositions(means, settings.models))
    section.captions["delithiation-compositions"] = "Predicted mean oxidation state, spectra as computed, e."
    for config in settings.targets:
        shown = [m for m in means if m.target == config.name and m.condition == CLEAN and not m.apart]
        shown.sort(key=lambda m: settings.models.index(m.model))
        dots = [
            {
                "panel": m.model,
                "stacking": m.stacking,
                "expected": m.expected,
                "predicted": m.predicted,
                "end": m.end or m.stacking == "JT",
            }
            for m in shown
        ]
        key = f"delithiation-{slug(config.name)}"
        section.figures[key] = drawn(pd.DataFrame(dots))
        section.captions[key] = (
            f"{plain(config.name)}, spectra as computed. Hollow, and left out of the MAE: the ends of the series and "
            "Jahn–Teller distorted structures (JT)."
        )
    return section


Answers = dict[tuple[str, float, str], Array]
"""By (model, left-out composition, condition)."""


def answered(
    series: LayeredSeries,
    config: TrainingConfig,
    settings: DelithiationSettings,
    data: Path,
    kept: Path,
    jobs: int,
    progress: Progress,
) -> Answers:
    """What every model says of every composition that it has not seen; see :func:`.kept.run_all`."""
    common = [
        config.model_dump(mode="json"),
        settings.model_dump(
            mode="json", exclude={"targets", "members", "pretrained", "recipes", "pls", "pls_copies"}
        ),
        start_of(settings.pretrained),
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
            partial(ask_network, k, c, settings.recipes[name], config, settings, data),
        )
        for name, k, c in todo
    ]
    how = [settings.pls.model_dump(), settings.pls_copies.model_dump()]
    pieces.append(
        Piece(f"delithiation-{config.name}-linear", [how, *common], partial(ask_linear, config, settings, data))
    )
    *networks, linear = run_all("delithiation", pieces, kept, jobs, progress)
    found: Answers = {}
    for name, said in linear.items():
        model, composition, condition = name.split("|")
        found[model, float(composition), condition] = said
    for name in settings.recipes:
        for c in series.compositions.tolist():
            mine = [said for (of, _, at), said in zip(todo, networks, strict=True) if (of, at) == (name, c)]
            found |= {(name, c, condition): np.mean([m[condition] for m in mine], axis=0) for condition in mine[0]}
    return found


# --- what came of it ----------------------------------------------------------------


@dataclass(frozen=True)
class CompositionMean:
    """Predicted mean oxidation state of one composition in one stacking, the mean over its sites."""

    target: str
    model: str
    condition: str
    expected: float
    """4 − x."""
    stacking: str
    apart: bool
    """Whether it is of the rows kept apart."""
    predicted: float
    error: float
    """Mean over the draws of the absolute error."""

    @property
    def end(self) -> bool:
        """Whether it is an end of the series."""
        return bool(np.isclose(self.expected, (LEAST, MOST)).any())


def means_of(
    series: LayeredSeries, composition: float, said: Array, target: str, model: str, condition: str
) -> list[CompositionMean]:
    """What a model says of the sites of a composition (draws · n,), taken together by stacking."""
    held, apart = series.judged(composition)
    ids = [*series.plan.data.ids[held].tolist(), *series.apart.ids[apart].tolist()]
    groups = [(stacking(i), k >= len(held)) for k, i in enumerate(ids)]
    by_draw = said.reshape(-1, len(ids))
    found: list[CompositionMean] = []
    for kind, is_apart in dict.fromkeys(groups):
        each = by_draw[:, [g == (kind, is_apart) for g in groups]].mean(1)
        error = float(np.abs(each - composition).mean())
        found.append(
            CompositionMean(target, model, condition, composition, kind, is_apart, float(each.mean()), error)
        )
    return found


PARTS: dict[str, Callable[[CompositionMean], bool]] = {
    "interior": lambda m: not (m.apart or m.end or m.stacking == "JT"),
    "interior, other Li ordering": lambda m: m.apart and not m.end,
    "x = 1": lambda m: m.expected == LEAST and m.stacking == "O3",
    "x = 0, O3": lambda m: m.expected == MOST and m.stacking == "O3",
    "x = 0, O1": lambda m: m.expected == MOST and m.stacking == "O1",
    "x = 0, H1-3": lambda m: m.expected == MOST and m.stacking == "H1-3",
    "Jahn–Teller": lambda m: m.stacking == "JT",
}

OUTSIDE = tuple(PARTS)[2:]
"""Ends, where leaving out means extrapolating, and distorted structures."""


def summarised(means: Sequence[CompositionMean], models: Sequence[str]) -> list[dict[str, Any]]:
    """Mean absolute errors, e, a row per target, condition and model."""
    found: list[dict[str, Any]] = []
    for target, condition, model in dict.fromkeys((m.target, m.condition, m.model) for m in means):
        mine = [m for m in means if (m.target, m.condition, m.model) == (target, condition, model)]
        row: dict[str, Any] = {"target": target, "spectra": condition, "model": model}
        for name, belongs in PARTS.items():
            errors = [m.error for m in mine if belongs(m)]
            # The end members are what linear combinations are made of.
            known = model == LCF_NAME and name in ("x = 1", "x = 0, O3")
            row[name] = float(np.mean(errors)) if errors and not known else float("nan")
        found.append(row)
    return sorted(found, key=lambda r: (r["target"], r["spectra"], models.index(r["model"])))


def _compositions(means: Sequence[CompositionMean], models: Sequence[str]) -> list[dict[str, Any]]:
    """Predictions side by side, a row per target, composition and stacking."""
    rows: dict[tuple[str, float, str, bool], dict[str, Any]] = {}
    for m in sorted(means, key=lambda m: models.index(m.model)):
        if m.condition == CLEAN:
            named = {"target": m.target, "4 − x": m.expected, "stacking": m.stacking}
            named["Li ordering"] = "another" if m.apart else "as learnt from"
            rows.setdefault((m.target, m.expected, m.stacking, m.apart), named)[m.model] = m.predicted
    return [rows[k] for k in sorted(rows)]


def _found(summary: Sequence[Mapping[str, Any]], ours: str) -> str:
    """What the interior errors come to, by target and condition, and where the network should not be trusted."""
    said: list[str] = []
    for target, condition in dict.fromkeys((r["target"], r["spectra"]) for r in summary):
        rows = {r["model"]: r for r in summary if (r["target"], r["spectra"]) == (target, condition)}
        own = rows.pop(ours)
        better = [name for name, r in rows.items() if r["interior"] < own["interior"]]
        others = "; ".join(f"{name}: {r['interior']:.3f} e" for name, r in rows.items())
        outside = "; ".join(f"{name}: {own[name]:.2f} e" for name in OUTSIDE if np.isfinite(own[name]))
        said.append(
            f"**{plain(target)}, {condition}.** The interior error of {ours} is {own['interior']:.3f} e; {others}. "
            + (f"Better than {ours}: {'; '.join(better)}." if better else f"None is better than {ours}.")
            + f" Outside of the interior {ours} errs by: {outside}."
        )
    return "\n\n".join(said)


def _protocol(settings: DelithiationSettings) -> str:
    return PROTOCOL.format(
        absorbers=" and ".join(plain(c.absorber) for c in settings.targets),
        networks=settings.members,
        recipes="; ".join(_recipe(name, r) for name, r in settings.recipes.items()),
        components=f"{settings.pls.components[0]} to {settings.pls.components[-1]}",
        draws=settings.draws,
    )


def _recipe(name: str, r: FineTuneSettings) -> str:
    often = f"all other rows, the layered ones {r.copies} times as often"
    rows = often if r.others else "the other layered rows alone"
    mixed = f"{r.augmentation.mixed:.0%} of them mixtures whose labels are mixed alike"
    return f"*{plain(name)}* learns from {rows} ({r.epochs} epochs of {r.rows_per_epoch} rows, {mixed})"


PROTOCOL = """
**Question.** How well is the mean oxidation state, 4 − x, of a layered Li–M–O composition told that no model has
seen ({absorbers} K-edge)?

**Protocol.** The compositions of the layered series are left out one at a time, with every row of the same formula
in whatever structure. What a model says of the sites of a composition is averaged, stacking by stacking. The
interior compositions are what is asked for: at the ends, x = 0 and 1, leaving out means extrapolating, and they are
told apart, as are O3, O1 and H1-3, Jahn–Teller distorted structures, and the rows with another ordering of Li, on
which nothing is ever trained.

- SPT: {networks} networks for each composition, fine-tuned from the pre-trained ones; {recipes}. The recipe was
  chosen by looking at compositions of these very series (which is no inner split: the errors are that much too kind).
- PLS on the other layered rows, with {components} components as leaving out one composition more chooses; once on
  the rows as they are, once with disturbed copies of them.
- LCF: least-squares shares of the two O3 end members, which it always knows, unlike the others: its ends are no test.

*As computed* are the FEFF spectra themselves. *As measured* are {draws} disturbed versions of each: 1–2 eV of
Gaussian broadening, ± 0.3 eV of energy error and noise of 0.5 % of the edge step.
""".strip()
