"""Measure what a spectrum loses in footing if it ends inside, or soon after, the window of its level 1 (decision 23).

    python benchmarks/short_scans.py DATA

DATA contains feff, exp/xdi and exp/standards. The benchmark prints the level 1 of FEFF rows by several windows: its
spread over the rows, and its change if they are broadened or shifted. Then, for spectra cut at several energies:

- FEFF rows that reach beyond the window, as computed and broadened as measured ones: the level 1 by the mean of the
  window as far as the row is known, and by the mean of the whole window with the last value continued, both divided
  by the level of the uncut row;
- measured standards of an absorber with a model: the scale of the aligned spectrum relative to that of the whole
  scan, and the RMS difference, in edge steps.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from xas_agent.adapters.formats import flaw, read_spectra
from xas_agent.agent.spectra import Aligned, AlignmentSettings, Batch, align
from xas_agent.agent.types import Array, Edge, Grid, continued, edge_ev
from xas_agent.models.training import FINE_EV, load_feff, shifted

GRID = Grid(-9, 98, 1, (-9, -6), (18, 32), short_stop_ev=27)
SETS = {"cu_k": "Cu", "co_k": "Co", "ni_k": "Ni", "fe_k": "Fe", "mn_k": "Mn"}
BROADENING_EV = (0.0, 2.35)
WINDOWS_EV = ((5, 33), (12, 33), (18, 32), (25, 33))
SHIFT_EV = 1.0
FEFF_ENDS_EV = (25, 27, 28, 29, 30)
OFFSET_EV = 4.0
ABSORBERS = ("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu")
MEASURED_ENDS_EV = (23.0, 25.0, 28.0, 45.0, 80.0)


def feff_rows(folder: Path, name: str, sigma_ev: float, shift_ev: float = 0.0) -> Array:
    """Return the rows (N, G) of a set, broadened and shifted, not on the footing."""
    data = load_feff(folder, name, ("OS",))
    data = data.rows(np.isin(data.split, ["train", "val"]))
    bounds = np.arange(GRID.bounds[0], GRID.bounds[-1] + FINE_EV / 2, FINE_EV)
    fine = torch.tensor(data.on_bins(bounds, edge_ev(SETS[name], "K")))
    zero = torch.zeros(len(fine), 1, dtype=fine.dtype)
    return shifted(fine, FINE_EV, zero + shift_ev, zero + sigma_ev).reshape(len(fine), len(GRID), -1).mean(2).numpy()


def print_windows(folder: Path) -> None:
    sigma_ev = BROADENING_EV[1]
    for name in SETS:
        computed, broadened = feff_rows(folder, name, 0.0), feff_rows(folder, name, sigma_ev)
        moved = feff_rows(folder, name, 0.0, SHIFT_EV)
        for start, stop in WINDOWS_EV:
            inside = GRID.window((start, stop))
            level = computed[:, inside].mean(1)
            wider, later = (100 * (mu[:, inside].mean(1) / level - 1).mean() for mu in (broadened, moved))
            print(
                f"{name}, {len(level)} rows, level from {start} to {stop} eV: spread {level.std():.3f}, "
                f"change by σ {sigma_ev:g} eV {wider:+.1f} %, by {SHIFT_EV:+g} eV {later:+.1f} %"
            )


def print_feff(folder: Path) -> None:
    window = GRID.window(GRID.anchor_ev)
    for name in SETS:
        for sigma in BROADENING_EV:
            mu = feff_rows(folder, name, sigma)
            foot, level = GRID.levels(mu)
            for end in FEFF_ENDS_EV:
                cut = GRID.cut(mu, np.full(len(mu), float(end)))[:, window]
                known, held = ((m - foot) / (level - foot) for m in (np.nanmean(cut, 1), continued(cut).mean(1)))
                print(
                    f"{name}, {len(mu)} rows, σ {sigma:g} eV, to {end} eV: level of the known part "
                    f"{known.mean():.3f} ± {known.std():.3f}, continued {held.mean():.3f} ± {held.std():.3f}"
                )


def standards(data: Path) -> Iterator[tuple[Array, Array, float]]:
    """Yield energy, μ and tabulated edge of the standards that cover the whole grid and more."""
    for path in sorted([*(data / "exp" / "xdi").glob("*.xdi"), *(data / "exp" / "standards").glob("*.xdi")]):
        spectrum = read_spectra(path)[0]
        if flaw(spectrum) or spectrum.element not in ABSORBERS:
            continue
        edge = edge_ev(spectrum.element, "K")
        if spectrum.energy[0] < edge - 40 and spectrum.energy[-1] > edge + 200:
            yield spectrum.energy, spectrum.mu, edge


def aligned(energy: Array, mu: Array, edge: float, end_ev: float = np.inf) -> Aligned:
    inside = energy - edge <= end_ev
    return align(Batch(energy[inside], mu[None, inside]), GRID, Edge(edge, OFFSET_EV), AlignmentSettings())


def print_measured(data: Path) -> None:
    scans = [(*scan, whole) for scan in standards(data) if (whole := aligned(*scan)).refused == (None,)]
    for end in (*MEASURED_ENDS_EV, None):
        scales, differences = [], []
        for energy, mu, edge, whole in scans:
            stop = float(whole.quantities["e0_ev"][0]) - edge + 25 if end is None else end
            short = aligned(energy, mu, edge, stop)
            if short.refused[0] is None:
                known = np.isfinite(short.mu[0])
                a, b = short.mu[0, known].astype(float), whole.mu[0, known].astype(float)
                scales.append(a @ b / (b @ b))
                differences.append(float(np.sqrt(np.mean((a - b) ** 2))))
        where = "E0 + 25 eV" if end is None else f"the tabulated edge + {end:g} eV"
        print(
            f"{len(scales)} of {len(scans)} standards cut at {where}: scale {np.mean(scales):.3f} ± "
            f"{np.std(scales):.3f}, off by {np.max(np.abs(np.subtract(scales, 1))):.3f} at most; RMS difference "
            f"{np.median(differences):.3f} (median), {np.max(differences):.3f} (maximum)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    print_windows(data / "feff")
    print_feff(data / "feff")
    print_measured(data)


if __name__ == "__main__":
    main()
