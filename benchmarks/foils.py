"""How well a reference foil calibrates the energies: from one scan to the next, and against a drift.

    python benchmarks/foils.py [DATA]

DATA holds exp/xdi, exp/operando_linio2 and exp/rock_txt; without it the simulated beamline's foil alone is looked at.
Printed, all in eV:

- of foils scanned again on the same monochromator: where E0 of one stands off the table when it is calibrated on
  another, between scans that follow each other and between any two; how much of that the monochromator did, as the
  whole edge (−15 to 25 eV) matched to the mean of all scans tells, and what is left, which is reading errors;
- of single foil scans: E0 off the table with every second point, calibrated on the others; and E0 as the agent
  publishes it of a foil as the sample, with another scan of it as the reference, wherever the monochromator stands
  (−4 to 4 eV, 0.1 % of noise on each);
- 0.5 eV of drift over 100 frames, a minute apart: what is left of it frame by frame, by noise of sample and foil; the
  measured Ni foil has 0.03 %.
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
AGAIN = {
    "SSRL 4-3, 1996": ("Cu2S_13K_01", "CuO_tenorite_13K_01"),
    "SSRL 4-1, 1997 (its header: no reference)": ("NiS_rt_01", "NiOH2_rt_01", "Ni2O3_rt_01"),
}
"""Reference channels of one monochromator, in the order of time."""
ALONE = ("Cu_Foil_rt_2016Foils", "cu_metal_rt", "Ni_metal_rt_01", "co_metal_rt")
MATCHED_EV = (-15.0, 25.0)
NOISE, NOISES = 0.001, (0.0003, 0.001, 0.003)  # of what the foil's edge spans
DRIFT_EV, FRAMES, SETTLED = 0.5, 100, 5


def shifts(energy: Array, foils: Array, element: str) -> Array:
    """(N,) eV, as the agent reads them, of foils (N, M)."""
    readings = read_foils(Batch(energy, foils, reference=foils), EDGES[element], AlignmentSettings())
    return np.array([reading.shift_ev for reading in readings])


def matched(energy: Array, foils: Array, element: str) -> Array:
    """How far each foil (N, M) stands above the mean of all, (N,) eV: level, line, height and shift fitted."""
    relative = energy - EDGES[element].edge_ev
    inside = (relative > MATCHED_EV[0]) & (relative < MATCHED_EV[1])
    mean = foils.mean(axis=0)
    terms = np.stack([np.gradient(mean, energy), mean, np.ones_like(mean), relative])[:, inside]
    found = np.linalg.lstsq(terms.T, foils[:, inside].T, rcond=None)[0]
    return -found[0] / found[1]


def again(name: str, read: Array, moved: Array | None = None) -> None:
    """Print how foils that were read after each other calibrate each other."""
    pairs = (read[:, None] - read)[~np.eye(len(read), dtype=bool)]
    after = np.diff(read)
    print(f"{name}: {len(read)} scans, {100 * (np.abs(pairs) <= 0.1).mean():.1f} % of pairs within 0.1")
    for which, off in (("the next", after), ("any other", pairs)):
        print(f"    on {which:10s} RMS {np.sqrt((off**2).mean()):.3f}, worst {np.abs(off).max():.3f}")
    if moved is not None:
        left = read + moved - np.mean(read + moved)
        print(f"    the monochromator: RMS {moved.std():.3f}; reading errors: RMS {left.std():.3f}")


def alone(name: str, energy: Array, foil: Array, element: str, rng: np.random.Generator) -> None:
    """Print how a foil (M,) is read with half of its points, and with noise wherever it stands."""
    whole, half, other = (
        shifts(energy[k], foil[None, k], element)[0] for k in (slice(None), slice(0, None, 2), slice(1, None, 2))
    )
    model, edge_ev = Model(card.find(MODELS[element])), EDGES[element].edge_ev
    noise = NOISE * np.ptp(foil[np.abs(energy - edge_ev) < 40])
    off = []
    for moved in np.linspace(-4, 4, 33):
        sample, reference = foil + noise * rng.normal(size=(2, len(foil)))
        found = SeriesAlignment(AlignmentSettings())(
            [Frame("", "", 1, 0.0, energy + moved, sample, reference)], model
        )
        off.append(found.quantities["e0_ev"][0] - edge_ev)
    print(
        f"{name}: shift {whole:+.3f}; every second point {half - other:+.3f} off; "
        f"moved and noisy RMS {np.std(off):.3f}, worst {np.abs(off).max():.3f}"
    )


def drift(name: str, energy: Array, mu: Array, foil: Array, element: str, rng: np.random.Generator) -> None:
    """Print what is left of a drift once the agent has followed a foil; mu, foil (M,)."""
    model = Model(card.find(MODELS[element]))
    near = np.abs(energy - EDGES[element].edge_ev) < 40
    true = np.linspace(0, DRIFT_EV, FRAMES)
    expected = shifts(energy, foil[None], element)[0] - true
    for noise in NOISES:
        left = []
        follow = SeriesAlignment(AlignmentSettings())
        for k in range(FRAMES):
            sample, reference = (y + noise * np.ptp(y[near]) * rng.normal(size=len(y)) for y in (mu, foil))
            frame = Frame(str(k), "run", k + 1, 60.0 * k, energy + true[k], sample, reference)
            found = follow([frame], model)
            left.append(found.quantities["foil_shift_ev"][0] - expected[k])
        off = np.array(left)[SETTLED:]
        print(
            f"{name}: {DRIFT_EV} of drift over {FRAMES} frames with {100 * noise:g} % of noise, left after the first "
            f"{SETTLED}: RMS {np.sqrt((off**2).mean()):.3f}, worst {np.abs(off).max():.3f}"
        )


def simulated() -> tuple[Array, Array, Array]:
    """Energies, a sample's μ and its foil's, (M,) each."""
    events = []
    SimBeamline(BeamlineSettings(frames=2, frame_period_s=0), [lambda n, d: events.append((n, d))]).run()
    data = next(d["data"] for n, d in events if n == "event" and "It" in d["data"])
    return np.asarray(data["energy"]), np.log(data["I0"] / data["It"]), np.log(data["It"] / data["Iref"])


def references(
    folder: Path, names: tuple[str, ...], columns: Columns | None = None
) -> Iterator[tuple[str, Array, Array]]:
    """Element, energies and reference of files, or the sample's μ where there is no reference."""
    for name in names:
        (s,) = read_spectra(folder / f"{name}.xdi", columns=columns)
        assert s.element is not None
        yield s.element, s.energy, s.mu if s.reference is None else s.reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    asked, rng = parser.parse_args(), np.random.default_rng(0)
    drift("simulated Co foil", *simulated(), "Co", rng)
    if asked.data is None:
        return
    exp = asked.data / "exp"
    with np.load(exp / "operando_linio2" / "spectra.npz") as z:
        energy, mu, foils = (z[key].astype(float) for key in ("energy", "norm", "reference"))
    drift("measured Ni foil, mean of 58", energy, mu[0], foils.mean(axis=0), "Ni", rng)
    again("SOLEIL ROCK, 2022, a cathode in the beam", shifts(energy, foils, "Ni"), matched(energy, foils, "Ni"))
    files = [s for path in sorted((exp / "rock_txt").glob("*.txt")) for s in read_spectra(path)]
    again(
        "    six of them as the beamline wrote them",
        np.concatenate([shifts(s.energy, s.reference[None], "Ni") for s in files if s.reference is not None]),
    )
    for name, of in AGAIN.items():
        named = {"iref": "irefer"}  # also where the header states that this is no foil
        read = [shifts(e, f[None], element) for element, e, f in references(exp / "xdi", of, named)]
        again(name, np.concatenate(read))
    for name in ALONE:
        for element, energy, foil in references(exp / "xdi", (name,)):
            alone(name, energy, foil, element, rng)


if __name__ == "__main__":
    main()
