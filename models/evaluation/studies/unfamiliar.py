"""The out-of-distribution score as a detector: what it finds, what it misses, and what it flags for nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....agent.types import Array, InputError
from ...runtime import Model
from ...training import FINE_EV, FeffData, TrainingConfig, TrainingPlan, load_feff, shifted
from ..competitors import CLEAN, Condition, disturbed
from ..contract import Spectra
from ..report import Section, detector

THRESHOLD = 1.0
AIM = 0.95
ORDINARY = (
    CLEAN,
    *(Condition("noise", a) for a in (0.005, 0.01, 0.02)),
    *(Condition("broadening", a) for a in (0.5, 1.0, 2.0)),
    *(Condition("offset", a) for a in (-0.5, 0.5)),
)
"""What a good beamline does to a familiar spectrum: none of it is a reason for a flag."""
SPOILT: dict[str, tuple[Condition, ...]] = {
    "slope ± 20 %": (Condition("slope", -0.2), Condition("slope", 0.2)),
    "slope ± 10 %": (Condition("slope", -0.1), Condition("slope", 0.1)),
    "energies 5 eV off": (Condition("offset", -5.0), Condition("offset", 5.0)),
    "glitch 20 %": (Condition("glitch", 0.2),),
    "glitch 10 %": (Condition("glitch", 0.1),),
    "glitch 5 %": (Condition("glitch", 0.05),),
}
ERASED = "edge step ± 30 %"
INSIDE = (ERASED, "self-absorption")
"""Kinds that leave a spectrum among the familiar ones: shown, and not counted in the overall figures."""
TAIL_COMPONENTS = 24
DRAWS = 40


@dataclass(frozen=True)
class Element:
    """All FEFF rows of one absorber, whatever their split."""

    absorber: str
    edge_ev: float
    data: FeffData

    @classmethod
    def of(cls, config: TrainingConfig, folder: Path) -> "Element":
        """The rows of a training config's data set, with the labels that it trains on."""
        labels = config.classified + tuple(d for d in config.regressed if d != "OS_mean")
        return cls(config.absorber, config.edge_ev, load_feff(folder, config.dataset, labels))

    def at(self, edge_ev: float, mask: NDArray[np.bool_]) -> FeffData:
        """The rows that ``mask`` selects, their energies moved to another element's edge."""
        rows = self.data.rows(mask)
        return replace(rows, energy=rows.energy - self.edge_ev + edge_ev)


def standing_in(plan: TrainingPlan, data: FeffData) -> TrainingPlan:
    """The plan with other rows, so that they can be disturbed as its own; what it would train on is not theirs."""
    rows = replace(plan.rows, fine=on_fine_bins(plan, data))
    return replace(plan, data=data, rows=rows, clean=rows.aligned(rows.fine))


def on_fine_bins(plan: TrainingPlan, data: FeffData) -> Tensor:
    """(n, F) rows at the plan's edge as its own are before they are aligned."""
    bounds = plan.rows.grid.bounds[0] + FINE_EV * np.arange(plan.rows.fine.shape[1] + 1)
    return torch.tensor(data.on_bins(bounds, plan.config.edge_ev), dtype=torch.float32)


def held_out_rows(
    plan: TrainingPlan, elements: Iterable[Element], most: int
) -> tuple[TrainingPlan, NDArray[np.int_], str]:
    """Rows that the model has neither learnt nor been calibrated with, as (plan, indices, what they are).

    Not more than ``most``, evenly taken.
    """
    if len(plan.judged):
        return plan, thinned(plan.judged, most), "validation rows, of materials that the model has not seen"
    own = next(e for e in elements if e.absorber == plan.config.absorber)
    data = own.at(own.edge_ev, own.data.split == "sim")
    if not len(data):
        raise InputError(f"{data.name}: no rows of split val or sim to judge by; give some materials the split val")
    what = "rows of split `sim`, other Li orderings of compositions that the model has seen: not other materials"
    return standing_in(plan, data), thinned(np.arange(len(data)), most), what


def thinned(index: NDArray[np.int_], most: int) -> NDArray[np.int_]:
    """At most ``most`` of the indices, evenly taken."""
    return index if len(index) <= most else index[np.linspace(0, len(index) - 1, most).astype(int)]


def transplanted(plan: TrainingPlan, element: Element, mask: NDArray[np.bool_]) -> tuple[FeffData, Spectra]:
    """Rows of another element at this edge, and their aligned spectra (n, G).

    Where they end before the grid they go on as the training spectra most like them do (least squares on principal
    components), so that what is missing gives nothing away.
    """
    config = plan.config
    data = element.at(config.edge_ev, mask)
    grid = plan.rows.grid
    spectra = plan.rows.aligned(on_fine_bins(plan, data)).numpy()
    known = grid.bounds[1:] <= data.energy[:, -1].min() - config.edge_ev
    if not known.all():
        learnt = plan.clean[plan.learnt].numpy().astype(float)
        centre = learnt.mean(0)
        off = learnt - centre
        axes = np.linalg.svd(off[:, known], full_matrices=False)[2][:TAIL_COMPONENTS].T
        onward = np.linalg.lstsq(off[:, known] @ axes, off[:, ~known], rcond=None)[0]
        spectra[:, ~known] = (spectra[:, known] - centre[known]) @ axes @ onward + centre[~known]
    return data, spectra.astype(np.float32)


def strangers(
    plan: TrainingPlan, rows: TrainingPlan, index: NDArray[np.int_], elements: Iterable[Element]
) -> dict[str, Spectra]:
    """Spectra that a model should flag, by kind; ``rows`` at ``index`` are the familiar ones that are spoilt."""
    found: dict[str, Spectra] = {}
    metals: list[Spectra] = []
    for element in elements:
        metal = element.data.kind == "metal"
        if element.absorber != plan.config.absorber:
            found[f"{element.absorber} compounds"] = transplanted(plan, element, ~metal)[1]
        if metal.any():
            metals.append(transplanted(plan, element, metal)[1])
    rng = np.random.default_rng(0)
    if metals:
        found["metals"] = wandering(np.concatenate(metals), plan, rng)
    for name, conditions in SPOILT.items():
        found[name] = np.concatenate([disturbed(rows, index, c) for c in conditions])
    clean = rows.clean[torch.as_tensor(index)].numpy().astype(float)
    found["dropout"] = _footed(rows, dropouts(clean, rng))
    found["self-absorption"] = _footed(rows, self_absorbed(clean, rng.uniform(0.5, 2.0, (len(clean), 1))))
    factor = 1 + rng.choice([-1, 1], (len(clean), 1)) * rng.uniform(0.15, 0.3, (len(clean), 1))
    found[ERASED] = _footed(rows, factor * clean + rng.uniform(-0.1, 0.1, (len(clean), 1)))
    found["noise alone"] = _footed(rows, rng.normal(size=clean.shape)).clip(-100, 100)
    found["constant"] = np.tile(np.linspace(-1, 2, DRAWS, dtype=np.float32)[:, None], clean.shape[1])
    return found


def wandering(spectra: Spectra, plan: TrainingPlan, rng: np.random.Generator) -> Spectra:
    """Few spectra as many: each at energies ± 2 eV off and broadened by up to 2 eV, for FEFF's own edges wander."""
    many = torch.from_numpy(np.repeat(spectra, DRAWS, axis=0))
    shift, sigma = (torch.tensor(rng.uniform(lo, 2, (len(many), 1)), dtype=torch.float32) for lo in (-2, 0))
    return plan.rows.footing(shifted(many, plan.rows.grid.step_ev, shift, sigma)).numpy()


def dropouts(spectra: Array, rng: np.random.Generator) -> Array:
    """A monochromator glitch: two to four neighbouring points lose 10 to 30 % of their absorption."""
    spoilt = spectra.copy()
    for row in spoilt:
        width = int(rng.integers(2, 5))
        at = int(rng.integers(12, len(row) - width))  # where there is absorption to lose
        row[at : at + width] *= 1 - rng.uniform(0.1, 0.3)
    return spoilt


def self_absorbed(spectra: Array, thickness: Array) -> Array:
    """Fluorescence of a thick sample, μ (1 + a) / (1 + a μ): 1 stays 1, what is above is damped."""
    return spectra * (1 + thickness) / (1 + thickness * spectra.clip(0))


def _footed(plan: TrainingPlan, spectra: Array) -> Spectra:
    return plan.rows.footing(torch.tensor(spectra, dtype=torch.float32)).numpy()


def score(model: Model, spectra: Spectra) -> Array:
    """(n,) out-of-distribution scores."""
    return model.forward(spectra)[:, -1]


def auroc(familiar: Array, strange: Array) -> float:
    """The chance that a strange spectrum scores above a familiar one."""
    from sklearn.metrics import roc_auc_score

    label = np.r_[np.zeros(len(familiar)), np.ones(len(strange))]
    return float(roc_auc_score(label, np.r_[familiar, strange]))


def detection(familiar: Array, strange: Mapping[str, Array]) -> pd.DataFrame:
    """Per kind AUROC and how many are flagged; the last row is the mean over the kinds that count."""
    rows = [
        {
            "kind": name,
            "spectra": len(s),
            "AUROC": auroc(familiar, s),
            "flagged": float(np.mean(s > THRESHOLD)),
            "median score": float(np.median(s)),
            "counts": name not in INSIDE,
        }
        for name, s in strange.items()
    ]
    counted = [r for r in rows if r["counts"]]
    mean = {c: float(np.mean([r[c] for r in counted])) for c in ("AUROC", "flagged")}
    total = {"kind": "all that count, kinds alike", "spectra": sum(r["spectra"] for r in counted), "counts": True}
    return pd.DataFrame([*rows, {**total, **mean}])


def unfamiliar(
    model: Model,
    plan: TrainingPlan,
    elements: Sequence[Element],
    conditions: Sequence[Condition] = ORDINARY,
    most: int = 2000,
) -> Section:
    """The section of the report.

    Parameters
    ----------
    elements : all data sets at hand, this model's own included
    conditions : under which held-out rows still count as familiar, :data:`~.conditions.CLEAN` the first
    most : held-out rows to judge by
    """
    rows, index, what = held_out_rows(plan, elements, most)
    familiar = {c.name: score(model, disturbed(rows, index, c)) for c in conditions}
    strange = {name: score(model, s) for name, s in strangers(plan, rows, index, elements).items()}
    pooled = np.concatenate(list(familiar.values()))
    found = detection(pooled, strange)
    alarms = pd.DataFrame(
        {
            "condition": list(familiar),
            "spectra": [len(s) for s in familiar.values()],
            "false alarms": [float(np.mean(s > THRESHOLD)) for s in familiar.values()],
            "median score": [float(np.median(s)) for s in familiar.values()],
        }
    )
    counted, total = found.iloc[:-1], found.iloc[-1]
    worst = counted[counted["counts"]].sort_values("AUROC").head(3)
    weak = ", ".join(f"{k} ({a:.2f})" for k, a in zip(worst["kind"], worst["AUROC"], strict=True))
    inside = ", ".join(f"{k} ({a:.2f})" for k, a in zip(found["kind"], found["AUROC"], strict=True) if k in INSIDE)
    every = float(found["AUROC"].iloc[:-1].mean())
    met = "above" if total["AUROC"] >= AIM else "below"
    text = f"""
Does the score find spectra that the model cannot know? Familiar are {len(index)} {what}, clean and
under ordinary disturbances; strange are the kinds in the table, made from the same rows or from other elements' rows
whose energies are moved to this edge. The threshold that ships is {THRESHOLD:g}.

AUROC is **{total["AUROC"]:.3f}**, the mean over the kinds that count, {met} the {AIM:g} aimed at ({every:.3f}
over all kinds); {total["flagged"]:.0%} of the strange are flagged, and {np.mean(pooled > THRESHOLD):.1%} of the
familiar ({alarms["false alarms"][0]:.1%} of the clean ones). Hardest to tell are {weak}.

Two kinds are inside what is familiar and stand in the table without counting: {inside}. A wrong
edge step is undone by the common footing before the model sees it, so there is nothing left to find. Self-absorption
damps all features alike, as disorder, temperature and mixtures of sites do: the spectrum alone cannot tell them
apart. A slope of 10 % is close to that border. Other elements' oxides are like this one's where coordination
is. Of metals there are very few, each shown at energies up to 2 eV off and broadened.
"""
    return Section(
        "Unfamiliar spectra",
        text.strip(),
        {"unfamiliar-kinds": found, "unfamiliar-alarms": alarms},
        {"unfamiliar-detector": detector(pooled, {k: s for k, s in strange.items() if k != ERASED}, THRESHOLD)},
        {
            "unfamiliar-kinds": "What should be flagged, by kind; AUROC against all familiar spectra.",
            "unfamiliar-alarms": "Familiar spectra that are flagged.",
            "unfamiliar-detector": "The score as a detector, and its distribution by kind.",
        },
    )
