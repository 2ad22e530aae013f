"""The benchmark of the SPT against its competitors, its ablations and Experts: settings, trials and results."""

import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ....agent.types import Array, Settings
from ...progress import Progress
from ...runtime import Model
from ...training import TrainingPlan
from ..competitors import (
    COMPETITORS,
    CONDITIONS,
    NETWORKS,
    SPT_NAME,
    Split,
    SPTCompetitor,
    Trial,
    TrialOutcome,
    disturbed,
    from_columns,
    outcomes,
    split_rows,
)
from ..contract import Predictions, averaged, classes_of
from ..report import tables

METAL_DESCRIPTORS = ("OS", "CN", "OCN", "CN2", "PSGO", "NNRS", "MOOD")
"""The paper's seven descriptors of metal sites; oxygen sites have OS, CN, CN2, NNRS, NNOSM, PSGO."""


class BenchmarkSettings(Settings):
    """Trials of the benchmark."""

    competitors: tuple[str, ...] = Field(default=tuple(COMPETITORS), min_length=1)
    """Competitors by name."""
    search: bool = True
    """Whether to search the settings of each competitor on an inner split of the training materials; otherwise the
    defaults are used."""
    members: int = 5
    """Number of networks of each competitor with different seeds, whose answers are averaged; split by material."""
    members_by_site: int = 1
    """Number of networks of each competitor, and of the SPT; split by site."""
    lone_spts: int = 2
    """Number of single SPTs in the split by material, the reference of Experts and ablations."""
    judged: tuple[str, ...] = METAL_DESCRIPTORS
    """Descriptors that choose the settings and judge the SPT; those that the model lacks are left out."""
    experts: tuple[str, ...] = METAL_DESCRIPTORS
    """Judged descriptors for which a separate SPT is trained."""
    ablations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Changed settings of the SPT, by the name of the ablation."""

    @model_validator(mode="after")
    def _check_trials(self) -> "BenchmarkSettings":
        if unknown := [c for c in self.competitors if c not in COMPETITORS]:
            raise ValueError(f"no competitor {', '.join(unknown)}; there are {', '.join(COMPETITORS)}")
        if unknown := sorted(
            {k for changes in self.ablations.values() for k in changes} - set(SPTCompetitor.SETTINGS)
        ):
            raise ValueError(f"no setting {', '.join(unknown)}; an ablation has {', '.join(SPTCompetitor.SETTINGS)}")
        if not self.lone_spts and (self.experts or self.ablations):
            raise ValueError("lone_spts 0: Experts and ablations need at least one to be compared with")
        return self


@dataclass(frozen=True)
class CompetitorResult:
    """Predictions of one competitor for the rows of one split, by its networks together and by each alone."""

    predictions: dict[str, Predictions]
    """Predictions of all networks together, by condition."""
    singles: list[Predictions]
    """Predictions of each network on clean spectra."""
    parameters: int
    seconds: float
    """Duration of the training of all networks, on one thread, s; NaN for the shipped model without lone SPTs."""
    latency_ms: float


@dataclass
class Benchmark:
    """All results of the benchmark, with their rows and labels."""

    plan: TrainingPlan
    settings: BenchmarkSettings
    chosen: dict[str, Mapping[str, Any]]
    """Settings by competitor."""
    searched: pd.DataFrame
    """A row per tried setting."""
    judged: dict[Split, dict[str, CompetitorResult]]
    shipped_members: int
    experts: dict[str, TrialOutcome] = field(default_factory=dict)
    ablations: dict[str, TrialOutcome] = field(default_factory=dict)

    @property
    def descriptors(self) -> tuple[str, ...]:
        """Descriptors that judge the SPT."""
        return judged_of(self.settings, self.plan)

    def truth(self, split: Split) -> dict[str, Array]:
        """Return the labels (n,) by descriptor of the rows that the split judges."""
        index = split_rows(self.plan, split)[1]
        return {d: v[index] for d, v in self.plan.data.labels.items()}

    def material(self, split: Split) -> NDArray[np.str_]:
        """Return the materials (n,) of the rows that the split judges."""
        return self.plan.data.material[split_rows(self.plan, split)[1]]

    @property
    def classes(self) -> dict[str, NDArray[np.int_]]:
        """Classes of every classified descriptor."""
        return classes_of(self.plan)

    def best(self, name: str, condition: str = "clean", split: Split = "material") -> dict[str, Array]:
        """Return the most probable classes and the values (n,) of a competitor by descriptor."""
        return self.judged[split][name].predictions[condition].best(self.classes)

    def score(self, predictions: Predictions, d: str) -> float:
        """Return the headline score of predictions for the validation sites."""
        return tables.score(d, self.truth("material"), predictions.best(self.classes), self.classes)

    def against(self, name: str, d: str, split: Split = "material") -> tables.FigureOfMerit:
        """Return the score of the SPT minus that of a competitor, on clean spectra."""
        return tables.paired_bootstrap(
            self.truth(split),
            self.best(SPT_NAME, split=split),
            self.best(name, split=split),
            self.classes,
            self.material(split),
            d,
        )


def run(
    settings: BenchmarkSettings,
    shipped: Model,
    plan: TrainingPlan,
    folder: Path,
    kept: Path,
    jobs: int,
    progress: Progress,
) -> Benchmark:
    """Run all trials that are not finished yet; in the split by material the SPT is the ``shipped`` model.

    Parameters
    ----------
    folder : folder of the FEFF rows
    kept : folder of finished results
    jobs : number of trials at the same time
    """
    config = plan.config

    def run_trials(trials: Sequence[Trial]) -> dict[Trial, TrialOutcome]:
        return outcomes(trials, config, folder, kept, jobs, progress)

    chosen, searched = search(settings, plan, run_trials)
    wanted: dict[tuple[Split, str], list[Trial]] = {}
    asked: list[tuple[Split, str]] = [("material", n) for n in settings.competitors]
    for split, name in [*asked, *(("site", n) for n in chosen)]:
        count = settings.members if split == "material" else settings.members_by_site
        seeds = range(min(count, 1) if name not in NETWORKS else count)
        own, by_material = dict(chosen[name]), split == "material"
        trials = [Trial(competitor=name, split=split, settings=own, seed=s, disturbances=by_material) for s in seeds]
        if trials:
            wanted[split, name] = trials
    lone = [Trial(competitor=SPT_NAME, split="material", settings={}, seed=s) for s in range(settings.lone_spts)]
    known = [d for d in judged_of(settings, plan) if d in settings.experts]
    experts = {d: Trial(competitor=SPT_NAME, split="material", settings={"only": d}) for d in known}
    ablations = {
        name: Trial(competitor=SPT_NAME, split="material", settings=changes)
        for name, changes in settings.ablations.items()
    }
    trials = [*(t for ts in wanted.values() for t in ts), *lone, *experts.values(), *ablations.values()]
    done = run_trials(trials)
    judged: dict[Split, dict[str, CompetitorResult]] = {
        "material": {SPT_NAME: shipped_result(shipped, plan, [done[t] for t in lone])}
    }
    for (split, name), ts in wanted.items():
        judged.setdefault(split, {})[name] = joint_result([done[t] for t in ts])
    return Benchmark(
        plan,
        settings,
        chosen,
        searched,
        judged,
        shipped.card.training["members"],
        {d: done[t] for d, t in experts.items()},
        {name: done[t] for name, t in ablations.items()},
    )


def judged_of(settings: BenchmarkSettings, plan: TrainingPlan) -> tuple[str, ...]:
    """Return the judged descriptors that the plan's model has."""
    return tuple(d for d in settings.judged if d in (*plan.config.classified, *plan.config.regressed))


def shipped_result(model: Model, plan: TrainingPlan, lone: Sequence[TrialOutcome]) -> CompetitorResult:
    """Return the result of the shipped model, and of single networks trained like its members."""
    predictions = {c.name: from_columns(plan, model.forward(disturbed(plan, plan.judged, c))) for c in CONDITIONS}
    one = plan.clean[plan.judged[:1]].numpy()
    model.warm_up((1,))
    latency = min(timeit.repeat(lambda: model.forward(one), number=1, repeat=20)) * 1e3
    members = model.card.training["members"]
    seconds = members * float(np.mean([o.seconds for o in lone])) if lone else float("nan")
    singles = [o.predictions["clean"] for o in lone]
    # Recalled numbers count, like the spectra of nearest neighbours and the leaves of trees.
    numbers = model.card.training["parameters"] + model.card.training.get("recalled_numbers", 0)
    return CompetitorResult(predictions, singles, numbers, seconds, latency)


def search(
    settings: BenchmarkSettings, plan: TrainingPlan, run_trials: Any
) -> tuple[dict[str, Mapping[str, Any]], pd.DataFrame]:
    """Choose the settings of each competitor by the mean score on an inner split of the training materials."""
    chosen: dict[str, Mapping[str, Any]] = {SPT_NAME: {}}
    tried = {
        name: [Trial(competitor=name, split="search", settings=dict(s)) for s in COMPETITORS[name].search]
        for name in settings.competitors
    }
    if not settings.search:
        return chosen | {name: trials[0].settings for name, trials in tried.items()}, pd.DataFrame()
    done = run_trials([t for trials in tried.values() for t in trials])
    judged = judged_of(settings, plan)
    index = split_rows(plan, "search")[1]
    truth = {d: v[index] for d, v in plan.data.labels.items()}
    rows: list[dict[str, Any]] = []
    for name, trials in tried.items():
        best = [done[t].predictions["clean"].best(classes_of(plan)) for t in trials]
        scores = [np.mean([tables.score(d, truth, b, classes_of(plan)) for d in judged]) for b in best]
        first = int(np.argmax(scores))
        chosen[name] = trials[first].settings
        for k, (t, score) in enumerate(zip(trials, scores, strict=True)):
            text = ", ".join(f"{key} {value}" for key, value in t.settings.items()) or "defaults"
            rows.append(
                {"competitor": name, "settings": text, "mean score": score, "taken": "yes" if k == first else "",
                 "training / s": done[t].seconds}
            )  # fmt: skip
    return chosen, pd.DataFrame(rows).set_index("competitor")


def joint_result(parts: Sequence[TrialOutcome]) -> CompetitorResult:
    """Join several networks of one competitor."""
    conditions = parts[0].predictions
    return CompetitorResult(
        {c: averaged([p.predictions[c] for p in parts]) for c in conditions},
        [p.predictions["clean"] for p in parts],
        sum(p.parameters for p in parts),
        sum(p.seconds for p in parts),
        sum(p.latency_ms for p in parts),
    )
