"""Attribution: weights of frequency bands, attention over energy, gradients (paper, section 4.5)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from ....agent.types import Array
from ...network import FrequencyBranch, GraphAttention, Served
from ...training import TrainingPlan
from ..report import BLUE, GREY, RED, STYLE, WIDTH, Section, panelled

_GRADIENT_ROWS = 128
"""Number of rows whose gradients are averaged."""
_MIN_CLASS_ROWS = 5
"""Number of rows that a class needs in the table of band weights."""


def add_attribution(
    section: Section, served: Served, plan: TrainingPlan, spectra: Tensor, labels: Mapping[str, Array], step_ev: float
) -> str:
    """Add figures and tables of the attribution to the section, and return sentences for its text.

    Parameters
    ----------
    spectra : (N, G) aligned spectra
    labels : (N,) labels of each descriptor
    step_ev : distance between spectral points, eV
    """
    sentences: list[str] = []
    energy, config = plan.rows.grid.energy, plan.config
    blocks = list(served.spt.blocks)
    if any(isinstance(b, FrequencyBranch) for b in blocks):
        weights = band_weights(served, spectra)
        periods = [p * step_ev for p in periods_of(served)]
        tables = {d: bands_by_class(weights, labels[d], periods) for d in config.classified}
        drawn = {d: t for d, t in tables.items() if 2 < len(t) <= 14}
        if drawn:
            section.figures["exploration-bands"] = band_figure(drawn)
            section.tables["exploration-bands"] = pd.concat(drawn, names=["descriptor"]).reset_index()
        section.captions["exploration-bands"] = "Weight of each frequency band, by its period in eV and by class."
        strongest = int(weights.mean(0).argmax())
        sentences.append(
            f"The strongest band has a period of {periods[strongest]:g} eV, weight {weights.mean(0)[strongest]:.2f} "
            f"compared with an even share of {1 / len(periods):.2f}."
        )
    if any(isinstance(b, GraphAttention) for b in blocks):
        first = config.classified[0]
        frames = example_rows(labels[first])
        some = spectra[torch.as_tensor(frames)]
        titles = [f"{first} {labels[first][i]:g}" for i in frames]
        weights = attention(served, some)
        section.figures["exploration-attention"] = attention_figure(
            energy, some.double().numpy(), weights, titles, step_ev
        )
        section.captions["exploration-attention"] = (
            "Attention over energy for a spectrum of each class, mean over heads and members: the attention that "
            "each point receives (1 is an even share), and below, the weights of its neighbours."
        )
    few = spectra[torch.linspace(0, len(spectra) - 1, min(_GRADIENT_ROWS, len(spectra))).long()]
    sensitivity = saliency(served, few, config.classified, config.regressed)
    section.figures["exploration-saliency"] = saliency_figure(energy, spectra.mean(0).double().numpy(), sensitivity)
    section.captions["exploration-saliency"] = (
        f"Sensitivity of each descriptor to the spectrum: mean absolute gradient over {len(few)} rows times the "
        "standard deviation of the point over training spectra; grey: the mean spectrum."
    )
    near_edge = {d: float(v[energy <= 30].sum()) for d, v in sensitivity.items()}
    most, least = max(near_edge, key=near_edge.__getitem__), min(near_edge, key=near_edge.__getitem__)
    sentences.append(
        f"The points up to 30 eV above the edge, {(energy <= 30).mean():.0%} of all, contribute "
        f"{near_edge[most]:.0%} of the sensitivity of {most} and {near_edge[least]:.0%} of that of {least}."
    )
    return " ".join(sentences)


@torch.no_grad()
def queries(served: Served, spectra: Tensor) -> Array:
    """Return the queries (N, members · key) with which the network recalls sites, for aligned spectra (N, G)."""
    scaled = (spectra - served.centre) / served.spread
    return torch.cat([served.spt(part)[3].flatten(1) for part in scaled.split(64)]).double().numpy()


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Record the outputs of ``modules`` in the order of their calls."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)

    hooks = [m.register_forward_hook(keep) for m in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def band_weights(served: Served, spectra: Tensor) -> Array:
    """Return the weight (N, bands) of each band in the frequency branch (eq. 4), mean over members and blocks."""
    branches = [b for b in served.spt.blocks if isinstance(b, FrequencyBranch)]
    total = torch.zeros(len(spectra), branches[0].count if branches else 0)
    for branch in branches:
        with recorded([branch.key, branch.query]) as out:  # in this order
            queries(served, spectra)
        scores: list[Tensor] = []
        for key, query in zip(out[0::2], out[1::2], strict=True):  # of some spectra: (members, bands · n or n, width)
            own = key.reshape(branch.members, branch.count, -1, branch.width)
            scores.append((query.unsqueeze(1) * own).sum(3))
        score = torch.cat(scores, dim=2)
        total += torch.softmax(score, dim=1).mean(0).T / len(branches)
    return total.double().numpy()


@torch.no_grad()
def attention(served: Served, spectra: Tensor) -> Array:
    """Return the attention of each spectral point to its neighbours (eq. 6) in the last graph branch.

    Returns
    -------
    (N, nodes, 2 · window + 1) means over heads and members; the middle column is the point itself.
    """
    last = max(k for k, b in enumerate(served.spt.blocks) if isinstance(b, GraphAttention))
    branch = served.spt.blocks[last]
    assert isinstance(branch, GraphAttention)
    before = served.spt.blocks[:last](served.spt.embedding((spectra - served.centre) / served.spread))
    here, there, _ = branch.projected(before)
    weight = branch.attention(here, there).mean(dim=2)  # the mean over heads
    return branch.frames(weight).mean(dim=2).double().numpy()


def received_attention(weights: Array) -> Array:
    """Return the attention (N, nodes) that each point receives from its neighbours; 1 is an even share."""
    n, points, reach = weights.shape
    window = reach // 2
    total = np.zeros((n, points + 2 * window))
    for k in range(reach):
        if k != window:
            total[:, k : k + points] += weights[:, :, k]
    return total[:, window : window + points] * reach / (reach - 1)


def saliency(served: Served, spectra: Tensor, names: Sequence[str], regressed: Sequence[str]) -> dict[str, Array]:
    """Return the sensitivity (G,) of each descriptor to the points of the spectrum.

    It is the mean absolute gradient over the rows, times the standard deviation of the point over training spectra,
    as a share of the sum over points. The gradient is that of the logarithm of the highest probability, or of the
    value.

    Parameters
    ----------
    names, regressed : classified and regressed descriptors, in the order of the output
    """
    x = spectra.clone().requires_grad_()
    out = served(x)
    answers = [
        part.max(1).values.clamp_min(1e-9).log() for part in out[:, : sum(served.classes)].split(served.classes, 1)
    ]
    answers += list(out[:, sum(served.classes) :][:, : len(regressed)].T)
    shares: dict[str, Array] = {}
    for name, answer in zip((*names, *regressed), answers, strict=True):
        (slope,) = torch.autograd.grad(answer.sum(), x, retain_graph=True)
        change = (slope.abs() * served.spread).mean(0)
        shares[name] = (change / change.sum()).double().numpy()
    return shares


@STYLE
def band_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the weight of each band (columns) by class (rows), minus the mean of all rows."""
    figure, panels = panelled(len(tables), columns=3, height=3.0)
    deviations = {d: t - t.loc["all"] for d, t in tables.items()}
    most = max((float(np.abs(t.to_numpy()).max()) for t in deviations.values()), default=0.0) or 1.0
    image = None
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        rows = deviations[name].drop(index="all")
        image = axes.imshow(rows, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        for i, label in enumerate(rows.index):
            for j, band in enumerate(rows.columns):
                strong = abs(rows.loc[label, band]) > 0.6 * most
                axes.text(
                    j, i, f"{table.loc[label, band]:.2f}", ha="center", va="center", fontsize=7.5,
                    color="white" if strong else "#222222",
                )  # fmt: skip
        axes.set_xticks(range(len(rows.columns)), [str(c) for c in rows.columns])
        axes.set_yticks(range(len(rows)), [str(c) for c in rows.index])
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        axes.set_title(name)
    for axes in panels[-3:]:
        axes.set_xlabel("period of the band (eV)")
    if image is not None:
        figure.colorbar(image, ax=panels, label="weight − mean of all rows", shrink=0.6, aspect=30, pad=0.01)
    return figure


@STYLE
def attention_figure(energy: Array, spectra: Array, weights: Array, titles: Sequence[str], step_ev: float) -> Figure:
    """Draw spectra with the attention that each point receives, and below them the attention itself."""
    count = len(titles)
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    panels = figure.subplots(2, count, squeeze=False, sharex=True, sharey="row", height_ratios=(2, 1))
    nodes = np.linspace(energy[0], energy[-1], weights.shape[1])
    window = weights.shape[2] // 2
    most = float(weights.max())
    image = None
    for k, (above, below) in enumerate(panels.T):
        above.axhline(1, color=GREY, lw=0.6, ls=":")
        above.plot(energy, spectra[k], color=BLUE, lw=1.6, label="spectrum")
        above.plot(nodes, received_attention(weights[k : k + 1])[0], color=RED, lw=1, label="attention received")
        above.set_title(titles[k], fontsize=8.5)
        extent = (energy[0], energy[-1], -(window + 0.5) * step_ev, (window + 0.5) * step_ev)
        image = below.imshow(
            weights[k].T, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=most, extent=extent
        )
        below.set_xlabel("energy − edge (eV)")
    panels[0, 0].legend(fontsize=7.5, loc="lower right")
    panels[1, 0].set_ylabel("neighbour (eV)")
    if image is not None:
        figure.colorbar(image, ax=panels[1].tolist(), label="attention", pad=0.01)
    return figure


@STYLE
def saliency_figure(energy: Array, mean: Array, sensitivity: Mapping[str, Array]) -> Figure:
    """Draw the sensitivity of each descriptor to each energy, in front of the mean spectrum."""
    figure, panels = panelled(len(sensitivity), 5, 1.9, "energy − edge (eV)", sharex=True, sharey=True)
    most = max(float(v.max()) for v in sensitivity.values())
    for axes, (name, share) in zip(panels, sensitivity.items(), strict=True):
        axes.plot(energy, mean / mean.max() * most, color="#c9ced6", lw=1.3)
        axes.fill_between(energy, share, color=BLUE, alpha=0.35, lw=0)
        axes.plot(energy, share, color=BLUE, lw=1)
        axes.set(yticks=[], ylim=(0, most * 1.05))
        axes.set_title(name)
        axes.grid(axis="x")
    return figure


def bands_by_class(weights: Array, truth: Array, periods: Sequence[float]) -> pd.DataFrame:
    """Return the mean weights of bands (columns) for all rows and for each class with enough rows."""
    rows = {"all": weights.mean(0)}
    for c in np.unique(truth[~np.isnan(truth)]):
        if (truth == c).sum() >= _MIN_CLASS_ROWS:
            rows[f"{c:g}"] = weights[truth == c].mean(0)
    return pd.DataFrame.from_dict(rows, orient="index", columns=[f"{p:g}" for p in periods]).rename_axis("class")


def example_rows(truth: Array, count: int = 4) -> NDArray[np.int_]:
    """Return the first row of each of up to ``count`` classes."""
    classes = np.unique(truth[~np.isnan(truth)])
    some = classes[np.unique(np.linspace(0, len(classes) - 1, min(count, len(classes))).astype(int))]
    return np.array([np.flatnonzero(truth == c)[0] for c in some], int)


def periods_of(served: Served) -> list[int]:
    """Return the periods of the frequency bands, in spectral points."""
    branch = next(b for b in served.spt.blocks if isinstance(b, FrequencyBranch))
    return [int(band.period) for band in branch.bands]  # pyright: ignore  a ModuleList forgets its types
