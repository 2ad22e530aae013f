"""The figure of ``xas-agent rules test``."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...agent.decide import Band, QuantityTrigger, Threshold, Trigger, Unfamiliar, triggers_in
from ...agent.types import Z90, Decision
from ..output.figures import BLUE, GREY, RED, escaped
from .rehearse import Recording, Rehearsed, quantities_in


def draw_rehearsal(path: Path, rehearsed: Sequence[Rehearsed], recording: Recording) -> None:
    """Draw, for each rule, the quantities that it watches, their bars, its decisions and those of its neighbours.

    The band is what repeats scatter by, since the common error of a series would hide its course.

    Parameters
    ----------
    path : Path
        PNG file.
    """
    panels = [(one, q) for one in rehearsed for q in quantities_in(one.rule) or [""]]
    figure = Figure(figsize=(9, 0.8 + 2.4 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    start, (size, unit_of_time) = recording.start, recording.clock
    for axis, (one, quantity) in zip(axes, panels, strict=True):
        points = recording.points(quantity)
        clock = np.array([p.time - start for p in points]) / size
        value = np.array([p.value for p in points])
        half = Z90 * np.array([p.sigma for p in recording.points(quantity, "frame")])
        if points:
            axis.plot(clock, value, ".-", color=BLUE, ms=4, lw=1)
            room = max(np.ptp(value), 1e-9) * 0.25
            limits = value.min() - room, value.max() + room
            axis.fill_between(clock, value - half, value + half, color=BLUE, alpha=0.12, lw=0)
            for bar in _bars(one.rule.trigger, quantity):
                axis.axhline(bar, color=GREY, lw=1, ls="--")
                limits = min(limits[0], bar - room), max(limits[1], bar + room)
            axis.set_ylim(*limits)
        _mark(axis, [d for _, made in one.neighbours for d in made[:1]], start, size, GREY, 0.6, ":")
        _mark(axis, one.decisions, start, size, RED, 1.6, "-")
        unit = recording.units.get(quantity, "")
        axis.set_ylabel(escaped(f"{quantity} ({unit})" if unit else quantity))
        fired = f"{len(one.decisions)} decision{'s' if len(one.decisions) != 1 else ''}"
        axis.set_title(escaped(f"{one.rule.name}: {one.rule.action}, {fired}"), loc="left", fontsize=10)
    begun = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M UTC")
    axes[-1].set_xlabel(f"time since the first frame, {begun} ({unit_of_time})")
    axes[0].plot([], [], color=RED, lw=1.6, label="decision")
    axes[0].plot([], [], color=GREY, lw=0.6, ls=":", label="with one setting changed")
    axes[0].plot([], [], color=GREY, lw=1, ls="--", label="level")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110, format="png")


def _bars(trigger: Trigger, quantity: str) -> list[float]:
    bars: list[float] = []
    for part in triggers_in(trigger):
        if isinstance(part, Unfamiliar) and quantity == part.quantity:
            bars.append(part.above)
        if isinstance(part, QuantityTrigger) and part.quantity == quantity:
            if isinstance(part, Threshold):
                bars += [bar for bar in (part.above, part.below) if bar is not None]
            elif isinstance(part, Band):
                bars += [part.low, part.high]
    return bars


def _mark(
    axis: Axes, decisions: Sequence[Decision], start: float, size: float, colour: str, width: float, style: str
) -> None:
    for decision in decisions:
        axis.axvline((decision.time - start) / size, color=colour, lw=width, ls=style)
