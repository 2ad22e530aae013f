"""The picture of a session's data quality: E0, shifts, edge step and noise of the frames over time."""

import numpy as np
from matplotlib.figure import Figure

from ..recorder import Drawn
from .columns import columns_of
from .style import AMBER, COLOURS, new_figure, plain, short

_PANELS = {
    "e0_ev": "E0 (eV)",
    "energy_shift_ev": "energy shift (eV)",
    "foil_shift_ev": "of the foil (eV)",
    "edge_step": "edge step",
    "noise": "noise (edge steps)",
}


def quality_figure(drawn: Drawn) -> Figure:
    """Return the figure of the alignment quantities over time, a colour per series, with the frames set aside.

    Parameters
    ----------
    drawn : Drawn
        Data with at least one frame.
    """
    columns = columns_of(drawn)
    names = [n for n in _PANELS if any(np.isfinite(column.values(n)).any() for column in columns)]
    figure = new_figure(0.5 + 0.95 * max(1, len(names)))
    axes = figure.subplots(max(1, len(names)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, names, strict=False):
        for number, column in enumerate(columns):
            colour, sample = COLOURS[number % len(COLOURS)], short(column.name.split(",")[0], 18)
            axis.plot(column.clock, column.values(name), ".-", ms=3, lw=0.8, color=colour, label=sample)
            for at, _ in column.notes:
                axis.axvline(at, color=AMBER, lw=0.8, ls=":")
        axis.set_ylabel(_PANELS[name].replace(" (", "\n("), fontsize=9)
        axis.ticklabel_format(axis="y", useOffset=False)
        plain(axis)
    if names and 1 < len(columns) <= len(COLOURS):
        axes[0].legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=4,
            fontsize=8,
            frameon=False,
            handlelength=1.6,
            borderaxespad=0,
        )
    axes[-1].set_xlabel(f"time since the first frame ({columns[0].unit})", fontsize=9)
    return figure
