"""The study of the mean oxidation state along the delithiation of a layered oxide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ....agent.types import Array
from ...progress import Progress
from ..report import Section, plain, slug
from ..report import delithiation as delithiation_figure
from .layered_series import AS_COMPUTED, LayeredSeries, read_series, stacking
from .series_models import LCF_NAME, OS_AT_X0, OS_AT_X1, DelithiationSettings, FineTuneSettings, answers_for


def delithiation(settings: DelithiationSettings, data: Path, kept: Path, jobs: int, progress: Progress) -> Section:
    """Compare SPT, PLS and linear combinations by the predicted mean oxidation state against 4 − x.

    Parameters
    ----------
    data : folder of the FEFF rows
    kept : folder of finished results
    jobs : number of trainings at the same time
    """
    means: list[CompositionMean] = []
    for config in settings.targets:
        series = read_series(config, settings.pretrained, data)
        answers = answers_for(series, config, settings, data, kept, jobs, progress)
        for (model, composition, condition), predicted in answers.items():
            means += _means(series, composition, predicted, config.name, model, condition)
    summary = _summary(means, settings.models)
    findings = _findings(summary, next(iter(settings.recipes)))
    section = Section("Delithiation of layered oxides", _protocol(settings) + "\n\n" + findings)
    section.tables["delithiation"] = pd.DataFrame(summary)
    section.captions["delithiation"] = "Mean absolute error of the mean oxidation state, e."
    section.tables["delithiation-compositions"] = pd.DataFrame(_compositions(means, settings.models))
    section.captions["delithiation-compositions"] = "Predicted mean oxidation state, spectra as computed, e."
    for config in settings.targets:
        drawn = [m for m in means if m.target == config.name and m.condition == AS_COMPUTED and not m.unseen]
        drawn.sort(key=lambda m: settings.models.index(m.model))
        dots = [
            {
                "panel": m.model,
                "stacking": m.stacking,
                "expected": m.expected,
                "predicted": m.predicted,
                "end": m.end or m.stacking == "JT",
            }
            for m in drawn
        ]
        key = f"delithiation-{slug(config.name)}"
        section.figures[key] = delithiation_figure(pd.DataFrame(dots))
        section.captions[key] = (
            f"{plain(config.name)}, spectra as computed. Hollow, and left out of the MAE: the ends of the series and "
            "Jahn–Teller distorted structures (JT)."
        )
    return section


@dataclass(frozen=True)
class CompositionMean:
    """Predicted mean oxidation state of one composition in one stacking, averaged over its sites."""

    target: str
    model: str
    condition: str
    expected: float
    """Expected value, 4 − x."""
    stacking: str
    unseen: bool
    """Whether the rows have another ordering of Li, which is never trained on."""
    predicted: float
    error: float
    """Absolute error, averaged over the draws, e."""

    @property
    def end(self) -> bool:
        """Whether the composition is an end of the series."""
        return bool(np.isclose(self.expected, (OS_AT_X1, OS_AT_X0)).any())


def _means(
    series: LayeredSeries, composition: float, predicted: Array, target: str, model: str, condition: str
) -> list[CompositionMean]:
    """Average a model's answers (draws · n,) over the sites of a composition, by stacking."""
    held, unseen = series.judged(composition)
    ids = [*series.plan.data.ids[held].tolist(), *series.unseen.ids[unseen].tolist()]
    groups = [(stacking(i), k >= len(held)) for k, i in enumerate(ids)]
    by_draw = predicted.reshape(-1, len(ids))
    means: list[CompositionMean] = []
    for kind, is_unseen in dict.fromkeys(groups):
        of_group = by_draw[:, [g == (kind, is_unseen) for g in groups]].mean(1)
        error = float(np.abs(of_group - composition).mean())
        mean = float(of_group.mean())
        means.append(CompositionMean(target, model, condition, composition, kind, is_unseen, mean, error))
    return means


_PARTS: dict[str, Callable[[CompositionMean], bool]] = {
    "interior": lambda m: not (m.unseen or m.end or m.stacking == "JT"),
    "interior, other Li ordering": lambda m: m.unseen and not m.end,
    "x = 1": lambda m: m.expected == OS_AT_X1 and m.stacking == "O3",
    "x = 0, O3": lambda m: m.expected == OS_AT_X0 and m.stacking == "O3",
    "x = 0, O1": lambda m: m.expected == OS_AT_X0 and m.stacking == "O1",
    "x = 0, H1-3": lambda m: m.expected == OS_AT_X0 and m.stacking == "H1-3",
    "Jahn–Teller": lambda m: m.stacking == "JT",
}

_OUTSIDE = tuple(_PARTS)[2:]
"""Parts of the series outside the interior: ends, where predictions extrapolate, and distorted structures."""


def _summary(means: Sequence[CompositionMean], models: Sequence[str]) -> list[dict[str, Any]]:
    """Return mean absolute errors, e, with a row per target, condition and model."""
    rows: list[dict[str, Any]] = []
    for target, condition, model in dict.fromkeys((m.target, m.condition, m.model) for m in means):
        of_model = [m for m in means if (m.target, m.condition, m.model) == (target, condition, model)]
        row: dict[str, Any] = {"target": target, "spectra": condition, "model": model}
        for name, belongs in _PARTS.items():
            errors = [m.error for m in of_model if belongs(m)]
            # Linear combinations consist of the end members.
            known = model == LCF_NAME and name in ("x = 1", "x = 0, O3")
            row[name] = float(np.mean(errors)) if errors and not known else float("nan")
        rows.append(row)
    return sorted(rows, key=lambda r: (r["target"], r["spectra"], models.index(r["model"])))


def _compositions(means: Sequence[CompositionMean], models: Sequence[str]) -> list[dict[str, Any]]:
    """Return the predictions side by side, with a row per target, composition and stacking."""
    rows: dict[tuple[str, float, str, bool], dict[str, Any]] = {}
    for m in sorted(means, key=lambda m: models.index(m.model)):
        if m.condition == AS_COMPUTED:
            named = {"target": m.target, "4 − x": m.expected, "stacking": m.stacking}
            named["Li ordering"] = "another" if m.unseen else "as in training"
            rows.setdefault((m.target, m.expected, m.stacking, m.unseen), named)[m.model] = m.predicted
    return [rows[k] for k in sorted(rows)]


def _findings(summary: Sequence[Mapping[str, Any]], network: str) -> str:
    """Return interior errors by target and condition, and the errors of the network outside the interior."""
    paragraphs: list[str] = []
    for target, condition in dict.fromkeys((r["target"], r["spectra"]) for r in summary):
        rows = {r["model"]: r for r in summary if (r["target"], r["spectra"]) == (target, condition)}
        errors = rows.pop(network)
        better = [name for name, r in rows.items() if r["interior"] < errors["interior"]]
        others = "; ".join(f"{name}: {r['interior']:.3f} e" for name, r in rows.items())
        outside = "; ".join(f"{name}: {errors[name]:.2f} e" for name in _OUTSIDE if np.isfinite(errors[name]))
        paragraphs.append(
            f"**{plain(target)}, {condition}.** The interior error of {network} is {errors['interior']:.3f} e; "
            f"{others}. "
            + (f"Better than {network}: {'; '.join(better)}." if better else f"No other is better than {network}.")
            + f" Errors of {network} outside of the interior: {outside}."
        )
    return "\n\n".join(paragraphs)


def _protocol(settings: DelithiationSettings) -> str:
    return _PROTOCOL.format(
        absorbers=" and ".join(plain(c.absorber) for c in settings.targets),
        networks=settings.members,
        recipes="; ".join(_recipe(name, r) for name, r in settings.recipes.items()),
        components=f"{settings.pls.components[0]} to {settings.pls.components[-1]}",
        draws=settings.draws,
    )


def _recipe(name: str, r: FineTuneSettings) -> str:
    all_rows = f"all other rows, the layered ones {r.copies} times as often"
    rows = all_rows if r.others else "the other layered rows only"
    mixed = f"{r.augmentation.mixed:.0%} of them mixtures, with mixed labels"
    return f"*{plain(name)}* is trained on {rows} ({r.epochs} epochs of {r.rows_per_epoch} rows, {mixed})"


_PROTOCOL = """
**Question.** How large is the error of the mean oxidation state, 4 − x, of a layered Li–M–O composition that no model
has seen ({absorbers} K-edge)?

**Protocol.** The compositions of the layered series are left out one at a time, with every row of the same formula in
whatever structure. The answers of a model for the sites of a composition are averaged by stacking. The study concerns
the interior compositions. At the ends, x = 0 and 1, leaving a composition out means extrapolation; they are listed
separately, as are O3, O1 and H1-3, Jahn–Teller distorted structures, and rows with another ordering of Li, which are
never trained on.

- SPT: {networks} networks for each composition, fine-tuned from the pre-trained ones; {recipes}. The recipe was
chosen
  on compositions of the same series, not on an inner split, so its errors are too small to that extent.
- PLS on the other layered rows, with {components} components, chosen by leaving out one more composition; once on the
  rows themselves, once with disturbed copies of them.
- LCF: least-squares shares of the two O3 end members, which only this model always knows; its ends are therefore no
  test.

*As computed* are the FEFF spectra themselves. *As measured* are {draws} disturbed versions of each: 1–2 eV of
Gaussian broadening, ± 0.3 eV of energy error, and noise of 0.5 % of the edge step.
""".strip()
