"""Exploration of a model: maps of spectra and of its latent space (paper, section 4.5)."""

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ....agent.types import Array, InputError
from ... import card as cards
from ...convert import served_of
from ...training import TrainingPlan
from ..contract import classes_of
from ..report import Section, embedding
from .attribution import add_attribution, queries
from .element_rows import ElementRows, held_out_rows, subsample

_NEIGHBOURS = 10
_MAX_MAPPED_ROWS = 4000
"""Largest number of rows of a map, and of training rows that are searched for neighbours."""


def umap(points: Array, seed: int = 0) -> Array:
    """Return a UMAP (N, 2) of points (N, D) (McInnes et al., 2018).

    Raises
    ------
    InputError
        UMAP is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from numba, about its internals
            umap: Any = import_module("umap")  # whose types a checker would take twenty seconds to infer

            neighbours = min(15, len(points) - 1)
            mapped = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(points)
    except ImportError:
        raise InputError("maps need the [train] extra: pip install 'xas-agent[train]'") from None
    return np.asarray(mapped, float)


def agreement(
    points: Array, known: Array, labels: Mapping[str, tuple[Array, Array]], classified: Sequence[str]
) -> dict[str, float]:
    """Measure by descriptor how well the nearest ``known`` points (M, D) predict the labels of ``points`` (N, D).

    Parameters
    ----------
    labels : labels of the points (N,) and of the known points (M,) by descriptor; NaN where missing

    Returns
    -------
    For classified descriptors the mean share of the ten nearest labelled points that have the same class, for
    regressed ones R² of their mean."""
    square = (points**2).sum(1)[:, None] + (known**2).sum(1) - 2 * points @ known.T
    measures: dict[str, float] = {}
    for name, (own, others) in labels.items():
        have, there = ~np.isnan(own), ~np.isnan(others)
        if have.sum() < 2 or there.sum() < _NEIGHBOURS:
            continue
        nearest = np.argpartition(square[have][:, there], _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
        near, truth = others[there][nearest], own[have]
        if name in classified:
            measures[name] = float((near == truth[:, None]).mean())
        else:
            measures[name] = float(
                1 - ((near.mean(1) - truth) ** 2).sum() / max(((truth - truth.mean()) ** 2).sum(), 1e-12)
            )
    return measures


def exploration(
    folder: Path, plan: TrainingPlan, elements: Sequence[ElementRows], most: int = _MAX_MAPPED_ROWS, seed: int = 0
) -> Section:
    """Explore the model in ``folder`` and return the section of the report.

    Parameters
    ----------
    elements : all data sets, the model's own included
    most : largest number of held-out rows in the maps, and of training rows that are searched for neighbours
    """
    served, card = served_of(folder), cards.read_card(folder)
    rows, index, description = held_out_rows(plan, elements, most)
    spectra = rows.clean[torch.as_tensor(index)]
    labels = {d: rows.data.labels[d][index] for d in (*plan.config.classified, *plan.config.regressed)}
    among = subsample(plan.learnt, most)
    learnt = plan.clean[torch.as_tensor(among)]
    both = {d: (v, plan.data.labels[d][among]) for d, v in labels.items()}
    kinds = list(classes_of(plan))
    latent, latent_learnt = queries(served, spectra), queries(served, learnt)
    # Maps and attributions need numbers where a spectrum is unknown; the mean changes distances least.
    mean = learnt.nanmean(0)
    spectra, learnt = (s.where(~s.isnan(), mean) for s in (spectra, learnt))
    near = pd.DataFrame(
        {
            "descriptor": list(both),
            "measure": ["share of neighbours" if d in kinds else "R²" for d in both],
            "chance": [chance(*pair) if d in kinds else 0.0 for d, pair in both.items()],
        }
    ).set_index("descriptor")
    near["spectra"] = pd.Series(agreement(spectra.double().numpy(), learnt.double().numpy(), both, kinds))
    near["latent space"] = pd.Series(agreement(latent, latent_learnt, both, kinds))
    step = card.grid.step_ev * served.spt.embedding.local.stride[0]
    section = Section("Exploration", "", {"exploration-neighbours": near.reset_index()})
    same = (
        np.array_equal(labels["OS"], labels["OS_mean"], equal_nan=True) if {"OS", "OS_mean"} <= set(labels) else False
    )
    coloured = {d: v for d, v in labels.items() if not (same and d == "OS_mean")}
    section.figures["exploration-map-spectra"] = embedding(umap(spectra.double().numpy(), seed), coloured)
    section.figures["exploration-map-latent"] = embedding(umap(latent, seed), coloured)
    attribution = add_attribution(section, served, plan, spectra, labels, step)
    better = near[near["latent space"] > near["spectra"]].index
    classed = near.loc[kinds].mean(numeric_only=True)
    section.text = f"""
Which labels do the spectra distinguish, which does the network's latent space, and on which energies do the answers
depend? The rows are {len(index)} {description}. The maps are UMAPs (McInnes et al., 2018; Euclidean, 15 neighbours)
of the aligned spectra, and of the queries by which the network recalls training sites. Distances in a map have little
meaning, so neighbours are counted in the original space: the share of the {_NEIGHBOURS} nearest of {len(among)}
training rows that have the class of a row, or R² of their mean.

Neighbours in the latent space agree better than neighbours among spectra for {len(better)} of {len(near)} descriptors
(mean over the classified ones {classed["latent space"]:.2f} against {classed["spectra"]:.2f}, by chance
{classed["chance"]:.2f}).
{attribution}
""".strip()
    section.captions |= {
        "exploration-neighbours": "Agreement of the nearest training rows with a row, in both spaces.",
        "exploration-map-spectra": "Map of the aligned spectra, coloured by descriptor; pale grey: no label.",
        "exploration-map-latent": "Map of the network's queries for the same rows.",
    }
    return section


def chance(own: Array, others: Array) -> float:
    """Return the mean share of ``others`` (M,) that have the class of a row of ``own`` (N,)."""
    own, others = own[~np.isnan(own)], others[~np.isnan(others)]
    return float(np.mean([(others == c).mean() for c in own])) if len(own) and len(others) else float("nan")
