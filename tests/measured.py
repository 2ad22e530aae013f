"""Write files in beamline formats from FEFF spectra: XDI with counts, normalised text columns, a series in npz."""

from pathlib import Path

import numpy as np

FEFF = Path(__file__).parent / "data/feff"


def cobalt(row: str = "Co3O4_Co008") -> tuple[np.ndarray, np.ndarray]:
    """Return energy (eV) and normalised μ of a FEFF row, with the two step sizes of a quick scan."""
    energy = np.concatenate([np.arange(7600.0, 7700.0, 5.0), np.arange(7700.0, 7780.0, 0.2)])
    with np.load(FEFF / "co_k.npz") as z:
        (k,) = np.flatnonzero(z["id"] == row)
        mu = np.interp(energy + 4.0, z["energy"][k].astype(float), z["mu"][k].astype(float), left=0.0)
    return energy, mu


def write_xdi(path: Path) -> Path:
    """Write a transmission scan: counts of I0, of the transmitted beam and of the reference chamber."""
    energy, mu = cobalt()
    i0 = 1.5e5 - 40.0 * (energy - energy[0])
    it = i0 * np.exp(-0.3 - 0.8 * mu)
    rows = "".join(
        f"    {e:.4f}  {a:.6f}  {b:.6f}  {c:.6f}\n"
        for e, a, b, c in zip(energy, i0, it, it * np.exp(-mu), strict=True)
    )
    path.write_text(f"""# XDI/1.0
# Column.1: energy eV
# Column.2: i0
# Column.3: itrans
# Column.4: irefer
# Detector.I0: N2 10cm
# Element.edge: K
# Element.symbol: Co
# Mono.d_spacing: 3.13550
# Mono.name: Si(111)
# Sample.name: Co3O4  room temperature
# Scan.start_time: 2001-06-26 21:46:07
# ///
#    mono d_spacing is nominal
#-------------
#   energy   i0   itrans   irefer
{rows}""")
    return path


def write_normalised(path: Path) -> Path:
    """Write a spectrum normalised by the beamline, with the reference, its derivative and I0."""
    energy, mu = cobalt()
    columns = np.column_stack([energy, mu, 1.0 + mu, np.gradient(mu, energy), np.full(len(energy), 15584.69)])
    rows = "".join(f"{e:14.7g} {m:12.7g} {r:12.7g} {d:13.7g} {i:12.7g}\n" for e, m, r, d, i in columns)
    path.write_text(f"""# This file holds a normalised spectrum
#Data from HDF File: /data/2022/op1/op1_0001.nxs to /data/2022/op1/op1_0024.nxs
#Time at start=2022-07-27 18:45:56.558
#Sample temperature (C)=nan
# Normalization -------------
# E0=7709.00   Eshift=-0.200000694921
# pre-edge range: [7600.0, 7690.0]
# I jump at E0_pivot = 0.799647886933
# shifted energy\tnormalized\treference\tref.derivative\tI0
{rows}""")
    return path


def write_series(path: Path, frames: int = 12) -> Path:
    """Write normalised spectra of a charge in single precision, each with a reference."""
    energy, first = cobalt("Li1.00CoO2_O3_s0_Co012")
    last = cobalt("Li0.17CoO2_O3_s1_Co002")[1]
    norm = np.array([(1 - share) * first + share * last for share in np.linspace(0, 1, frames)])
    reference = np.tile(cobalt("Co_metal_Co000")[1], (frames, 1))
    np.savez(path, energy=energy, norm=norm.astype(np.float32), reference=reference.astype(np.float32))
    return path
