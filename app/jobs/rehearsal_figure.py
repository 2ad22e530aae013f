"""Draws the figure of ``xas-agent rules test``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...agent.decide import (
    Band,
    Compared,
    Extremum,
    NotOf,
    Observed,
    QuantityTrigger,
    Threshold,
    Unfamiliar,
    triggers_in,
)
from ...agent.types import Z90, Settings
from ..output.figures import AMBER, BLUE, GREY, RED, escaped
from ..output.judged import series_of
from .recording import Recording
from .rehearse import Rehearsed

_Draw = Callable[[Axes], None]
_Clock = Callable[[float], float]
"""Converts Unix s to the time since the first frame, in the unit of the figure."""
_VALUE_HEIGHT, _COMPARED_HEIGHT, _ROW_HEIGHT = 2.3, 1.4, 0.19
"""Heights of the panels, and of a setting's row, inches."""
_LABELLED = 3
"""Number of decisions with a label; others have only a line."""
_DARK = "#0b2545"
_BESIDE = 0.82
"""Share of the panel's width beyond which a label stands to the left of its mark."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """A judgement at a time of the figure's clock."""

    series: str
    at: float
    compared: Compared


def draw_rehearsal(path: Path, rehearsed: Sequence[Rehearsed], recording: Recording) -> None:
    """Draw the values that each rule judged, its bars and decisions, and its decisions with one setting changed.

    The band shows the scatter of repeats, since the common error of a series would hide its course.

    Parameters
    ----------
    path : Path
        PNG file.
    """
    (size, unit), start = recording.clock, recording.start
    panels = [panel for one in rehearsed for panel in _panels(one, recording, lambda time: (time - start) / size)]
    heights = [height for height, *_ in panels]
    figure = Figure(figsize=(10, 0.6 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (_, draw, last) in zip(axes, panels, strict=True):
        draw(axis)
        axis.tick_params(labelbottom=last)
        axis.spines[["top", "right"]].set_visible(False)
    begun = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M UTC")
    axes[-1].set_xlabel(f"time ({unit}) since the first frame, {begun}")
    figure.savefig(path, dpi=110, format="png")


def _panels(one: Rehearsed, recording: Recording, clock: _Clock) -> Iterator[tuple[float, _Draw, bool]]:
    """Yield height and drawing function of each panel of a rule, and whether it is the last panel."""
    found: list[tuple[float, _Draw]] = []
    parts = list(triggers_in(one.rule.trigger))
    for number, part in enumerate(parts):
        if not isinstance(part, QuantityTrigger | Unfamiliar):
            continue
        followed = [judgement for judgement in one.judged if judgement.part == number]
        judged = [_Judged(j.series, clock(j.time), j.compared) for j in followed if j.compared is not None]
        negated = number > 0 and isinstance(parts[number - 1], NotOf)
        points = partial(_value, part=part, judged=judged, negated=negated, recording=recording, clock=clock)
        if one.rule.stage is not None:
            points = partial(_with_stage, points, one.rule.stage, [clock(j.time) for j in followed])
        found.append((_VALUE_HEIGHT, partial(points, one=one)))
        if judged and judged[0].compared.what:
            found.append((_COMPARED_HEIGHT, partial(_compared, judged=judged)))
    if not found:
        found.append((_COMPARED_HEIGHT, partial(_notes, recording=recording, clock=clock)))
    found = [
        (height, partial(_with_decisions, draw, one, clock, "" if k else recording.clock[1]))
        for k, (height, draw) in enumerate(found)
    ]
    height, draw = found[0]
    found[0] = height + 0.45, partial(_with_title, draw, one)
    if one.neighbours:
        height = 0.35 + _ROW_HEIGHT * len(one.neighbours)
        found.append((height, partial(_neighbours, one=one, recording=recording, clock=clock)))
    yield from ((height, draw, k == len(found) - 1) for k, (height, draw) in enumerate(found))


def _value(
    axis: Axes,
    part: QuantityTrigger | Unfamiliar,
    judged: Sequence[_Judged],
    negated: bool,
    recording: Recording,
    clock: _Clock,
    one: Rehearsed,
) -> None:
    """Draw a quantity of each series, the judged value, and the bar."""
    quantity, unit = part.quantity, recording.units.get(part.quantity, "")
    by_series: dict[str, list[Observed]] = {}
    for item in recording.judged_by(one.rule):
        by_series.setdefault(series_of(item[0]), []).append(Observed(*item))
    direct = [j for j in judged if not j.compared.what]
    seen = [j.compared.value for j in direct] + [bar for j in direct for bar in j.compared.bars]
    for number, (name, observed) in enumerate(by_series.items()):
        points = [p for o in observed if (p := o.point(quantity, "frame")) is not None]
        time, value = np.array([clock(p.time) for p in points]), np.array([p.value for p in points])
        half = Z90 * np.array([p.sigma for p in points])
        axis.plot(time, value, ".", color=BLUE, ms=4, alpha=0.6, label=None if number else "frames")
        axis.fill_between(time, value - half, value + half, color=BLUE, alpha=0.1, lw=0)
        seen += value.tolist()
        ours = [j for j in direct if j.series == name]
        label = f"judged: {_how(part)}" if ours and ours[0] is direct[0] else None
        axis.plot([j.at for j in ours], [j.compared.value for j in ours], color=_DARK, lw=1.8, label=label)
    if direct:
        _bar(axis, part, direct, f" {unit}" if unit else "", negated)
    labels = min(len(one.decisions), _LABELLED)
    room = max(max(seen) - min(seen), 1e-9) * 0.08
    axis.set_ylim(min(seen) - room, max(seen) + room * (1 + 1.6 * labels))  # room for the labels above the values
    axis.set_ylabel(escaped(f"{quantity} ({unit})" if unit else quantity))
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, frameon=False, fontsize=8.5, borderpad=0.1)


def _bar(axis: Axes, part: QuantityTrigger | Unfamiliar, judged: Sequence[_Judged], unit: str, negated: bool) -> None:
    """Draw the bar of a quantity, or both ends of its band."""
    name = "bar: not " if negated else "bar: "
    if isinstance(part, Threshold | Band | Unfamiliar):
        for number, bar in enumerate(part.bars):
            axis.axhline(bar, color=AMBER, lw=1.4, ls="--", label=None if number else f"{name}{part.bar(unit)}")
    elif isinstance(part, Extremum):
        name = f"{name}{part.drop:g}{unit} from the last {part.of}"
        bars = [j.compared.bars[0] for j in judged]
        axis.step([j.at for j in judged], bars, where="post", color=AMBER, lw=1.4, ls="--", label=name)


def _with_stage(draw: Callable[..., None], stage: str, followed: Sequence[float], axis: Axes, one: Rehearsed) -> None:
    """Shade the time during which the stage of a rule was followed."""
    if followed:
        axis.axvspan(followed[0], followed[-1], color=GREY, alpha=0.12, lw=0, label=f"stage {escaped(stage)}")
    draw(axis, one=one)


def _compared(axis: Axes, judged: Sequence[_Judged]) -> None:
    """Draw a value computed from the quantity, and its bars."""
    what, bars = judged[-1].compared.what, judged[-1].compared.bars
    value = [j.compared.value for j in judged]
    for series in dict.fromkeys(j.series for j in judged):
        ours = [j for j in judged if j.series == series]
        axis.plot([j.at for j in ours], [j.compared.value for j in ours], ".-", color=_DARK, lw=1.2, ms=3)
    for bar in bars:
        axis.axhline(bar, color=AMBER, lw=1.4, ls="--")
    said = f"bar{'s' if len(bars) > 1 else ''} {' and '.join(f'{bar:g}' for bar in bars)}"
    axis.set_title(escaped(f"judged: {what}, {said}"), loc="left", fontsize=9, color=_DARK, pad=2)
    low, high = min(*value, *bars), max(*value, *bars)
    if low > 0 and high > 50 * low:
        axis.set_yscale("log")
        return
    extent = 4 * max(map(abs, bars)) or high - low  # values far beyond the bars need not be distinguished
    low, high = max(low, -extent), min(high, extent)
    axis.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    if len(bars) > 1:
        axis.axhspan(min(bars), max(bars), color=AMBER, alpha=0.12, lw=0)


def _notes(axis: Axes, recording: Recording, clock: _Clock) -> None:
    """Draw when frames were answered and when frames were set aside."""
    answered = [clock(frame.time) for frame, *_ in recording.frames]
    lost = [clock(item.time) for item in recording.notes]
    axis.plot(answered, np.zeros(len(answered)), "|", color=BLUE, ms=10, label="frames")
    axis.plot(lost, np.ones(len(lost)), "|", color=AMBER, ms=10, label="set aside or missing")
    axis.set_ylim(-0.7, 1.7)
    axis.set_yticks([0, 1], ["answered", "set aside"])


def _with_title(draw: _Draw, one: Rehearsed, axis: Axes) -> None:
    draw(axis)
    rule, times = one.rule, len(one.decisions)
    of = f", {' '.join(filter(None, (rule.element, rule.edge)))}" if rule.element or rule.edge else ""
    stage = f", in stage {rule.stage}" if rule.stage else ""
    fired = f"{rule.action} requested {times} times" if times > 1 else f"{rule.action} requested once"
    title = f"{rule.name}{of}{stage}: {fired if times else 'no decision'}"
    axis.set_title(escaped(title), loc="left", fontsize=11, fontweight="bold", pad=20)


def _with_decisions(draw: _Draw, one: Rehearsed, clock: _Clock, unit: str, axis: Axes) -> None:
    """Mark the decisions in a panel; with a unit of time, label the first ones."""
    draw(axis)
    left, right = axis.get_xlim()
    for number, decision in enumerate(one.decisions):
        at = clock(decision.time)
        axis.axvline(at, color=RED, lw=1.6)
        if unit and number < _LABELLED:
            beyond = (at - left) / (right - left) > _BESIDE
            axis.annotate(
                escaped(f"{decision.action} at {at:.2f} {unit}"),
                (at, 0.98 - 0.1 * number),
                xycoords=("data", "axes fraction"),
                xytext=(-4 if beyond else 4, 0),
                textcoords="offset points",
                ha="right" if beyond else "left",
                va="top",
                color=RED,
                fontsize=9,
            )


def _neighbours(axis: Axes, one: Rehearsed, recording: Recording, clock: _Clock) -> None:
    """Draw, in a row for each changed setting, the shift of the first decision."""
    frames = recording.judged_by(one.rule)
    first = clock(one.decisions[0].time) if one.decisions else None
    end = clock(max(frame.time for frame, *_ in frames))
    for row, (_, made) in enumerate(one.neighbours):
        if first is not None:
            axis.plot([first], [row], "|", color=RED, ms=9, mew=1.6)
        if not made:
            axis.text(
                end,
                row,
                "not before the recording ends",
                color=GREY,
                fontsize=8.5,
                ha="right",
                va="center",
                bbox={"fc": "white", "ec": "none", "pad": 1},
            )
            continue
        at = clock(made[0].time)
        axis.plot([at if first is None else first, at], [row, row], ":", color=GREY, lw=1.4)
        axis.plot([at], [row], "o", color=GREY, ms=5)
        unit = recording.clock[1]
        moved = f"{at:.2f} {unit}" if first is None else f"{at - first:+.2f} {unit}".replace("-", "−")
        left = at > _BESIDE * end if first in (None, at) else at < first
        axis.annotate(
            moved, (at, row), xytext=(-7 if left else 7, 0), textcoords="offset points", fontsize=8.5,
            ha="right" if left else "left", va="center", color=GREY,
        )  # fmt: skip
    axis.set_yticks(range(len(one.neighbours)), [escaped(text) for text, _ in one.neighbours], fontsize=8.5)
    axis.set_ylim(len(one.neighbours) - 0.4, -0.6)
    axis.set_title("first decision with one setting changed", loc="left", fontsize=9, color=GREY, pad=2)


def _how(part: Settings) -> str:
    frames = getattr(part, "window_frames", 1)
    dwell = getattr(part, "dwell_frames", 1)
    said = "each frame" if frames == 1 else f"line through {frames} frames"
    return said if dwell == 1 else f"{said}, {dwell} in a row"
