"""Reference spectra of the simulated cathode, ``cathode_co_k.npz``, from a folder of FEFF spectra.

    python -m xas_agent.models.datasets.cathode FEFF_FOLDER OUT.npz

The folder holds ``co_k.npz`` (``id`` (N,), ``energy`` and ``mu`` (N, M)) and ``co_k.csv`` (one row per id
with ``material``, ``kind``, ``split`` and ``OS_mean``). The output contains

- ``energy`` (E,) eV, FEFF's own absolute scale, uniform;
- ``x`` (X,) lithium per formula unit, rising from 0 to 1;
- ``mu`` (X, E) normalised absorption of LixCoO2, averaged over the sites of each composition;
- ``foil`` (E,) normalised absorption of Co metal;
- ``feff_offset_ev``, ``foil_offset_ev`` FEFF − experiment energy of the cathode and of the foil;
- ``feff_scale``, ``feff_amplitude`` measured energies and amplitudes divided by FEFF's.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ...agent.types import Array, edge_ev

GRID = np.arange(7640.0, 7840.0, 0.2)
END_MEMBERS = ("Li0.00CoO2_O3_s0", "Li1.00CoO2_O3_s0")
FOIL = "Co_metal"
FEFF_OFFSET_EV, FEFF_SCALE, FEFF_AMPLITUDE = 4.3, 1.045, 0.91
"""Differences between measured Co oxides and FEFF, as in the card of the Co model."""
_DECAY_EV = 10.0  # decay length of the fine structure beyond the last energy


def extend(energy: Array, mu: Array, grid: Array) -> Array:
    """Resample one FEFF spectrum onto ``grid``, extrapolated on both sides with its value and slope.

    Below its first energy it falls as w / (w + distance), like the Lorentzian tail of the core hole; above
    its last one the fine structure decays exponentially to the atomic background, 1.

    Parameters
    ----------
    energy : (M,) eV, rising
    mu : (M,) normalised absorption
    grid : (E,) eV, rising

    Returns
    -------
    (E,) normalised absorption.
    """
    out = np.interp(grid, energy, mu)
    below, above = grid < energy[0], grid > energy[-1]
    slope = (mu[1] - mu[0]) / (energy[1] - energy[0])
    width = mu[0] / slope
    out[below] = mu[0] * width / (width + energy[0] - grid[below])
    distance = grid[above] - energy[-1]
    slope = (mu[-1] - mu[-2]) / (energy[-1] - energy[-2])
    structure = mu[-1] - 1
    out[above] = 1 + (structure + (slope + structure / _DECAY_EV) * distance) * np.exp(-distance / _DECAY_EV)
    return out


def first_inflection(energy: Array, mu: Array, broadening_ev: float = 1.0) -> float:
    """Return the energy of the steepest rise, eV, of a spectrum on a uniform grid after Gaussian broadening."""
    step = energy[1] - energy[0]
    slope = np.gradient(gaussian_filter1d(mu, broadening_ev / step), step)
    return float(energy[np.argmax(slope)])


def build(feff_folder: Path, out: Path) -> None:
    """Write the reference spectra of the cathode and the foil to ``out`` (see the module's docstring)."""
    with np.load(feff_folder / "co_k.npz") as archive:
        spectra = {
            str(id_): extend(energy.astype(float), mu.astype(float), GRID)
            for id_, energy, mu in zip(archive["id"], archive["energy"], archive["mu"], strict=True)
        }
    by_x: dict[float, list[Array]] = {}
    foil: Array | None = None
    with (feff_folder / "co_k.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            layered = row["kind"] == "layered" and row["split"] == "sim"
            if layered or row["material"] in END_MEMBERS:
                by_x.setdefault(4 - float(row["OS_mean"]), []).append(spectra[row["id"]])
            elif row["material"] == FOIL:
                foil = spectra[row["id"]]
    if foil is None:
        raise ValueError(f"{feff_folder / 'co_k.csv'}: no row of {FOIL}")
    compositions = sorted(by_x)
    np.savez_compressed(
        out,
        energy=GRID,
        x=np.array(compositions),
        mu=np.array([np.mean(by_x[x], axis=0) for x in compositions], dtype=np.float32),
        foil=foil.astype(np.float32),
        feff_offset_ev=FEFF_OFFSET_EV,
        feff_scale=FEFF_SCALE,
        feff_amplitude=FEFF_AMPLITUDE,
        foil_offset_ev=first_inflection(GRID, foil) - edge_ev("Co"),
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
