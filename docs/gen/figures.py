"""The figures of the page on the physics and the model.

    python docs/gen/figures.py [FOLDER]

writes physics.png and model.png into docs/assets, or into FOLDER: a spectrum in its parts, spectra along a charge,
and what the model co-k answers for them.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib import pyplot

from xas_agent.agent.estimate import FrameServer
from xas_agent.agent.spectra import SeriesAlignment
from xas_agent.agent.spectra.normalisation import normalise
from xas_agent.agent.types import Array, DescriptorEstimate, Frame
from xas_agent.app.config import Config
from xas_agent.app.wiring import load_models
from xas_agent.sim_beamline.spectra import ReferenceSpectra, absorption

pyplot.switch_backend("agg")

ASSETS = Path(__file__).parents[1] / "assets"
EDGE_EV = 7709.0
ENERGY = EDGE_EV + np.arange(-140.0, 320.0, 0.5)
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#6e6e6e"


def draw_physics(folder: Path, reference: ReferenceSpectra) -> None:
    """Draw one spectrum with what normalises it, and spectra at three states of charge."""
    figure, (raw, series) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    energy = ENERGY
    mu = absorption(reference.cathode(energy, 1.0), energy, 0.9, 0.8)
    parts = normalise(energy, mu)
    e0, step = float(parts.e0[0]), float(parts.edge_step[0])
    raw.plot(energy, mu, color=BLUE)
    raw.plot(energy, parts.pre_edge[0], color=GREY, linestyle="--", linewidth=1)
    raw.plot(energy, parts.post_edge[0], color=GREY, linestyle="--", linewidth=1)
    low, high = (float(np.interp(e0, energy, curve[0])) for curve in (parts.pre_edge, parts.post_edge))
    raw.annotate("", (e0 - 8, high), (e0 - 8, low), arrowprops={"arrowstyle": "<->", "color": ORANGE})
    raw.text(e0 - 14, (low + high) / 2, f"edge step {step:.2f}", color=ORANGE, ha="right", va="center")
    raw.axvline(e0, color=GREY, linestyle=":", linewidth=1)
    raw.text(e0 + 8, low - 0.2, "E0, the steepest rise")
    white, far = float(energy[np.argmax(mu)]), EDGE_EV + 220
    for where, text, at in (
        ((energy[30], mu[30]), "pre-edge line", (EDGE_EV - 135, low + 0.15)),
        ((white, mu.max()), "white line", (EDGE_EV + 50, mu.max() + 0.02)),
        ((far, float(np.interp(far, energy, mu))), "post-edge curve", (EDGE_EV + 160, high + 0.25)),
    ):
        raw.annotate(text, where, at, arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8}, va="center")
    raw.set_ylim(low - 0.25, mu.max() + 0.12)
    raw.set(xlabel="energy / eV", ylabel="μ d = ln(I0/It)", title="As measured (simulated): Co K edge of LiCoO$_2$")
    near = EDGE_EV + np.arange(-12.0, 45.0, 0.1)
    for x, colour in ((1.0, BLUE), (0.7, GREY), (0.4, ORANGE)):
        series.plot(near, reference.cathode(near, x), color=colour, label=f"x = {x:g}, Co {4 - x:.1f}+")
    series.set(
        xlabel="energy / eV", ylabel="normalised μ", title="Charging Li$_x$CoO$_2$: the edge moves and changes"
    )
    series.legend(frameon=False, loc="lower right")
    figure.savefig(folder / "physics.png", dpi=120)


def os_of(server: FrameServer, spectra: list[Array], shift_ev: float = 0.0) -> list[DescriptorEstimate]:
    """Return the oxidation states that the agent answers for spectra whose energies are off by ``shift_ev``."""
    frames = [Frame(f"{k}", f"{k}", 1, float(k), ENERGY + shift_ev, mu) for k, mu in enumerate(spectra)]
    answered = [answer.estimate for answer in server(frames)]
    assert all(estimate is not None for estimate in answered)
    return [estimate.descriptors["OS"] for estimate in answered if estimate is not None]


def draw_model(folder: Path, reference: ReferenceSpectra) -> None:
    """Draw class probabilities and oxidation state along a charge, and what wrong energies do to it."""
    config = Config.model_validate({"model": {"use": ["co-k"]}})
    server = FrameServer(load_models(config), SeriesAlignment(config.alignment), None, named=True)
    contents = np.linspace(1.0, 0.3, 15)
    spectra = [absorption(reference.cathode(ENERGY, x), ENERGY, 0.9, 0.8) for x in contents]
    found = os_of(server, spectra)
    figure, (classes, course, shifted) = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    names = list(found[0].probabilities)
    classes.stackplot(
        contents,
        [[one.probabilities[name] for one in found] for name in names],
        labels=[f"Co {float(name):g}+" for name in names],
        colors=["#56b4e9", BLUE, "#009e73", ORANGE],
        alpha=0.85,
        edgecolor="white",
        linewidth=1.2,
        hatch=["", "", "", "//"],  # neighbours differ in grey print too
    )
    classes.set(xlabel="x in Li$_x$CoO$_2$", ylabel="probability", title="Classes of one site", ylim=(0, 1))
    classes.legend(loc="lower left")
    course.fill_between(contents, [o.lo for o in found], [o.hi for o in found], color=BLUE, alpha=0.15, linewidth=0)
    course.plot(contents, [o.mean for o in found], "o-", color=BLUE, markersize=4, label="OS, and its 90 % interval")
    course.plot(contents, 4 - contents, "--", color=GREY, label="4 − x, by charge balance")
    course.set(xlabel="x in Li$_x$CoO$_2$", ylabel="oxidation state / e", title="Mean oxidation state of the sample")
    course.legend(frameon=False, loc="lower left")
    for axes in (classes, course):
        axes.invert_xaxis()  # a charge goes to the right
    shifts = np.arange(-3.0, 3.1, 0.5)
    moved = [os_of(server, spectra[:1], float(shift))[0] for shift in shifts]
    shifted.fill_between(shifts, [o.lo for o in moved], [o.hi for o in moved], color=ORANGE, alpha=0.15, linewidth=0)
    shifted.plot(shifts, [o.mean for o in moved], "o-", color=ORANGE, markersize=4)
    shifted.axhline(3.0, color=GREY, linestyle="--")
    shifted.set(
        xlabel="error of the energies / eV", ylabel="oxidation state / e", title="LiCoO$_2$ with wrong energies"
    )
    figure.savefig(folder / "model.png", dpi=120)


if __name__ == "__main__":
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS
    simulated = ReferenceSpectra(broadening_ev=1.0)
    draw_physics(into, simulated)
    draw_model(into, simulated)
