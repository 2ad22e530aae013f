"""The out-of-distribution score as a detector: detected kinds, missed kinds and false alarms."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ....agent.types import Array
from ...runtime import Model
from ...training import TrainingPlan, continued, shifted
from ..competitors import CLEAN, Condition, disturbed
from ..contract import Spectra
from ..report import Section, detector
from .element_rows import ElementRows, held_out_rows, move_to_edge

_THRESHOLD = 1.0
_TARGET_AUROC = 0.95
ORDINARY_CONDITIONS = (
    CLEAN,
    *(Condition("noise", a) for a in (0.005, 0.01, 0.02)),
    *(Condition("broadening", a) for a in (0.5, 1.0, 2.0)),
    *(Condition("offset", a) for a in (-0.5, 0.5)),
)
"""Disturbances of a good beamline, which should not raise a flag."""
_SPOILING_CONDITIONS: dict[str, tuple[Condition, ...]] = {
    "slope ± 20 %": (Condition("slope", -0.2), Condition("slope", 0.2)),
    "slope ± 10 %": (Condition("slope", -0.1), Condition("slope", 0.1)),
    "energies 5 eV off": (Condition("offset", -5.0), Condition("offset", 5.0)),
    "glitch 20 %": (Condition("glitch", 0.2),),
    "glitch 10 %": (Condition("glitch", 0.1),),
    "glitch 5 %": (Condition("glitch", 0.05),),
}
EDGE_STEP_KIND = "edge step ± 30 %"
_UNDETECTABLE_KINDS = (EDGE_STEP_KIND, "self-absorption")
"""Kinds whose spectra lie inside the distribution; the table lists them, the overall figures omit them."""
_COPIES_OF_A_METAL = 40
_CONSTANT_SPECTRA = 40
_FIRST_ABSORBING_POINT = 12  # a dropout below the edge would have nothing to remove


def out_of_distribution(
    model: Model,
    plan: TrainingPlan,
    elements: Sequence[ElementRows],
    conditions: Sequence[Condition] = ORDINARY_CONDITIONS,
    most: int = 2000,
) -> Section:
    """Judge the out-of-distribution score and return the section of the report.

    Parameters
    ----------
    elements : all data sets, the model's own included
    conditions : disturbances that leave held-out rows in distribution; the first is :data:`~.conditions.CLEAN`
    most : largest number of held-out rows
    """
    rows, index, description = held_out_rows(plan, elements, most)
    inside = {c.name: ood_scores(model, disturbed(rows, index, c)) for c in conditions}
    outside = {name: ood_scores(model, s) for name, s in outliers_by_kind(plan, rows, index, elements).items()}
    pooled = np.concatenate(list(inside.values()))
    table = detection(pooled, outside)
    alarms = pd.DataFrame(
        {
            "condition": list(inside),
            "spectra": [len(s) for s in inside.values()],
            "false alarms": [float(np.mean(s > _THRESHOLD)) for s in inside.values()],
            "median score": [float(np.median(s)) for s in inside.values()],
        }
    )
    text = _findings(table, alarms, pooled, f"{len(index)} {description}")
    return Section(
        "Out-of-distribution spectra",
        text,
        {"ood-kinds": table, "ood-alarms": alarms},
        {"ood-detector": detector(pooled, {k: s for k, s in outside.items() if k != EDGE_STEP_KIND}, _THRESHOLD)},
        {
            "ood-kinds": "Kinds of spectra that should be flagged; AUROC against all in-distribution spectra.",
            "ood-alarms": "In-distribution spectra that are flagged.",
            "ood-detector": "The score as a detector, and its distribution by kind.",
        },
    )


def outliers_by_kind(
    plan: TrainingPlan, rows: TrainingPlan, index: NDArray[np.int_], elements: Iterable[ElementRows]
) -> dict[str, Spectra]:
    """Return spectra that a model should flag, by kind.

    Parameters
    ----------
    plan : plan of the model
    rows, index : in-distribution rows to be spoilt (:func:`.element_rows.held_out_rows`)
    elements : data sets; compounds of other elements and all metals are moved to the model's edge

    Returns
    -------
    (n, G) aligned spectra of each kind.
    """
    found: dict[str, Spectra] = {}
    metals: list[Spectra] = []
    for element in elements:
        metal = element.data.kind == "metal"
        if element.absorber != plan.config.absorber:
            found[f"{element.absorber} compounds"] = move_to_edge(plan, element, ~metal)[1]
        if metal.any():
            metals.append(move_to_edge(plan, element, metal)[1])
    rng = np.random.default_rng(0)
    if metals:
        found["metals"] = _vary(np.concatenate(metals), plan, rng)
    for name, conditions in _SPOILING_CONDITIONS.items():
        found[name] = np.concatenate([disturbed(rows, index, c) for c in conditions])
    clean = rows.clean[torch.as_tensor(index)].numpy().astype(float)
    found["dropout"] = _onto_footing(rows, add_dropouts(clean, rng))
    found["self-absorption"] = _onto_footing(rows, self_absorb(clean, rng.uniform(0.5, 2.0, (len(clean), 1))))
    factor = 1 + rng.choice([-1, 1], (len(clean), 1)) * rng.uniform(0.15, 0.3, (len(clean), 1))
    found[EDGE_STEP_KIND] = _onto_footing(rows, factor * clean + rng.uniform(-0.1, 0.1, (len(clean), 1)))
    found["noise alone"] = _onto_footing(rows, rng.normal(size=clean.shape)).clip(-100, 100)
    levels = np.linspace(-1, 2, _CONSTANT_SPECTRA, dtype=np.float32)
    found["constant"] = np.tile(levels[:, None], clean.shape[1])
    return found


def add_dropouts(spectra: Array, rng: np.random.Generator) -> Array:
    """Add a monochromator glitch to each spectrum: two to four neighbouring points lose 10 to 30 % of their μ."""
    spoilt = spectra.copy()
    for row in spoilt:
        width = int(rng.integers(2, 5))
        first = int(rng.integers(_FIRST_ABSORBING_POINT, len(row) - width))
        row[first : first + width] *= 1 - rng.uniform(0.1, 0.3)
    return spoilt


def self_absorb(spectra: Array, thickness: Array) -> Array:
    """Return the fluorescence of a thick sample, μ (1 + a) / (1 + a μ), where a is the ``thickness``.

    Values of 1 do not change; higher values are damped.
    """
    return spectra * (1 + thickness) / (1 + thickness * spectra.clip(0))


def ood_scores(model: Model, spectra: Spectra) -> Array:
    """Return the out-of-distribution scores (n,) of aligned spectra (n, G)."""
    return model.forward(spectra)[:, -1]


def auroc(inside: Array, outside: Array) -> float:
    """Return the probability that an out-of-distribution spectrum scores above an in-distribution one."""
    from sklearn.metrics import roc_auc_score

    label = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    return float(roc_auc_score(label, np.r_[inside, outside]))


def detection(inside: Array, outside: Mapping[str, Array]) -> pd.DataFrame:
    """Return AUROC and share of flagged spectra by kind; the last row is the mean over the detectable kinds.

    Parameters
    ----------
    inside : (n,) scores of in-distribution spectra
    outside : (m,) scores of the spectra of each kind that should be flagged
    """
    rows = [
        {
            "kind": name,
            "spectra": len(s),
            "AUROC": auroc(inside, s),
            "flagged": float(np.mean(s > _THRESHOLD)),
            "median score": float(np.median(s)),
            "counts": name not in _UNDETECTABLE_KINDS,
        }
        for name, s in outside.items()
    ]
    counted = [r for r in rows if r["counts"]]
    mean = {c: float(np.mean([r[c] for r in counted])) for c in ("AUROC", "flagged")}
    total = {"kind": "mean over the kinds that count", "spectra": sum(r["spectra"] for r in counted), "counts": True}
    return pd.DataFrame([*rows, {**total, **mean}])


def _findings(table: pd.DataFrame, alarms: pd.DataFrame, pooled: Array, rows: str) -> str:
    counted, total = table.iloc[:-1], table.iloc[-1]
    hardest = counted[counted["counts"]].sort_values("AUROC").head(3)
    hard = ", ".join(f"{k} ({a:.2f})" for k, a in zip(hardest["kind"], hardest["AUROC"], strict=True))
    undetectable = ", ".join(
        f"{k} ({a:.2f})" for k, a in zip(table["kind"], table["AUROC"], strict=True) if k in _UNDETECTABLE_KINDS
    )
    every = float(counted["AUROC"].mean())
    verdict = "above" if total["AUROC"] >= _TARGET_AUROC else "below"
    return f"""
Does the score detect spectra that the model cannot know? In distribution are {rows}, clean and under ordinary
disturbances. Out of distribution are the kinds in the table, made from the same rows or from rows of other elements
whose energies are moved to this edge. The shipped threshold is {_THRESHOLD:g}.

The AUROC is **{total["AUROC"]:.3f}**, the mean over the kinds that count, {verdict} the target of {_TARGET_AUROC:g}
({every:.3f} over all kinds). The score flags {total["flagged"]:.0%} of the out-of-distribution spectra and
{np.mean(pooled > _THRESHOLD):.1%} of the in-distribution ones ({alarms["false alarms"][0]:.1%} of the clean ones).
The most difficult kinds are {hard}.

Two kinds lie inside the distribution and do not count: {undetectable}. The common footing removes a wrong edge step
before the model receives the spectrum. Self-absorption damps all features alike, as disorder, temperature and
mixtures of sites do, and the spectrum alone cannot distinguish them. A slope of 10 % is close to this limit. Oxides
of other elements resemble oxides of this element with the same coordination. There are very few metals; each is used
at energies up to 2 eV off, and broadened. """.strip()


def _vary(spectra: Spectra, plan: TrainingPlan, rng: np.random.Generator) -> Spectra:
    """Return copies of a few spectra, shifted by ± 2 eV and broadened by up to 2 eV, as FEFF's own edges scatter."""
    copies = torch.from_numpy(np.repeat(spectra, _COPIES_OF_A_METAL, axis=0))
    unknown, copies = copies.isnan(), continued(copies)
    shift, sigma = (torch.tensor(rng.uniform(lo, 2, (len(copies), 1)), dtype=torch.float32) for lo in (-2, 0))
    varied = shifted(copies, plan.rows.grid.step_ev, shift, sigma).masked_fill(unknown, torch.nan)
    return plan.rows.footing(varied).numpy()


def _onto_footing(plan: TrainingPlan, spectra: Array) -> Spectra:
    return plan.rows.footing(torch.tensor(spectra, dtype=torch.float32)).numpy()
