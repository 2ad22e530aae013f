"""Looking into a model: maps of spectra and of its latent space (paper, section 4.5)."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ....agent.types import Array, InputError
from ... import card as cards
from ...network import Served, SPTShape
from ...training import TrainingPlan, served_weights
from ..contract import classes_of
from ..report import Section, embedding
from .attribution import add_attribution, queries
from .element_rows import ElementRows, held_out_rows, subsample

NEIGHBOURS = 10
MAPPED = 4000
"""Most rows of a map, and to look for neighbours among."""


def rebuild(folder: Path) -> Served:
    """The module of a model folder as Python, so that one can look inside.

    Raises
    ------
    ModelError
        Its tensors are not those of this version's network.
    """
    card, weights = cards.verify(folder), served_weights(folder)
    record = card.training
    sizes = {k: v for k, v in record["network"].items() if k != "bands"}
    classes = tuple(len(d.classes) for d in card.descriptors if d.kind == "classified")
    grid = card.grid.grid()
    shape = SPTShape(
        grid_points=len(grid),
        periods=tuple(record["periods"]),
        classes=classes,
        regressed=len(card.regressed),
        members=record["members"],
        **sizes,
    )
    try:
        served = Served(shape, weights["recall.keys"].shape[1])
        # TorchScript also keeps what can be worked out again.
        served.load_state_dict({k: weights[k] for k in served.state_dict()})
    except (KeyError, RuntimeError) as e:
        raise cards.ModelError(f"{folder}: not a network of this version ({str(e).splitlines()[0]})") from None
    return served.eval()


def umap(points: Array, seed: int = 0) -> Array:
    """(N, 2) map of (N, D) points (McInnes et al., 2018)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numba's, on its own insides
            from umap import UMAP

            neighbours = min(15, len(points) - 1)
            mapped = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(points)
    except ImportError:
        raise InputError("maps need the [train] extra: pip install 'xas-agent[train]'") from None
    return np.asarray(mapped, float)


def agreement(
    points: Array, known: Array, labels: Mapping[str, tuple[Array, Array]], classified: Sequence[str]
) -> dict[str, float]:
    """How well the nearest of the ``known`` (M, D) tell the labels of ``points`` (N, D).

    Parameters
    ----------
    labels : per descriptor those of the points (N,) and of the known (M,); NaN where missing

    Returns
    -------
    Mean share of the ten nearest labelled ones that are of the same class; for what is regressed R² of their mean.
    """
    square = (points**2).sum(1)[:, None] + (known**2).sum(1) - 2 * points @ known.T
    found: dict[str, float] = {}
    for name, (own, others) in labels.items():
        have, there = ~np.isnan(own), ~np.isnan(others)
        if have.sum() < 2 or there.sum() < NEIGHBOURS:
            continue
        nearest = np.argpartition(square[have][:, there], NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        near, truth = others[there][nearest], own[have]
        if name in classified:
            found[name] = float((near == truth[:, None]).mean())
        else:
            found[name] = float(
                1 - ((near.mean(1) - truth) ** 2).sum() / max(((truth - truth.mean()) ** 2).sum(), 1e-12)
            )
    return found


def exploration(
    folder: Path, plan: TrainingPlan, elements: Sequence[ElementRows], most: int = MAPPED, seed: int = 0
) -> Section:
    """The section of the report, of the model in ``folder``.

    Parameters
    ----------
    most : held-out rows to map, and training rows to look for their neighbours among
    """
    served, card = rebuild(folder), cards.read_card(folder)
    rows, index, what = held_out_rows(plan, elements, most)
    spectra = rows.clean[torch.as_tensor(index)]
    labels = {d: rows.data.labels[d][index] for d in (*plan.config.classified, *plan.config.regressed)}
    among = subsample(plan.learnt, most)
    learnt = plan.clean[torch.as_tensor(among)]
    both = {d: (v, plan.data.labels[d][among]) for d, v in labels.items()}
    kinds = list(classes_of(plan))
    latent = queries(served, spectra)
    near = pd.DataFrame(
        {
            "descriptor": list(both),
            "measure": ["share of neighbours" if d in kinds else "R²" for d in both],
            "chance": [chance(*pair) if d in kinds else 0.0 for d, pair in both.items()],
        }
    ).set_index("descriptor")
    near["spectra"] = pd.Series(agreement(spectra.double().numpy(), learnt.double().numpy(), both, kinds))
    near["latent space"] = pd.Series(agreement(latent, queries(served, learnt), both, kinds))
    step = card.grid.step_ev * served.spt.embedding.local.stride[0]
    section = Section("Exploration", "", {"exploration-neighbours": near.reset_index()})
    same = (
        np.array_equal(labels["OS"], labels["OS_mean"], equal_nan=True) if {"OS", "OS_mean"} <= set(labels) else False
    )
    coloured = {d: v for d, v in labels.items() if not (same and d == "OS_mean")}
    section.figures["exploration-map-spectra"] = embedding(umap(spectra.double().numpy(), seed), coloured)
    section.figures["exploration-map-latent"] = embedding(umap(latent, seed), coloured)
    said = add_attribution(section, served, plan, spectra, labels, step)
    better = near[near["latent space"] > near["spectra"]].index
    classed = near.loc[kinds].mean(numeric_only=True)
    section.text = f"""
What do spectra alone tell apart, what does the network's latent space, and where does it look? Shown are {len(index)}
{what}. Maps are by UMAP (McInnes et al., 2018; Euclidean, 15 neighbours) of the aligned
spectra, and of the queries by which the network recalls training sites. Distances in a map mean little, so
neighbourhoods are counted where the points are: of each row's {NEIGHBOURS} nearest among {len(among)}
training rows the share of its class, or R² of their mean.

In the latent space neighbours agree better than among spectra for {len(better)} of {len(near)} descriptors (mean over
those with classes {classed["latent space"]:.2f} against {classed["spectra"]:.2f}, by chance {classed["chance"]:.2f}).
{said}
""".strip()
    section.captions |= {
        "exploration-neighbours": "What a row's nearest training rows tell of it, in both spaces.",
        "exploration-map-spectra": "Map of the aligned spectra, coloured by descriptor; pale grey is not labelled.",
        "exploration-map-latent": "Map of the network's queries for the same rows.",
    }
    return section


def chance(own: Array, others: Array) -> float:
    """Share of ``others`` (M,) that have the class of a row of ``own`` (N,), drawn without looking."""
    own, others = own[~np.isnan(own)], others[~np.isnan(others)]
    return float(np.mean([(others == c).mean() for c in own])) if len(own) and len(others) else float("nan")
