"""The panel of a series over time: values with the scatter of repeats, judgements, bars and decisions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ....agent.decide import Band, Extremum, Rule, Threshold, Unfamiliar, triggers_in
from ....agent.types import Z90
from ..truth import Truth
from .columns import Column, Judged
from .style import AMBER, BLUE, DARK, GREEN, GREY, RED, short

_MARGIN = 0.07
"""Free share of a panel above and below the values."""
_LEAST_SCATTERS = 8.0
"""Smallest height of a panel, in standard deviations of repeats, so that noise does not look like a trend."""
_BAR_REACH = 1.3
"""Distance of a bar from the values, relative to their range, up to which the panel extends to show it."""
_INTERVAL_REACH = 1.35
"""Length of the common interval, relative to the range of the values, up to which the panel shows it whole."""
_NAMED_ACTIONS = 2
"""Largest number of actions that the label of a level names."""
_FEW_DECISIONS = 12
"""Number of decisions up to which their lines have normal width."""
_TAG_WIDTH = 0.03
"""Width of a decision's number, relative to that of the panel."""


@dataclass(frozen=True)
class Range:
    """The range of values that a panel shows."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Return whether a value is in view."""
        return self.low <= value <= self.high


def draw_trend(
    axes: Axes,
    side: Axes | None,
    column: Column,
    name: str,
    unit: str,
    rules: Sequence[Rule],
    truth: Truth | None = None,
    *,
    room: int = 60,
) -> None:
    """Draw a descriptor over time: frames, the band that holds 90 % of repeats, and the bars of its rules.

    Parameters
    ----------
    side : axes for a single bar of the 90 % interval of all causes, most of which is common to all frames
    name : name of the descriptor
    room : number of characters that fit in a text of the panel
    """
    mean, sd = column.values(f"{name}_mean"), np.nan_to_num(column.values(f"{name}_sd_frame"))
    familiar, true = column.familiar, _truth(column, truth)
    known = np.where(familiar, mean, np.nan)
    shown = known if np.isfinite(known).any() else mean
    judged = [j for j in column.judged if _judges(rules, j, name) and not j.compared.what]
    bars = list(bars_of(rules, name))
    seen = [shown - Z90 * sd, shown + Z90 * sd, true, [j.compared.value for j in judged]]
    view = view_of(np.concatenate(seen), sd, [level for level, _ in bars])
    if side is not None:
        view = _draw_interval(side, column, name, known, view, unit)
    axes.fill_between(
        column.clock, known - Z90 * sd, known + Z90 * sd, color=BLUE, alpha=0.22, lw=0, label="90 % of repeats"
    )
    axes.plot(column.clock, known, "o-", color=BLUE, ms=3.2, lw=0.7, label="frames")
    if len(column.rows) == 1:  # a band of one frame has no width
        axes.vlines(column.clock, known - Z90 * sd, known + Z90 * sd, color=BLUE, alpha=0.4, lw=5)
    _draw_unfamiliar(axes, column, mean, ~familiar, view)
    if name.endswith("_anchored"):
        bare = column.values(f"{name.removesuffix('_anchored')}_mean")
        axes.plot(column.clock, np.where(familiar, bare, np.nan), ls="-.", lw=1, color=GREY, label="not anchored")
    if np.isfinite(true).any():
        axes.plot(column.clock, true, color=GREEN, lw=1.8, ls=(0, (5, 1.5)), label="4 − x (truth)")
    draw_judged(axes, judged, rules)
    axes.set_ylim(view.low, view.high)
    draw_bars(axes, bars, known, view, unit, room)


def view_of(values: np.ndarray, sd: np.ndarray, levels: Sequence[float] = ()) -> Range:
    """Return the range of a panel that shows values and the levels near them."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Range(0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    least = max(_LEAST_SCATTERS * float(np.median(sd)), 0.002 * abs(high), 1e-6)
    if (lack := least - (high - low)) > 0:
        low, high = low - lack / 2, high + lack / 2
    span = high - low
    near = [level for level in levels if low - _BAR_REACH * span <= level <= high + _BAR_REACH * span]
    low, high = min([low, *near]), max([high, *near])
    room = _MARGIN * (high - low)
    return Range(low - room, high + room)


def bars_of(rules: Sequence[Rule], name: str) -> Iterator[tuple[float, str]]:
    """Yield each level at which rules judge a quantity, with the actions in words."""
    wanted, found = {name, f"{name}_mean"}, dict[tuple[float, str], dict[str, None]]()
    if name.endswith("_anchored"):
        bare = name.removesuffix("_anchored")
        wanted |= {bare, f"{bare}_mean"}
    for rule in rules:
        for part in triggers_in(rule.trigger):
            if isinstance(part, Threshold | Band | Unfamiliar) and part.quantity in wanted:
                footing = "" if part.quantity in (name, f"{name}_mean") else " (not anchored)"
                side = next((s for s in ("above", "below") if getattr(part, s, None) is not None), "")
                for number, bar in enumerate(part.bars):
                    found.setdefault((bar, f"{side or ('from', 'to')[number]} {bar:g}{footing}"), {})[rule.action] = (
                        None
                    )
    for level in dict.fromkeys(bar for bar, _ in found):
        said = [f"{_some(list(actions))} {where}" for (bar, where), actions in found.items() if bar == level]
        yield level, ", ".join(said)


def _some(actions: Sequence[str]) -> str:
    return ", ".join(actions) if len(actions) <= _NAMED_ACTIONS else f"{len(actions)} rules"


def draw_judged(axes: Axes, judged: Sequence[Judged], rules: Sequence[Rule]) -> None:
    """Draw the values that rules compared with their bars, if they are values of the quantity."""
    named = False
    for rule, part in dict.fromkeys((j.rule, j.part) for j in judged):
        mine = [j for j in judged if (j.rule, j.part) == (rule, part)]
        trigger = part_of(rules, rule, part)
        frames = getattr(trigger, "window_frames", 1)
        at = [j.at for j in mine]
        if isinstance(trigger, Extremum):
            axes.step(at, [j.compared.bars[0] for j in mine], where="post", color=AMBER, lw=1.4, ls="--")
        if frames == 1 and not isinstance(trigger, Extremum):
            continue  # the rule judges the frames themselves
        how = f"judged: line through {frames} frames" if frames > 1 else "judged"
        axes.plot(at, [j.compared.value for j in mine], color=DARK, lw=2, label=None if named else how)
        named = True


def part_of(rules: Sequence[Rule], name: str, part: int) -> Any:
    """Return a condition of a rule."""
    rule = next(rule for rule in rules if rule.name == name)
    return list(triggers_in(rule.trigger))[part]


def _judges(rules: Sequence[Rule], judged: Judged, name: str) -> bool:
    quantity = getattr(part_of(rules, judged.rule, judged.part), "quantity", "")
    return quantity in (name, f"{name}_mean", name.removesuffix("_anchored"))


def _truth(column: Column, truth: Truth | None) -> np.ndarray:
    if truth is None or column.first.removesuffix("_anchored") != "OS":
        return np.full(len(column.rows), np.nan)
    return np.array([np.nan if x is None else 4 - x for x in truth.x_of(column.rows)])


def _draw_interval(side: Axes, column: Column, name: str, known: np.ndarray, view: Range, unit: str) -> Range:
    """Draw the interval of the last frame as one bar, on the scale of the panel; return the range of the panel.

    An arrow with the value replaces an end that is out of view.
    """
    side.set_axis_off()
    frames = np.flatnonzero(np.isfinite(known))
    if not len(frames):
        return view
    last = frames[-1]
    lo, hi = (float(column.values(f"{name}_{end}")[last]) for end in ("lo", "hi"))
    if not np.isfinite(lo + hi):
        return view
    if hi - lo <= _INTERVAL_REACH * (view.high - view.low):
        room = 0.04 * (view.high - view.low)
        view = Range(min(view.low, lo - room), max(view.high, hi + room))
    side.set_xlim(0, 1)
    side.set_ylim(view.low, view.high)
    shown = max(lo, view.low), min(hi, view.high)
    side.vlines(0.25, *shown, color=BLUE, lw=5, alpha=0.45)
    middle = (shown[0] + shown[1]) / 2
    digits = max(2, 1 - int(np.floor(np.log10(max(hi - lo, 1e-6)))))
    text = f"last frame, all errors (90 %):\n{lo:.{digits}f} … {hi:.{digits}f}{f' {unit}' if unit else ''}"
    note = side.text(
        0.72, middle, text, rotation=90, va="center", ha="center", fontsize=7.5, color=DARK, linespacing=1.2
    )
    note.set_in_layout(False)
    for value, edge, sign in ((lo, view.low, "v"), (hi, view.high, "^")):
        if not view.holds(value):
            side.plot([0.25], [edge], sign, color=BLUE, ms=8, clip_on=False)
        else:
            side.hlines(value, 0.05, 0.45, color=BLUE, lw=1.5)
    if view.holds(at := float(known[last])):
        side.plot([0.25], [at], "o", color=BLUE, ms=4)
    return view


def _draw_unfamiliar(axes: Axes, column: Column, mean: np.ndarray, unfamiliar: np.ndarray, view: Range) -> None:
    """Mark the unfamiliar frames; those out of view appear at the edge of the panel."""
    if not unfamiliar.any():
        return
    at, values = column.clock[unfamiliar], mean[unfamiliar]
    room = 0.03 * (view.high - view.low)
    label: str | None = "unlike the training spectra"
    below, above = values < view.low, values > view.high
    for inside, marker in ((below, "v"), (above, "^"), (~(below | above), "o")):
        if inside.any():
            places = np.clip(values[inside], view.low + room, view.high - room)
            axes.plot(at[inside], places, marker, color=RED, mfc="white", ms=5, lw=0, label=label)
            label = None


def draw_bars(
    axes: Axes, bars: Sequence[tuple[float, str]], known: np.ndarray, view: Range, unit: str, room: int
) -> None:
    """Draw the levels with their meaning; those out of view appear as texts at the edge.

    Parameters
    ----------
    bars : (level, text) pairs
    known : values that the texts must not cover
    room : number of characters that fit in a text of the panel
    """
    finite = known[np.isfinite(known)]
    quarter = max(1, len(finite) // 4)
    for level, words in bars:
        if not view.holds(level):
            continue
        axes.axhline(level, color=AMBER, lw=1.3, ls="--", zorder=1.5)
        # At the end of the panel where the values are farther away.
        ends = [np.abs(part - level).min(initial=np.inf) for part in (finite[:quarter], finite[-quarter:])]
        x, align = (0.01, "left") if ends[0] >= ends[1] else (0.99, "right")
        above = level < view.high - 0.12 * (view.high - view.low)
        axes.annotate(
            short(f"{words} {unit}".strip(), room), (x, level), xytext=(0, 2 if above else -2),
            textcoords="offset points", xycoords=axes.get_yaxis_transform(), color=AMBER, fontsize=8.5, ha=align,
            va="bottom" if above else "top",
        ).set_in_layout(False)  # fmt: skip
    for arrow, at, align, found in (
        ("▲", 0.985, "top", [words for level, words in bars if level > view.high]),
        ("▼", 0.015, "bottom", [words for level, words in bars if level < view.low]),
    ):
        if found:
            more = f"; {len(found) - 2} more" if len(found) > 2 else ""
            said = "; ".join([found[0], *(_after(words, found[0]) for words in found[1:2])]) + more
            text = f"{arrow} {short(f'{said} {unit}'.strip(), room)}"
            axes.text(0.01, at, text, transform=axes.transAxes, color=AMBER, fontsize=8.5, va=align).set_in_layout(
                False
            )


def _after(words: str, before: str) -> str:
    """Return the part of a level's label that differs from the one before.

    >>> _after("4 rules to 3.6", "4 rules from 3.4"), _after("stop below 3", "notify from 4")
    ('to 3.6', 'stop below 3')
    """
    actions = words.rpartition(" to ")[0]
    return words.removeprefix(f"{actions} ") if actions and before.startswith(f"{actions} from ") else words


def draw_decisions(panels: Sequence[Axes], groups: Mapping[int, Sequence[float]]) -> None:
    """Draw a line through all panels at each decision, with the number of its kind above the first panel."""
    low, high = panels[0].get_xlim()
    several = sum(map(len, groups.values())) > _FEW_DECISIONS
    tags: list[tuple[float, list[int]]] = []
    for at, number in sorted((at, number) for number, times in groups.items() for at in times):
        for axes in panels:
            axes.axvline(at, color=RED, lw=0.6 if several else 1.3, zorder=1)
        if tags and at - tags[-1][0] < _TAG_WIDTH * (high - low):
            tags[-1][1].append(number)
        else:
            tags.append((at, [number]))
    for at, numbers in tags:
        panels[0].annotate(
            _numbers(numbers), (at, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 1),
            textcoords="offset points", ha="center", va="bottom", fontsize=8, color="white", fontweight="bold",
            bbox={"boxstyle": "round,pad=0.18", "fc": RED, "ec": "none"}, annotation_clip=False,
        ).set_in_layout(False)  # fmt: skip


def _numbers(numbers: Sequence[int]) -> str:
    """Return numbers in words.

    >>> _numbers([3, 1, 1, 2]), _numbers([4, 7])
    ('1–3', '4,7')
    """
    found = sorted(set(numbers))
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"{found[0]}–{found[-1]}"
    return ",".join(map(str, found[:3])) + ("…" if len(found) > 3 else "")


def draw_set_aside(axes: Axes, times: Sequence[float]) -> None:
    """Mark the times of frames set aside along the time axis."""
    axes.plot(
        times, np.zeros(len(times)), "x", color=AMBER, ms=6, mew=1.6, lw=0, clip_on=False, zorder=6,
        transform=axes.get_xaxis_transform(), label="set aside",
    )  # fmt: skip
