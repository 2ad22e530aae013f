"""The picture of an alignment: the edge with its derivative and the foil, the whole scan, and the model's grid."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ....agent.estimate import Answer
from ....agent.spectra import Aligned, Normalised
from ....agent.types import Array, Edge, Flag
from .style import AMBER, BLUE, DARK, DPI, GREEN, GREY, RED, WIDTH, any_letters, new_figure, plain, wrapped

_ZOOM_EV = (-30.0, 60.0)
"""Range about E0 that the panels of the edge show, eV."""
_FOIL_LEVELS_EV = (-15.0, 20.0)
"""Energies from the foil's E0 at which its curve is scaled to 0 and 1, eV."""
_CHARACTERS = 92
_LINE = 0.185
_HEIGHTS = (2.2, 1.4, 2.0, 1.7)


SIZE = WIDTH, 8.6
"""Size of the picture, inches."""


def draw_alignment(path: Path, title: str, answer: Answer) -> None:
    """Write the picture of :func:`draw_alignment_on` to a PNG file."""
    figure = new_figure(SIZE[1])
    with any_letters():
        draw_alignment_on(figure, title, answer)
        figure.savefig(path, dpi=DPI)


def draw_alignment_on(figure: Figure | SubFigure, title: str, answer: Answer) -> None:
    """Draw the edge and its derivative with E0 and the foil, the scan with its lines, and the aligned spectrum.

    For a frame that was set aside, the reason replaces the aligned spectrum.

    Parameters
    ----------
    figure : Figure or SubFigure
        Figure with a constrained layout, preferably of the size :data:`SIZE`.
    title : str
    answer : Answer
        Answer with an alignment and a model.
    """
    assert answer.aligned is not None
    assert answer.model is not None
    titles, notes = (wrapped(text, width).split("\n")[:3] for text, width in ((title, 62), (_notes(answer), 92)))
    height = _LINE * (len(titles) + len(notes) + 1.5)
    top, body = figure.subfigures(2, 1, height_ratios=(height, sum(_HEIGHTS)), squeeze=False)[:, 0]
    for number, line in enumerate([*titles, *notes]):
        bold = number < len(titles)
        at = 1 - (0.1 + _LINE * (number + (0 if bold else 0.4))) / height
        size, weight, colour = (12, "bold", DARK) if bold else (9.5, "normal", GREY)
        top.text(0.012, at, line, va="top", fontsize=size, fontweight=weight, color=colour)
    edge, slope, whole, ready = body.subplots(4, 1, height_ratios=_HEIGHTS)
    slope.sharex(edge)
    for axes in (edge, slope, whole, ready):
        plain(axes)
    _edge(edge, slope, answer)
    _whole(whole, answer.frame.energy, answer.frame.mu, answer.aligned, answer.row, _e0(answer))
    _on_grid(ready, answer)


def _e0(answer: Answer) -> float:
    """Return E0 on the energy scale of the file, eV."""
    assert answer.model is not None
    q = answer.quantities
    return q["e0_ev"] - q["energy_shift_ev"] + answer.model.edge.feff_minus_experiment_ev


def _notes(answer: Answer) -> str:
    """Return the results of the alignment in words."""
    q, e0 = answer.quantities, _e0(answer)
    said = [f"E0 {e0:.2f} eV as measured" if np.isfinite(e0) else "no E0"]
    said += [f"energies {q['energy_shift_ev']:+.2f} eV to FEFF's scale"] if np.isfinite(q["energy_shift_ev"]) else []
    foil = q.get("foil_shift_ev", np.nan)
    said += [f"of which the foil {foil:+.2f} eV" if np.isfinite(foil) and foil else "no foil"]
    said += [f"edge step {q['edge_step']:.3g}"] if np.isfinite(q.get("edge_step", np.nan)) else []
    said += [f"noise {q['noise']:.2g} edge steps"] if np.isfinite(q.get("noise", np.nan)) else []
    return "; ".join([", ".join(said).replace("-", "−"), *([", ".join(answer.flags)] if answer.flags else [])])


def _edge(edge: Axes, slope: Axes, answer: Answer) -> None:
    """Draw the normalised edge and its derivative, with those of the foil."""
    assert answer.aligned is not None
    assert answer.model is not None
    frame, lines, e0 = answer.frame, answer.aligned.lines, _e0(answer)
    centre = e0 if np.isfinite(e0) else answer.model.edge.edge_ev
    norm = frame.mu if lines is None or lines.mode == "none" else lines.flat[answer.row]
    seen = (frame.energy >= centre + _ZOOM_EV[0]) & (frame.energy <= centre + _ZOOM_EV[1])
    if seen.sum() < 3:
        seen = np.ones(len(frame.energy), bool)
    energy, curve = frame.energy[seen], norm[seen]
    edge.plot(energy, curve, ".-", color=BLUE, lw=1.4, ms=3, label="sample")
    slope.plot(energy, np.gradient(curve, energy), ".-", color=BLUE, lw=1.2, ms=3)
    foil = _foil(answer, frame.energy, seen)
    if foil is not None:
        edge.plot(energy, foil, color=AMBER, lw=1.3, ls=(0, (4, 1.5)), label="foil, scaled")
        slope.plot(energy, np.gradient(foil, energy), color=AMBER, lw=1.1, ls=(0, (4, 1.5)))
    for axes in (edge, slope):
        if np.isfinite(e0):
            axes.axvline(e0, color=RED, lw=1.2, label=f"E0 {e0:.2f} eV")
        axes.axvline(answer.model.edge.edge_ev, color=GREY, lw=0.9, ls=":", label="tabulated edge")
        if foil is not None and np.isfinite(at := _foil_e0(answer)):
            axes.axvline(at, color=AMBER, lw=1.2, ls="-.", label=f"E0 of the foil {at:.2f} eV")
    edge.set_ylabel("normalised μ", fontsize=9)
    slope.set_ylabel("dμ/dE (1/eV)", fontsize=9)
    edge.tick_params(labelbottom=False)
    slope.set_xlabel("energy as measured (eV)", fontsize=9)
    edge.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=5, fontsize=8, frameon=False, handlelength=1.8,
        columnspacing=1.0, borderaxespad=0, handletextpad=0.5,
    )  # fmt: skip
    edge.set_xlim(energy[0], energy[-1])


def _foil_e0(answer: Answer) -> float:
    """Return E0 of the foil on the energy scale of the file, eV; NaN if it was not used."""
    assert answer.model is not None
    foil = answer.quantities.get("foil_shift_ev", np.nan)
    return answer.model.edge.edge_ev - foil if foil else np.nan


def _foil(answer: Answer, energy: Array, seen: np.ndarray) -> Array | None:
    """Return the visible part of the foil's curve, 0 below its edge and 1 above; None without a foil."""
    assert answer.model is not None
    reference = answer.frame.reference
    if reference is None or not np.isfinite(reference).all():
        return None
    at = _foil_e0(answer)
    at = at if np.isfinite(at) else answer.model.edge.edge_ev
    low, high = np.interp([at + _FOIL_LEVELS_EV[0], at + _FOIL_LEVELS_EV[1]], energy, reference)
    if high <= low:  # no edge to scale
        low, high = reference[seen].min(), max(reference[seen].max(), reference[seen].min() + 1e-12)
    return (reference[seen] - low) / (high - low)


def _whole(axes: Axes, energy: Array, mu: Array, aligned: Aligned, row: int, e0: float) -> None:
    """Draw μ, E0, glitches, and the normalisation lines over their fit windows."""
    lines = aligned.lines
    bad = np.zeros(len(mu), bool) if aligned.repaired is None else aligned.repaired[row]
    axes.plot(energy, mu, color=GREY if bad.any() else BLUE, lw=1.2, label="μ as measured")
    if lines is not None and bad.any():
        axes.plot(energy, lines.mu[row], color=BLUE, lw=1.2, label="repaired")
        axes.plot(energy[bad], mu[bad], "x", color=RED, ms=8, mew=1.5, zorder=5, label=f"glitches ({int(bad.sum())})")
    if lines is not None and lines.mode != "none":
        _lines(axes, energy, lines, row, e0)
    if np.isfinite(e0):
        axes.axvline(e0, color=RED, lw=0.9, zorder=0)
    axes.set_xlabel("energy as measured (eV)", fontsize=9)
    axes.set_ylabel("μ, not normalised" if lines is not None and lines.mode == "none" else "μ", fontsize=9)
    axes.margins(x=0.02)
    axes.legend(loc="best", fontsize=8.5, framealpha=0.8, edgecolor="none")


def _lines(axes: Axes, energy: Array, lines: Normalised, row: int, e0: float) -> None:
    method = "MBACK" if lines.mode == "mback" else f"order {lines.post_order[row]}"
    names = ("pre-edge", "mean over the area" if lines.mode == "area" else f"post-edge ({method})")
    parts: list[tuple[str, Any, Any, Any, str, Any]] = [
        (names[0], lines.pre_edge[row], lines.pre, np.ones(len(energy), bool), AMBER, "--")
    ]
    above = energy >= (e0 if np.isfinite(e0) else energy[0])
    parts.append((names[1], lines.post_edge[row], lines.post, above, GREEN, (0, (5, 1, 1, 1))))
    for name, curve, window, where, colour, dashes in parts:
        axes.plot(energy[where], curve[where], color=colour, lw=1.4, ls=dashes, label=name)
        first, last = (int(np.broadcast_to(i, len(lines.mu))[row]) for i in window)
        if last > first and not (lines.mode == "area" and colour == GREEN):
            axes.axvspan(energy[first], energy[last - 1], color=colour, alpha=0.1, lw=0, zorder=0)


def _on_grid(axes: Axes, answer: Answer) -> None:
    """Draw the aligned spectrum, or the reason why there is none."""
    assert answer.aligned is not None
    assert answer.model is not None
    row, edge, grid = answer.row, answer.model.edge, answer.model.grid
    if (refusal := answer.refusal) is not None:
        axes.set_axis_off()
        text = f"set aside: {refusal.reason}\n{wrapped(refusal.detail, _CHARACTERS - 14)}"
        axes.text(0.5, 0.5, text, ha="center", va="center", color=RED, fontsize=10, transform=axes.transAxes)
        return
    for level in (0, 1):
        axes.axhline(level, color=GREY, lw=0.5)
    axes.plot(grid.energy, answer.aligned.mu[row], color=BLUE, lw=1.6, label="what the model sees")
    if Flag.SELF_ABSORPTION_CORRECTED in answer.aligned.flags[row] and answer.aligned.lines is not None:
        at, uncorrected = _uncorrected(answer, edge, answer.aligned.lines)
        axes.plot(at, uncorrected, color=GREY, lw=1, ls="--", label="before the correction")
    axes.set_xlabel("energy on FEFF's scale − tabulated edge (eV)", fontsize=9)
    axes.set_ylabel("aligned μ (edge steps)", fontsize=9)
    axes.legend(loc="lower right", fontsize=8.5, frameon=False)


def _uncorrected(answer: Answer, edge: Edge, lines: Normalised) -> tuple[Array, Array]:
    """Return energies on the grid's scale, and the spectrum before the correction of its self-absorption."""
    assert answer.model is not None
    shift, grid = answer.quantities["energy_shift_ev"], answer.model.grid
    at = edge.to_feff_scale(answer.frame.energy - edge.edge_ev + shift - edge.feff_minus_experiment_ev)
    on_grid = (at >= grid.energy[0]) & (at <= grid.energy[-1])
    return at[on_grid], lines.flat[answer.row][on_grid]
