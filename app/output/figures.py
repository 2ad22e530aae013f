"""Figures of a session, of the alignment of a spectrum, and of standards."""

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from ...agent.decide import READINGS
from ...agent.estimate import Answer
from ...agent.spectra import Aligned, Normalised
from ...agent.types import Z90, Array, Edge, Flag
from .recorder import OOD_LIMIT, TEMPERATURE_FIELDS, VOLTAGE_FIELDS, Drawn, Truth, named

if TYPE_CHECKING:
    from ...models.training import StandardFit  # which imports torch

BLUE, GREY, RED, GREEN = "#1f5fa8", "#7a7a7a", "#b3261e", "#2e7d32"
AMBER = "#b26a00"
COLOURS = (BLUE, AMBER, GREEN, "#7b3fa0", "#00838f", "#ad1457", "#5d4037", GREY)
"""Colours of several series; after the last the first comes again."""
_TITLE_CHARACTERS = 70
"""Characters per line of a title over half a figure."""
_NAME_CHARACTERS = 40
"""Characters of a series' name in a legend."""
_LEGEND_SERIES = 8
"""Series that a legend names."""
_FEW_DECISIONS = 8
"""Number of decisions up to which their lines are drawn as broad as others."""
_RULE_CHARACTERS = 40
"""Characters of the rules' names in the label of a decision."""
_LABEL_WIDTH, _CHARACTER = 0.06, 0.0186
"""Width of such a label, and length of a character, as parts of the panel's width and height."""
_HOURS_FROM_S, _MINUTES_FROM_S = 3 * 3600, 300
"""Durations above which the time axis is in hours or minutes, s."""


@dataclass(frozen=True)
class _Series:
    """The frames of one series, which a line may join."""

    name: str
    colour: str
    clock: np.ndarray
    """(n,) time since the first frame of the session."""
    rows: list[dict[str, Any]]
    spectra: list[np.ndarray | None]


def draw_operando(file: Path | BinaryIO, drawn: Drawn, truth: Truth | None) -> None:
    """Draw the estimates of a session over time as PNG, with what drives the sample, and the aligned spectra.

    Lines join the frames of one series only; several series have a colour each.
    """
    series, unit = _series(drawn)
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    model, rows = ", ".join(drawn.models) or "agent", [frame.row for frame in drawn.frames]
    some = str(drawn.count) if len(rows) == drawn.count else f"{len(rows)} of {drawn.count}"
    title = f"{model}, {some} {'frame' if drawn.count == 1 else 'frames'}: {named(*rows)}"
    figure.suptitle(escaped(title), x=0.01, ha="left", fontsize=12)
    grid = figure.add_gridspec(3, 2, width_ratios=(1.5, 1), height_ratios=(1.6, 1, 0.7))

    top = figure.add_subplot(grid[0, 0])
    _oxidation_state(top, series)
    _truth(top, series, truth)
    _driving_reading(top, series, drawn)
    _levels(top, drawn, "OS", "OS_mean", "OS_anchored", "OS_anchored_mean")
    _decisions(top, series, drawn)
    top.set_ylabel("mean oxidation state (e)")
    # Above the axes, because within them it would cover the labels of the decisions.
    top.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, frameon=False, fontsize=8)

    middle = figure.add_subplot(grid[1, 0], sharex=top)
    _interval(middle, series, "CN", named_series=False)
    _interval(middle, series, "OCN", GREY, named_series=False)
    _levels(middle, drawn, "CN", "CN_mean", "OCN", "OCN_mean")
    middle.set_ylabel("coordination")
    middle.legend(loc="best", fontsize=8)

    bottom = figure.add_subplot(grid[2, 0], sharex=top)
    for one in series:
        bottom.plot(
            one.clock,
            [r["ood_score"] for r in one.rows],
            ".-",
            color=GREY if len(series) == 1 else one.colour,
            ms=4,
            lw=1,
        )
    bottom.axhline(OOD_LIMIT, color=RED, lw=0.8, ls="--")
    _levels(bottom, drawn, "ood_score")
    bottom.set_ylim(bottom=0)
    bottom.set_ylabel("OOD score")
    bottom.set_xlabel(f"time since the first frame ({unit})")

    _spectra(figure.add_subplot(grid[:2, 1]), series, unit, drawn)
    right = figure.add_subplot(grid[2, 1])
    _interval(right, series, "MOOD", named_series=False)
    _levels(right, drawn, "MOOD", "MOOD_mean")
    right.set_ylabel("O–O distance (Å)")
    right.set_xlabel(f"time ({unit})")
    figure.savefig(file, dpi=110, format="png")


def _series(drawn: Drawn) -> tuple[list[_Series], str]:
    """Return the series of a session and the unit of their clock."""
    # The frames of a replayed folder contain the recorded time.
    clock = "recorded_time" if all("recorded_time" in f.row for f in drawn.frames) else "time"
    times = [f.row[clock] for f in drawn.frames]
    scale, unit = _unit(max(times) - min(times))
    by_series = drawn.by_series()
    colours = (BLUE,) if len(by_series) == 1 else COLOURS
    series = [
        _Series(
            name=escaped(textwrap.shorten(named(*rows) or f"run {rows[0]['run_uid'][:8]}", _NAME_CHARACTERS)),
            colour=colours[number % len(colours)],
            clock=(np.array([r[clock] for r in rows]) - min(times)) / scale,
            rows=rows,
            spectra=[f.spectrum for f in frames],
        )
        for number, frames in enumerate(by_series)
        for rows in ([f.row for f in frames],)
    ]
    return series, unit


def _unit(seconds: float) -> tuple[float, str]:
    """Return the unit in which a duration is readable, s and its name."""
    if seconds > _HOURS_FROM_S:
        return 3600.0, "h"
    return (60.0, "min") if seconds > _MINUTES_FROM_S else (1.0, "s")


def escaped(text: str) -> str:
    """Return a text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _interval(
    axes: Axes, series: Sequence[_Series], name: str, colour: str | None = None, *, named_series: bool = True
) -> None:
    """Draw a descriptor with its intervals; if there is one series, in ``colour``, else dashed.

    Within the interval, a darker band holds 90 % of what repeats of the same sample would show. Values of frames that
    the model does not know are open circles without interval.
    """
    several, unknown_said = len(series) > 1, False
    for number, one in enumerate(series):
        if not _has(one, name):
            continue
        mean, lo, hi, sd = (
            np.array([r.get(f"{name}_{k}", np.nan) for r in one.rows]) for k in ("mean", "lo", "hi", "sd_frame")
        )
        unfamiliar = np.array([r["ood_score"] > OOD_LIMIT for r in one.rows])
        if unfamiliar.any() and len(one.rows) > 1:
            label = "unlike the training spectra" if named_series and not unknown_said else None
            axes.plot(one.clock[unfamiliar], mean[unfamiliar], "o", color=RED, mfc="none", ms=4, lw=0, label=label)
            unknown_said = True
            mean, lo, hi = (np.where(unfamiliar, np.nan, values) for values in (mean, lo, hi))
        inner = np.maximum(mean - Z90 * sd, lo), np.minimum(mean + Z90 * sd, hi)
        drawn = one.colour if several or colour is None else colour
        label = f"{name}, {one.name}" if several and named_series else f"{name}, 90 % (dark: repeats)"
        hidden = several and number >= (_LEGEND_SERIES if named_series else 1)
        if len(one.rows) == 1:  # a band has no width
            axes.vlines(one.clock, lo, hi, color=drawn, alpha=0.4, lw=3)
            axes.vlines(one.clock, *inner, color=drawn, alpha=0.6, lw=6)
        axes.fill_between(one.clock, lo, hi, color=drawn, alpha=0.15, lw=0)
        axes.fill_between(one.clock, *inner, color=drawn, alpha=0.3, lw=0)
        axes.plot(
            one.clock,
            mean,
            ".--" if several and colour is not None else ".-",
            color=drawn,
            ms=4,
            lw=0.8,
            label=None if hidden else label,
        )
    if several and named_series and len(series) > _LEGEND_SERIES:
        axes.plot([], [], " ", label=f"and {len(series) - _LEGEND_SERIES} more")


def _has(one: _Series, name: str) -> bool:
    """Whether some frame has a descriptor; one that is anchored begins with its first anchor."""
    return any(f"{name}_mean" in row for row in one.rows)


def _oxidation_state(axes: Axes, series: Sequence[_Series]) -> None:
    """Draw the anchored oxidation state where there is one, with the bare estimate as a thin line, else the bare."""
    bare = [one for one in series if not _has(one, "OS_anchored")]
    anchored = [one for one in series if _has(one, "OS_anchored")]
    _interval(axes, bare, "OS")
    _interval(axes, anchored, "OS_anchored")
    for number, one in enumerate(anchored):
        mean = [r.get("OS_mean", np.nan) for r in one.rows]
        label = "OS, not anchored" if number == 0 else None
        axes.plot(one.clock, mean, color=GREY if len(series) == 1 else one.colour, lw=0.8, ls="-.", label=label)


def _truth(axes: Axes, series: Sequence[_Series], truth: Truth | None) -> None:
    label: str | None = "4 − x (truth)"
    if truth is None:
        return
    for one in series:
        timed = zip(one.clock, truth.x_of(one.rows), strict=True)
        if known := [(at, 4 - x) for at, x in timed if x is not None]:
            axes.plot(*zip(*known, strict=True), color=GREEN, lw=1.5, label=label)
            label = None


def _levels(axes: Axes, drawn: Drawn, *quantities: str) -> None:
    """Draw the levels of the rules on a panel's quantities, with their values."""
    for level in dict.fromkeys(level for quantity, level in drawn.levels if quantity in quantities):
        axes.axhline(level, color=AMBER, lw=0.8, ls="--")
        at = (0.995, level)
        axes.annotate(
            f"{level:g}", at, xycoords=axes.get_yaxis_transform(), color=AMBER, fontsize=7, ha="right", va="bottom"
        )


def _driving_reading(axes: Axes, series: Sequence[_Series], drawn: Drawn) -> None:
    """Draw what drives the sample beside the oxidation state: the cell voltage or, without one, the temperature."""
    fields = (*VOLTAGE_FIELDS, *TEMPERATURE_FIELDS)
    name = next((field for field in fields if any(field in one.rows[0] for one in series)), None)
    if name is None:
        return
    other = axes.twinx()
    for one in series:
        other.plot(one.clock, [r.get(name, np.nan) for r in one.rows], color=GREY, lw=1, ls=":")
    _levels(other, drawn, f"{READINGS}{name}")
    unit = drawn.units.get(name) or ("V" if name in VOLTAGE_FIELDS else "")
    other.set_ylabel(escaped(f"{name} ({unit}, dotted)" if unit else f"{name} (dotted)"), color=GREY)


def _decisions(axes: Axes, series: Sequence[_Series], drawn: Drawn) -> None:
    times = np.concatenate([[r["time"] for r in one.rows] for one in series])
    clock = np.concatenate([one.clock for one in series])
    order = np.argsort(times)
    together: dict[float, list[dict[str, Any]]] = {}
    """Decisions at the same frame, whose labels would cover each other."""
    for decision in drawn.decisions:
        at = float(np.interp(decision["time"], times[order], clock[order]))
        together.setdefault(at, []).append(decision)
    labels = {at: _label(decisions, named_sample=len(series) > 1) for at, decisions in together.items()}
    times_said = Counter(labels.values())
    for at, label in labels.items():
        axes.axvline(at, color=RED, lw=1.2 if len(labels) <= _FEW_DECISIONS else 0.5)
        if not (count := times_said.pop(label, 0)):
            continue  # said at the first one
        said = label if count == 1 else f"{label}, {count} times"
        axes.annotate(
            escaped(said),
            (at, _free_height(axes, at, said)),
            xycoords=("data", "axes fraction"),
            rotation=90,
            color=RED,
            fontsize=8,
            ha="right",
            va="bottom",
        )


def _free_height(axes: Axes, at: float, label: str) -> float:
    """Return the height, as a part of the panel's, at which a label left of a time covers the fewest points."""
    lines = [np.column_stack([line.get_xdata(), line.get_ydata()]) for line in axes.lines]
    points = np.concatenate([line for line in lines if len(line) > 2] or [np.empty((0, 2))]).astype(float)
    x, y = axes.transLimits.transform(points).T
    right = axes.transLimits.transform((at, 0.0))[0]
    beside = y[(x > right - _LABEL_WIDTH) & (x < right + _LABEL_WIDTH / 4)]
    length = _CHARACTER * max(map(len, label.split("\n")))
    heights = np.arange(0.02, max(0.03, 0.98 - length), 0.02)
    covered = [int(((beside > low - 0.02) & (beside < low + length + 0.02)).sum()) for low in heights]
    return float(heights[int(np.argmin(covered))])


def _label(decisions: Sequence[Mapping[str, Any]], *, named_sample: bool) -> str:
    """Return in words what was decided at one frame."""
    sample = f" {decisions[0]['sample']}" if named_sample else ""
    statuses = dict.fromkeys(decision["status"] for decision in decisions)
    rules = ", ".join(dict.fromkeys(decision["rule"] for decision in decisions))
    said = f"{', '.join(map(_action, decisions))}{sample} ({', '.join(statuses)})"
    return f"{textwrap.shorten(rules, _RULE_CHARACTERS, placeholder='…')}:\n{said}"


def _action(decision: Mapping[str, Any]) -> str:
    """Return the action of a decision; for ``set``, with what is set."""
    if decision["action"] != "set":
        return decision["action"]
    args = json.loads(decision["args"])
    return f"set {args.get('signal')} to {args.get('value')}"


def _spectra(axes: Axes, series: Sequence[_Series], unit: str, drawn: Drawn) -> None:
    """Draw the aligned spectra, coloured by time or, of several series, as the series."""
    if (grid := drawn.grid) is None:
        return
    last = max(float(one.clock[-1]) for one in series)
    scale = ScalarMappable(Normalize(0, max(last, 1e-9)), cmap="viridis")
    for one in series:
        for at, spectrum in zip(one.clock, one.spectra, strict=True):
            if spectrum is not None and len(spectrum) == len(grid):
                axes.plot(grid, spectrum, color=scale.to_rgba(at) if len(series) == 1 else one.colour, lw=0.6)
    axes.set_xlabel("energy on FEFF's scale − tabulated edge (eV)")
    axes.set_ylabel("aligned μ")
    axes.set_title("aligned spectra", loc="left")
    if len(series) == 1 and last > 0:
        axes.figure.colorbar(scale, ax=axes, label=f"time ({unit})")


def draw_alignment(path: Path, title: str, answer: Answer) -> None:
    """Write the picture of :func:`draw_alignment_on` to a file."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    draw_alignment_on(figure, title, answer)
    figure.savefig(path, dpi=110)


def draw_alignment_on(figure: Figure | SubFigure, title: str, answer: Answer) -> None:
    """Draw measured μ with pre- and post-edge lines, E0 and repaired points, and beside it the aligned spectrum.

    For a frame that is set aside, the reason replaces the aligned spectrum.

    Parameters
    ----------
    figure : Figure or SubFigure
    title : str
    answer : Answer
        With an alignment and a model.
    """
    assert answer.aligned is not None
    assert answer.model is not None
    frame, aligned, row, edge, grid = answer.frame, answer.aligned, answer.row, answer.model.edge, answer.model.grid
    energy, mu = frame.energy, frame.mu
    raw, ready = figure.subplots(1, 2)
    _measured(raw, energy, mu, aligned, row, edge)
    raw.set_title(escaped(textwrap.fill(title, _TITLE_CHARACTERS)), loc="left", fontsize=9)
    shift, flags = answer.quantities["energy_shift_ev"], aligned.flags[row]
    if (refusal := answer.refusal) is not None:
        ready.set_axis_off()
        text = f"set aside: {refusal.reason}\n\n{textwrap.fill(refusal.detail, _TITLE_CHARACTERS)}"
        ready.text(0.5, 0.5, text, ha="center", va="center", color=RED, fontsize=10)
    else:
        ready.axhline(0, color=GREY, lw=0.5)
        ready.axhline(1, color=GREY, lw=0.5)
        ready.plot(grid.energy, aligned.mu[row], color=BLUE, lw=1.2, label="on the grid")
        if Flag.SELF_ABSORPTION_CORRECTED in flags and aligned.lines is not None:
            relative_ev = edge.to_feff_scale(energy - edge.edge_ev + shift - edge.feff_minus_experiment_ev)
            on_grid = (relative_ev >= grid.energy[0]) & (relative_ev <= grid.energy[-1])
            uncorrected = aligned.lines.flat[row][on_grid]
            ready.plot(relative_ev[on_grid], uncorrected, color=GREY, lw=0.9, ls="--", label="before the correction")
            _legend(ready)
        ready.set_xlabel("energy on FEFF's scale − tabulated edge (eV)")
        ready.set_ylabel("aligned μ (edge steps)")
        notes = textwrap.fill(", ".join((f"energies {shift:+.2f} eV", *flags)), _TITLE_CHARACTERS)
        ready.set_title(notes, loc="left", fontsize=9)


def draw_standards(path: Path, fits: "Sequence[StandardFit]") -> None:
    """Draw each standard on FEFF's energies, its broadened and damped FEFF counterpart, and their difference."""
    figure = Figure(figsize=(5.5 * len(fits), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, fit in zip(figure.subplots(1, len(fits), squeeze=False)[0], fits, strict=True):
        axes.plot(fit.energy, fit.measured, color=BLUE, lw=1.2, label="measured")
        axes.plot(fit.energy, fit.theory, color=RED, lw=1, ls="--", label="FEFF, broadened and damped")
        axes.plot(fit.energy, fit.measured - fit.theory, color=GREY, lw=0.8, label="difference")
        axes.axhline(0, color=GREY, lw=0.4)
        axes.set_title(
            f"{fit.standard.name}\noffset {fit.offset_ev:.2f} eV, scale {fit.scale:.3f}, "
            f"amplitude {fit.amplitude:.2f}, broadening {fit.broadening_ev:.1f} eV",
            loc="left",
            fontsize=8,
        )
        axes.set_xlabel("energy on FEFF's scale − tabulated edge (eV)")
        axes.legend(loc="center right", fontsize=8)
    figure.savefig(path, dpi=110)


def _measured(axes: Axes, energy: Array, mu: Array, aligned: Aligned, row: int, edge: Edge) -> None:
    """Draw μ, E0, glitches, and the normalisation lines over their fit windows."""
    lines = aligned.lines
    bad = np.zeros(len(mu), bool) if aligned.repaired is None else aligned.repaired[row]
    axes.plot(energy, mu, color=GREY if bad.any() else BLUE, lw=1, label="μ as measured")
    if lines is not None and bad.any():
        axes.plot(energy, lines.mu[row], color=BLUE, lw=1, label="repaired")
        axes.plot(energy[bad], mu[bad], "x", color=RED, ms=8, mew=1.5, zorder=5, label=f"glitches ({int(bad.sum())})")
    quantities = aligned.quantities
    e0 = quantities["e0_ev"][row] - quantities["energy_shift_ev"][row] + edge.feff_minus_experiment_ev
    if lines is not None and lines.mode != "none":
        _lines(axes, energy, lines, row, e0)
    if np.isfinite(e0):
        axes.axvline(e0, color=RED, lw=0.8, ls=":", zorder=0, label=f"E0 {e0:.1f} eV")
    axes.set_xlabel("energy as measured (eV)")
    axes.set_ylabel("μ, not normalised" if lines is not None and lines.mode == "none" else "μ")
    axes.margins(x=0.02)
    _legend(axes)


def _lines(axes: Axes, energy: Array, lines: Normalised, row: int, e0: float) -> None:
    method = "MBACK" if lines.mode == "mback" else f"order {lines.post_order[row]}"
    names = ("pre-edge", "mean over the area" if lines.mode == "area" else f"post-edge ({method})")
    parts = [(names[0], lines.pre_edge[row], lines.pre, np.ones(len(energy), bool), AMBER)]
    above = energy >= (e0 if np.isfinite(e0) else energy[0])
    parts.append((names[1], lines.post_edge[row], lines.post, above, GREEN))
    for name, curve, window, where, colour in parts:
        axes.plot(energy[where], curve[where], color=colour, lw=1, ls="--", label=name)
        first, last = (int(np.broadcast_to(i, len(lines.mu))[row]) for i in window)
        if last > first and not (lines.mode == "area" and colour == GREEN):
            axes.axvspan(energy[first], energy[last - 1], color=colour, alpha=0.08, lw=0, zorder=0)


def _legend(axes: Axes) -> None:
    """Add a legend below the axes, where it covers no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=8, frameon=False)
