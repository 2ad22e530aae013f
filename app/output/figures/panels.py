"""The smaller panels of a picture: the driving reading, other descriptors, computed values, spectra."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ....agent.decide import READINGS, Rule, triggers_in
from ....agent.publish import ALIGNMENT_UNITS
from ....wording import counted
from ..recorder import OOD_LIMIT, TEMPERATURE_FIELDS, VOLTAGE_FIELDS, Drawn
from .columns import Column, Judged
from .style import AMBER, BLUE, DARK, GREY, PALE, RED, short
from .trend import part_of

_THIN_SPECTRA = 40
"""Largest number of spectra between the first and the last one."""
_SIGNS = {"degC": "°C", "deg_C": "°C", "degree_Celsius": "°C", "degrees": "°"}
"""Symbols for units of readings."""
_SMOOTHED = 5
"""Number of frames in the running median whose range measures the change of a descriptor."""


def driver_of(column: Column) -> str | None:
    """Return the reading that drives the sample: the cell voltage or, without one, the temperature."""
    fields = (*VOLTAGE_FIELDS, *TEMPERATURE_FIELDS)
    return next((field for field in fields if any(field in row for row in column.rows)), None)


def draw_driver(axes: Axes, column: Column, name: str, drawn: Drawn) -> None:
    """Draw the reading that drives the sample, with the levels that rules judge."""
    unit = drawn.units.get(name) or ("V" if name in VOLTAGE_FIELDS else "")
    axes.plot(column.clock, column.values(name), ".-", color=DARK, lw=1, ms=3)
    draw_levels(axes, drawn.rules, f"{READINGS}{name}")
    axes.set_ylabel(f"{short(name, 18)}\n({_SIGNS.get(unit, unit)})" if unit else short(name, 18), fontsize=9)


def draw_levels(axes: Axes, rules: Sequence[Rule], quantity: str, drawn: Sequence[float] = ()) -> None:
    """Draw the levels at which rules judge a quantity, except those already drawn."""
    parts = [part for rule in rules for part in triggers_in(rule.trigger)]
    levels = [bar for part in parts if getattr(part, "quantity", "") == quantity for bar in getattr(part, "bars", ())]
    for level in dict.fromkeys(level for level in levels if level not in drawn):
        axes.axhline(level, color=AMBER, lw=1.3, ls="--")
        axes.annotate(
            f"{level:g}", (0.005, level), xycoords=axes.get_yaxis_transform(), color=AMBER, fontsize=8, va="bottom"
        ).set_in_layout(False)


def change_of(column: Column, name: str) -> float:
    """Return the change of a descriptor over a series, in standard deviations of repeats."""
    known = column.values(f"{name}_mean")[column.familiar]
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return 0.0
    size = min(_SMOOTHED, len(known))
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(known, size), axis=1)
    smooth = smooth if len(smooth) > 1 else known
    sd = float(np.nanmedian(np.nan_to_num(column.values(f"{name}_sd_frame"))))
    return float(np.ptp(smooth)) / max(sd, 1e-3 * float(np.abs(known).mean()), 1e-9)


def chosen(column: Column, drawn: Drawn, count: int) -> tuple[list[str], list[str]]:
    """Return the descriptors with a panel of their own besides the first one, and the others.

    Those that rules judge come first, then the mean bond length, then those that change most.
    """
    first = {column.first, column.first.removesuffix("_anchored")}
    names = [name for name in drawn.descriptors if name not in first and column.has(name)]
    parts = [part for rule in drawn.rules for part in triggers_in(rule.trigger)]
    judged = {getattr(part, "quantity", "").removesuffix("_mean") for part in parts}
    names.sort(key=lambda name: (name not in judged, name != "mean_bond", -change_of(column, name)))
    return names[:count], names[count:]


def draw_score(axes: Axes, column: Column, rules: Sequence[Rule]) -> None:
    """Draw the out-of-distribution score with its limit."""
    score = column.values("ood_score")
    axes.plot(column.clock, score, ".-", color=GREY, lw=1, ms=3)
    axes.plot(column.clock[~column.familiar], score[~column.familiar], "o", color=RED, mfc="white", ms=5, lw=0)
    axes.axhline(OOD_LIMIT, color=RED, lw=0.9, ls=":")
    axes.annotate(
        "above: unlike the training spectra", (0.005, OOD_LIMIT), xycoords=axes.get_yaxis_transform(), color=RED,
        fontsize=8, va="top", xytext=(0, -2), textcoords="offset points", zorder=4,
        bbox={"fc": "white", "ec": "none", "pad": 0.8},  # covers the lines of decisions
    ).set_in_layout(False)  # fmt: skip
    draw_levels(axes, [rule for rule in rules if rule.trigger.kind != "unfamiliar"], "ood_score", [OOD_LIMIT])
    axes.set_ylim(0, max(1.15, 1.1 * float(np.nanmax(score))))
    axes.set_ylabel("score", fontsize=9)


def computed(column: Column, rules: Sequence[Rule]) -> list[list[Judged]]:
    """Return what no other panel shows of what rules judged, by condition; equal conditions of rules are one.

    Rules compute a value from a quantity, for example a rate, or judge the alignment, for example its noise.
    """
    found: dict[str, list[Judged]] = {}
    for judged in column.judged:
        part = part_of(rules, judged.rule, judged.part)
        if judged.compared.what or getattr(part, "quantity", "") in ALIGNMENT_UNITS:
            found.setdefault(repr(part), []).append(judged)
    return [judged for judged in found.values() if len(judged) > 1]


def draw_computed(axes: Axes, judged: Sequence[Judged], rules: Sequence[Rule], characters: int) -> None:
    """Draw a value that rules with equal conditions computed from a quantity, with its bars."""
    quantity = getattr(part_of(rules, judged[0].rule, judged[0].part), "quantity", "")
    values, bars = np.array([j.compared.value for j in judged]), judged[-1].compared.bars
    names = list(dict.fromkeys(j.rule for j in judged))
    for name in names:
        mine = [j for j in judged if j.rule == name]
        axes.plot([j.at for j in mine], [j.compared.value for j in mine], ".-", color=DARK, lw=1.3, ms=3)
    for bar in bars:
        axes.axhline(bar, color=AMBER, lw=1.3, ls="--")
    if len(bars) > 1:
        axes.axhspan(min(bars), max(bars), color=AMBER, alpha=0.12, lw=0)
    said = f"bar{'s' if len(bars) > 1 else ''} {' and '.join(f'{bar:g}' for bar in bars).replace('-', '−')}"
    others = f" and {counted(len(names) - 1, 'rule')} like it" if len(names) > 1 else ""
    parts = ", ".join(filter(None, (quantity, judged[-1].compared.what, said)))
    text = short(f"judged by {short(names[0], 30)}{others}: {parts}", characters)
    axes.set_title(text, loc="left", fontsize=8.5, pad=2).set_in_layout(False)
    low, high = min(*values, *bars), max(*values, *bars)
    if low > 0 and high > 50 * low:
        axes.set_yscale("log")
        return
    extent = 4 * max(map(abs, bars)) or high - low or 1.0  # values far beyond the bars need not be distinguished
    low, high = max(low, -extent), min(high, extent)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))


_ENERGY = "energy − tabulated edge (eV), FEFF's scale"


def draw_spectra(axes: Axes, below: Axes | None, column: Column, grid: np.ndarray) -> None:
    """Draw the first and last aligned spectra, those between them thinned, and the difference below."""
    fits = [k for k, one in enumerate(column.spectra) if one is not None and len(one) == len(grid)]
    fits = [k for k in fits if column.familiar[k]] or fits
    spectra = {k: np.asarray(column.spectra[k]) for k in fits}
    if not fits:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "no spectra were published", ha="center", va="center", color=GREY, transform=axes.transAxes
        )
        return
    between = fits[1:-1]
    for k in between[:: max(1, -(-len(between) // _THIN_SPECTRA))]:
        axes.plot(grid, spectra[k], color=PALE, lw=0.6)
    first, last = fits[0], fits[-1]
    numbers = {k: f"frame {column.rows[k]['seq_num']}" for k in (first, last)}
    label = f"first ({numbers[first]})" if last != first else numbers[first]
    axes.plot(grid, spectra[first], color=BLUE, lw=1.8, label=label)
    if last != first:
        axes.plot(grid, spectra[last], color=RED, lw=1.4, ls=(0, (4, 1.2)), label=f"last ({numbers[last]})")
    axes.legend(loc="lower right", fontsize=8.5, frameon=False)
    axes.set_ylabel("aligned μ", fontsize=9)
    if below is None:
        axes.set_xlabel(_ENERGY, fontsize=9)
        return
    axes.tick_params(labelbottom=False)
    difference = spectra[last] - spectra[first]
    below.axhline(0, color=GREY, lw=0.7)
    below.fill_between(grid, difference, color=RED, alpha=0.2, lw=0)
    below.plot(grid, difference, color=RED, lw=1.2)
    below.set_ylabel("last − first", fontsize=9)
    below.set_xlabel(_ENERGY, fontsize=9)


def has_difference(column: Column, grid: np.ndarray | None) -> bool:
    """Return whether a series has two spectra to compare."""
    return grid is not None and sum(one is not None and len(one) == len(grid) for one in column.spectra) > 1
