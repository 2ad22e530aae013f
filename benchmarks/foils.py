"""Measure how well a reference foil calibrates the energies, from scan to scan and under drift.

    python benchmarks/foils.py [DATA]

DATA contains exp/xdi, exp/operando_linio2 and exp/rock_txt. Without it, only the foil of the simulated beamline is
measured. All results are in eV:

- repeated foil scans on one monochromator: the error of E0 of one scan calibrated on another, for consecutive scans
  and for all pairs. A match of the whole edge (−15 to 25 eV) to the mean of all scans gives the movement of the
  monochromator; the remainder is the reading error of the foil;
- single foil scans: the error of E0 of every second point, calibrated on the other points; and the error of the E0
  that the agent publishes for a foil as the sample, with another noisy copy as the reference, for monochromator
  shifts of −4 to 4 eV and 0.1 % of noise on each;
- a drift of 0.5 eV over 100 frames, one per minute: the residual drift per frame, by noise of sample and foil. The
  measured Ni foil has 0.03 % of noise.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xas_agent.adapters.formats import Columns, read_spectra
from xas_agent.agent.spectra import AlignmentSettings, Batch, SeriesAlignment
from xas_agent.agent.spectra.foil_edge import read_foils
from xas_agent.agent.types import Array, Edge, Frame
from xas_agent.models import card
from xas_agent.models.runtime import Model
from xas_agent.sim_beamline.beamline import BeamlineSettings, SimBeamline

EDGES = {"Co": Edge(7709.0), "Ni": Edge(8333.0), "Cu": Edge(8979.0)}
MODELS = {"Co": "co-k", "Ni": "ni-k", "Cu": "cu-k"}
REPEATED_SCANS = {
    "SSRL 4-3, 1996": ("Cu2S_13K_01", "CuO_tenorite_13K_01"),
    "SSRL 4-1, 1997 (its header: no reference)": ("NiS_rt_01", "NiOH2_rt_01", "Ni2O3_rt_01"),
}
"""Files with reference scans on one monochromator, in order of time."""
SINGLE_SCANS = ("Cu_Foil_rt_2016Foils", "cu_metal_rt", "Ni_metal_rt_01", "co_metal_rt")
MATCH_WINDOW_EV = (-15.0, 25.0)
# Relative to the range of the signal within 40 eV of the edge.
NOISE, DRIFT_NOISES = 0.001, (0.0003, 0.001, 0.003)
DRIFT_EV, FRAMES, FIRST_SCORED_FRAME = 0.5, 100, 5


def read_shifts(energy: Array, foils: Array, element: str) -> Array:
    """Return the shifts (N,) in eV that the agent reads from foils (N, M)."""
    readings = read_foils(Batch(energy, foils, reference=foils), EDGES[element], AlignmentSettings())
    return np.array([reading.shift_ev for reading in readings])


def match_shifts(energy: Array, foils: Array, element: str) -> Array:
    """Return the shift (N,) in eV of each foil (N, M) from their mean, fitted with level, slope, height and shift."""
    relative = energy - EDGES[element].edge_ev
    inside = (relative > MATCH_WINDOW_EV[0]) & (relative < MATCH_WINDOW_EV[1])
    mean = foils.mean(axis=0)
    terms = np.stack([np.gradient(mean, energy), mean, np.ones_like(mean), relative])[:, inside]
    coefficients = np.linalg.lstsq(terms.T, foils[:, inside].T, rcond=None)[0]
    return -coefficients[0] / coefficients[1]


def print_repeated_scans(name: str, shifts: Array, monochromator: Array | None = None) -> None:
    """Print how well foil scans calibrate each other."""
    pairs = (shifts[:, None] - shifts)[~np.eye(len(shifts), dtype=bool)]
    consecutive = np.diff(shifts)
    print(f"{name}: {len(shifts)} scans, {100 * (np.abs(pairs) <= 0.1).mean():.1f} % of pairs within 0.1")
    for label, errors in (("the next", consecutive), ("any other", pairs)):
        print(f"    on {label:10s} RMS {np.sqrt((errors**2).mean()):.3f}, worst {np.abs(errors).max():.3f}")
    if monochromator is not None:
        reading_errors = shifts + monochromator
        print(f"    monochromator: RMS {monochromator.std():.3f}; reading errors: RMS {reading_errors.std():.3f}")


def print_single_scan(name: str, energy: Array, foil: Array, element: str, rng: np.random.Generator) -> None:
    """Print the errors of a foil (M,) read with half of its points, and shifted with noise."""
    whole, even, odd = (
        read_shifts(energy[k], foil[None, k], element)[0] for k in (slice(None), slice(0, None, 2), slice(1, None, 2))
    )
    model, edge_ev = Model(card.find(MODELS[element])), EDGES[element].edge_ev
    noise = NOISE * np.ptp(foil[np.abs(energy - edge_ev) < 40])
    errors: list[float] = []
    for shift in np.linspace(-4, 4, 33):
        sample, reference = foil + noise * rng.normal(size=(2, len(foil)))
        aligned = SeriesAlignment(AlignmentSettings())(
            [Frame("", "", 1, 0.0, energy + shift, sample, reference)], model
        )
        errors.append(aligned.quantities["e0_ev"][0] - edge_ev)
    print(
        f"{name}: shift {whole:+.3f}; every second point off by {even - odd:+.3f}; "
        f"shifted with noise RMS {np.std(errors):.3f}, worst {np.abs(errors).max():.3f}"
    )


def print_drift(name: str, energy: Array, mu: Array, foil: Array, element: str, rng: np.random.Generator) -> None:
    """Print the residual drift after the agent follows a foil; mu and foil have shape (M,)."""
    model = Model(card.find(MODELS[element]))
    near = np.abs(energy - EDGES[element].edge_ev) < 40
    drift = np.linspace(0, DRIFT_EV, FRAMES)
    expected = read_shifts(energy, foil[None], element)[0] - drift
    for noise in DRIFT_NOISES:
        residuals: list[float] = []
        align = SeriesAlignment(AlignmentSettings())
        for k in range(FRAMES):
            sample, reference = (y + noise * np.ptp(y[near]) * rng.normal(size=len(y)) for y in (mu, foil))
            frame = Frame(str(k), "run", k + 1, 60.0 * k, energy + drift[k], sample, reference)
            aligned = align([frame], model)
            residuals.append(aligned.quantities["foil_shift_ev"][0] - expected[k])
        scored = np.array(residuals)[FIRST_SCORED_FRAME:]
        print(
            f"{name}: {DRIFT_EV} of drift over {FRAMES} frames with {100 * noise:g} % of noise, residual after the "
            f"first {FIRST_SCORED_FRAME}: RMS {np.sqrt((scored**2).mean()):.3f}, worst {np.abs(scored).max():.3f}"
        )


def simulate_foil() -> tuple[Array, Array, Array]:
    """Return energies, μ of the sample and μ of the foil, (M,) each."""
    events = []
    SimBeamline(BeamlineSettings(frames=2, frame_period_s=0), [lambda n, d: events.append((n, d))]).run()
    data = next(d["data"] for n, d in events if n == "event" and "It" in d["data"])
    return np.asarray(data["energy"]), np.log(data["I0"] / data["It"]), np.log(data["It"] / data["Iref"])


def read_references(
    folder: Path, names: tuple[str, ...], columns: Columns | None = None
) -> Iterator[tuple[str, Array, Array]]:
    """Yield element, energies and μ of the reference, or of the sample in files without a reference."""
    for name in names:
        (s,) = read_spectra(folder / f"{name}.xdi", columns=columns)
        assert s.element is not None
        yield s.element, s.energy, s.mu if s.reference is None else s.reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    options, rng = parser.parse_args(), np.random.default_rng(0)
    print_drift("simulated Co foil", *simulate_foil(), "Co", rng)
    if options.data is None:
        return
    exp = options.data / "exp"
    with np.load(exp / "operando_linio2" / "spectra.npz") as z:
        energy, mu, foils = (z[key].astype(float) for key in ("energy", "norm", "reference"))
    print_drift("measured Ni foil, mean of 58", energy, mu[0], foils.mean(axis=0), "Ni", rng)
    print_repeated_scans(
        "SOLEIL ROCK, 2022, a cathode in the beam",
        read_shifts(energy, foils, "Ni"),
        match_shifts(energy, foils, "Ni"),
    )
    files = [s for path in sorted((exp / "rock_txt").glob("*.txt")) for s in read_spectra(path)]
    print_repeated_scans(
        "    six of them from the files of the beamline",
        np.concatenate([read_shifts(s.energy, s.reference[None], "Ni") for s in files if s.reference is not None]),
    )
    for name, files in REPEATED_SCANS.items():
        # Named, the column is read even where the header states that it is no foil.
        scans = read_references(exp / "xdi", files, {"iref": "irefer"})
        print_repeated_scans(name, np.concatenate([read_shifts(e, f[None], element) for element, e, f in scans]))
    for name in SINGLE_SCANS:
        for element, energy, foil in read_references(exp / "xdi", (name,)):
            print_single_scan(name, energy, foil, element, rng)


if __name__ == "__main__":
    main()
