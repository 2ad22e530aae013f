"""The figure of ``xas-agent calibrate``: standards against FEFF."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .style import BLUE, DPI, GREY, RED, new_figure

if TYPE_CHECKING:
    from ....models.training import StandardFit  # imports torch


def draw_standards(path: Path, fits: "Sequence[StandardFit]") -> None:
    """Draw each standard on FEFF's energies, its broadened and damped FEFF counterpart, and their difference."""
    figure = new_figure(4.2, 5.5 * len(fits))
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
        axes.set_ylabel("normalised μ")
        axes.set_xlabel("energy on FEFF's scale − tabulated edge (eV)")
        axes.legend(loc="center right", fontsize=8)
    figure.savefig(path, dpi=DPI)
