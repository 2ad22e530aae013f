"""Compare adaptive scans with even steps and with a grid of regions, by their number of points.

    python benchmarks/adaptive.py [--rows data/feff] [--standards FOLDER TABLE] [--series FILE] [--figure FILE]

The full scan has steps of 0.3 eV from 60 eV below the tabulated edge to 110 eV above it, as far as a spectrum goes.
Its spectra are, whichever are given: computed rows (held-back materials of the training sets, broadened as measured),
measured standards, and a recorded series. The other ways of sampling are joined by cubic splines, the grid of regions
has 5 eV steps up to 20 eV below the edge, fine ones up to 30 eV above it, and three times these behind, all scaled to
the number of points. Errors are those from the full scan:

- of the spectrum, as root-mean-square, and of the edge (the energy at half height) and the white line's height;
- of the mean oxidation state that the absorber's model gives, and the share of spectra whose descriptors all lie
  within the intervals of the full scan.

The last lines are those of adaptive scans that end by their own expected error.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.stats import spearmanr

from xas_agent.adapters.formats import flaw, read_spectra
from xas_agent.agent.propose import EnergyProposer, EnergySettings
from xas_agent.agent.spectra import AlignmentSettings, Batch, align
from xas_agent.agent.spectra.theory import with_tail
from xas_agent.agent.types import Array, DescriptorEstimate, Estimate, edge_ev
from xas_agent.app.config import Config
from xas_agent.app.wiring import load_models
from xas_agent.models.runtime import Model
from xas_agent.models.training import load_feff

RANGE_EV, STEP_EV = (-60.0, 110.0), 0.3
SHARES = (0.05, 0.075, 0.10, 0.15, 0.20)
SETS = {"ti_k": "Ti", "mn_k": "Mn", "fe_k": "Fe", "co_k": "Co", "ni_k": "Ni"}
ROWS_OF_A_SET = 8
BROADENING_EV = 1.0
NOISES = (0.0, 0.001, 0.003)
STOP_ERROR = 0.002


@dataclass(frozen=True)
class FullScan:
    """A spectrum on steps of 0.3 eV, normalised."""

    name: str
    element: str
    energy: Array
    mu: Array

    @property
    def edge(self) -> float:
        """Tabulated edge, eV."""
        return edge_ev(self.element, "K")


Method = Callable[[FullScan, int], Array]
"""Returns the spectrum (E,) that a number of points gives."""


def even(scan: FullScan, points: int) -> Array:
    chosen = np.unique(np.linspace(0, len(scan.energy) - 1, points).round().astype(int))
    return CubicSpline(scan.energy[chosen], scan.mu[chosen])(scan.energy)


def regions(scan: FullScan, points: int) -> Array:
    def grid(scale: float) -> Array:
        parts = (scan.energy[0], scan.edge - 20, 5.0), (scan.edge - 20, scan.edge + 30, 0.5)
        parts = (*parts, (scan.edge + 30, scan.energy[-1], 1.5))
        return np.concatenate([np.arange(start, stop, step * scale) for start, stop, step in parts])

    scale = 1.0
    while len(grid(scale)) > points:
        scale *= 1.02
    while len(grid(scale)) < points:
        scale /= 1.02
    chosen = np.unique(np.abs(scan.energy - grid(scale * 1.02)[:, None]).argmin(1))
    return CubicSpline(scan.energy[chosen], scan.mu[chosen])(scan.energy)


def adaptive(scan: FullScan, points: int) -> Array:
    return measure(scan, points, 1e-9, 0.0)[0]


METHODS: dict[str, Method] = {"adaptive": adaptive, "regions": regions, "even": even}
WAITS: list[float] = []
"""Time of every proposal, s."""


def measure(scan: FullScan, points: int, error: float, noise: float) -> tuple[Array, EnergyProposer]:
    """Return the spectrum of an adaptive scan with white noise, of the edge step, and what chose its points."""
    settings = EnergySettings(
        start_ev=scan.energy[0] - scan.edge, stop_ev=scan.energy[-1] - scan.edge, max_points=points, error=error
    )
    proposer, rng = EnergyProposer(settings, scan.edge), np.random.default_rng(0)
    while not proposer.done():
        began = time.perf_counter()
        energy = proposer.suggest()
        between = time.perf_counter()
        mu = np.interp(energy, scan.energy, scan.mu) + noise * rng.standard_normal(len(energy))
        WAITS.append(between - began)
        began = time.perf_counter()
        proposer.ingest(energy, mu)
        WAITS[-1] += time.perf_counter() - began
    known = proposer.spectrum()
    return np.interp(scan.energy, known.energy, known.mu), proposer


def normalised(energy: Array, mu: Array, edge: float) -> Array:
    """Divide by the edge step between straight lines before and behind the edge."""
    before, behind = energy < edge - 12, energy > edge + 40
    low, high = (np.polyfit(energy[part] - edge, mu[part], 1) for part in (before, behind))
    return (mu - np.polyval(low, energy - edge)) / (high[1] - low[1])


def full_scan(name: str, element: str, energy: Array, mu: Array) -> FullScan | None:
    """Return a spectrum on the grid of the full scan; None if it is too short."""
    edge = edge_ev(element, "K")
    first, last = max(energy[0], edge + RANGE_EV[0]), min(energy[-1], edge + RANGE_EV[1])
    if first > edge - 20 or last < edge + 60:
        return None
    grid = np.arange(first, last, STEP_EV)
    return FullScan(name, element, grid, normalised(grid, np.interp(grid, energy, mu), edge))


def rows(folder: Path) -> Iterator[FullScan]:
    for name, element in SETS.items():
        model, data = model_of(element), load_feff(folder, name, ("OS",))
        chosen = np.flatnonzero(data.split == "val")[:ROWS_OF_A_SET]
        for k in chosen:
            energy, mu = data.energy[k], data.mu[k]
            energy, mu = (a[0] for a in with_tail(energy[None], mu[None], model.edge.edge_ev - 80.0))
            fine = np.arange(energy[0], energy[-1], 0.1)
            broad = gaussian_filter1d(np.interp(fine, energy, mu), BROADENING_EV / 0.1, mode="nearest")
            measured = model.edge.edge_ev + model.edge.to_measured_scale(fine - model.edge.edge_ev)
            if scan := full_scan(str(data.ids[k]), element, measured, broad):
                yield scan


def standards(folder: Path, table: Path) -> Iterator[FullScan]:
    for row in csv.DictReader(table.open()):
        spectrum = read_spectra(folder / row["file"])[0]
        if not flaw(spectrum) and (scan := full_scan(row["file"], row["element"], spectrum.energy, spectrum.mu)):
            yield scan


def series(file: Path) -> Iterator[FullScan]:
    with np.load(file) as recorded:
        for k, mu in enumerate(recorded["norm"]):
            if scan := full_scan(f"frame {k}", "Ni", recorded["energy"], mu):
                yield scan


@cache
def models() -> dict[str, Model]:
    return {model.absorber: model for model in load_models(Config()) if isinstance(model, Model)}


def model_of(element: str) -> Model:
    return models()[element]


def estimates(scans: Sequence[FullScan], mus: Sequence[Array]) -> list[Estimate | None]:
    """Return what the models say of spectra; None where a spectrum is refused."""
    found: list[Estimate | None] = []
    for scan, mu in zip(scans, mus, strict=True):
        model = model_of(scan.element)
        aligned = align(Batch(scan.energy, mu[None]), model.grid, model.edge, AlignmentSettings())
        found.append(None if aligned.refused[0] else model.estimate(aligned.mu)[0])
    return found


def half_height(scan: FullScan, mu: Array) -> float:
    near = (scan.energy > scan.edge - 10) & (scan.energy < scan.edge + 25)
    return float(np.interp(0.5, np.maximum.accumulate(mu[near]), scan.energy[near]))


@dataclass(frozen=True)
class Errors:
    """Errors from the full scans, one of each per spectrum."""

    spectrum: Array
    edge_ev: Array
    white_line: Array
    OS: Array
    inside: Array
    """Whether all descriptors lie within the full scan's intervals."""

    def row(self) -> str:
        return (
            f"{np.median(self.spectrum):.4f} {np.max(self.spectrum):.4f} | {np.median(self.edge_ev):.3f} "
            f"{np.max(self.edge_ev):.3f} | {np.median(self.white_line):.4f} {np.max(self.white_line):.4f} | "
            f"{np.nanmedian(self.OS):.4f} {np.nanmax(self.OS):.4f} | {np.nanmean(self.inside):.2f}"
        )


def errors(scans: Sequence[FullScan], mus: Sequence[Array], whole: Sequence[Estimate | None]) -> Errors:
    pairs = list(zip(scans, mus, strict=True))
    os_error, inside = np.full((2, len(scans)), np.nan)
    for k, (found, full) in enumerate(zip(estimates(scans, mus), whole, strict=True)):
        if full is None:
            continue
        inside[k] = found is not None
        if found is not None:
            told, known = found.descriptors, full.descriptors
            os_error[k] = abs(told["OS"].mean - known["OS"].mean)
            inside[k] = all(_inside(told[d].mean, known[d]) for d in told)
    return Errors(
        np.array([np.sqrt(np.mean((mu - scan.mu) ** 2)) for scan, mu in pairs]),
        np.array([abs(half_height(scan, mu) - half_height(scan, scan.mu)) for scan, mu in pairs]),
        np.array([abs(mu.max() - scan.mu.max()) for scan, mu in pairs]),
        os_error,
        inside,
    )


def _inside(value: float, known: DescriptorEstimate) -> bool:
    """Whether a value lies in an interval, but for a hundredth of its width: it may begin at the estimate itself."""
    slack = 0.01 * (known.hi - known.lo)
    return known.lo - slack <= value <= known.hi + slack


def judge(title: str, scans: Sequence[FullScan]) -> dict[str, list[float]]:
    """Print the table of one kind of spectra; return the median errors of the spectrum by method."""
    whole = estimates(scans, [scan.mu for scan in scans])
    answered = sum(estimate is not None for estimate in whole)
    print(f"\n{title}: {len(scans)} spectra, {answered} answered; median and maximum")
    print("method    points | spectrum | edge, eV | white line | OS, e | within intervals")
    medians: dict[str, list[float]] = {}
    for name, method in METHODS.items():
        for share in SHARES:
            found = errors(scans, [method(scan, int(share * len(scan.energy))) for scan in scans], whole)
            medians.setdefault(name, []).append(float(np.median(found.spectrum)))
            print(f"{name:9} {share:5.1%} | {found.row()}")
    for noise in NOISES:
        ended = [measure(scan, int(0.2 * len(scan.energy)), STOP_ERROR, noise) for scan in scans]
        mus, proposers = [mu for mu, _ in ended], [proposer for _, proposer in ended]
        points = np.array([p.points / len(scan.energy) for p, scan in zip(proposers, scans, strict=True)])
        found = errors(scans, mus, whole)
        if title == "series":
            told = [estimate.descriptors["OS"].mean for estimate in estimates(scans, mus) if estimate]
            full = [estimate.descriptors["OS"].mean for estimate in whole if estimate]
            rank = np.asarray(spearmanr(np.array(told), np.array(full)))[0]
            print(f"rank correlation with the full scans' OS: {rank:.3f}")
        ratio = np.array([p.spectrum().error for p in proposers]) / found.spectrum
        print(
            f"ended at {STOP_ERROR}, noise {noise}: points {np.median(points):.1%} {np.max(points):.1%} | "
            f"{found.row()} | expected/found {np.median(ratio):.2f}"
        )
    return medians


def draw(medians: dict[str, dict[str, list[float]]], file: Path) -> None:
    figure = Figure((3.2 * len(medians), 3.0), layout="constrained")
    panels = figure.subplots(1, len(medians), sharey=True, squeeze=False)[0]
    for panel, (title, found) in zip(panels, medians.items(), strict=True):
        for (name, values), marker in zip(found.items(), "osx", strict=True):
            panel.loglog(np.array(SHARES) * 100, values, marker=marker, label=name)
        panel.axhline(0.005, color="0.6", linestyle=":")
        panel.set(title=title, xlabel="points, % of a scan in 0.3 eV steps")
        panel.set_xticks(np.array(SHARES) * 100, [f"{share * 100:g}" for share in SHARES], minor=False)
        panel.minorticks_off()
    panels[0].set_ylabel("RMS error of the spectrum,\nof the edge step (median)")
    panels[0].legend(frameon=False)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path(__file__).parents[1] / "data" / "feff")
    parser.add_argument("--standards", type=Path, nargs=2, metavar=("FOLDER", "TABLE"))
    parser.add_argument("--series", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    kinds = {"computed rows": list(rows(options.rows))}
    if options.standards:
        kinds["standards"] = list(standards(*options.standards))
    if options.series:
        kinds["series"] = list(series(options.series))
    medians = {title: judge(title, scans) for title, scans in kinds.items()}
    waits = 1000 * np.array(WAITS)
    print(f"\ntime of a proposal: {np.median(waits):.1f} ms (median), {np.quantile(waits, 0.99):.1f} ms (99 %)")
    if options.figure:
        draw(medians, options.figure)


if __name__ == "__main__":
    main()
