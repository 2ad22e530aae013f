"""Edge steps: by lines and by MBACK, of whole scans and of scans cut short, and by whose windows.

    python benchmarks/mback.py [DATA]

DATA holds exp/xdi and exp/operando_linio2; without it the simulated cathode's spectrum alone is cut. Needs xraydb
for the tables. Printed:

- how far the edge step of a scan cut short is off that of the lines through the whole scan (of the simulated one: off
  the true one), median over the scans that are long enough for slopes of their own and not refused once cut;
- how far the edge steps of whole scans are off MBACK's in Larch's windows and in those of alignment (decision 12),
  RMS, by where MBACK's own post-edge begins; how much the two differ in the step and in the aligned spectrum;
- the cathode's first spectrum cut to ever shorter post-edges: the most by which the aligned spectrum moves, by the
  order of the post-edge polynomial (decision 1).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xas_agent.adapters.formats import flaw, read_spectra
from xas_agent.adapters.xray_tables import edge_ev, tabulated
from xas_agent.agent.spectra import Aligned, AlignmentSettings, Batch, align
from xas_agent.agent.spectra.normalisation import normalise
from xas_agent.agent.types import Array, Edge, Grid
from xas_agent.sim_beamline.beamline import BeamlineSettings, SimBeamline
from xas_agent.sim_beamline.cathode import Cell

GRID = Grid(-9.0, 82.0, 1.0, (-9.0, -6.0), (62.0, 82.0))
CUTS = ((-60.0, 125.0), (-30.0, 125.0))
WAYS = {"MBACK": {"mode": "mback"}, "lines": {}, "MBACK on a parabola": {"mode": "mback", "nnorm": 2}}
LASTS = (400.0, 300.0, 250.0, 200.0, 150.0, 125.0, 100.0)


@dataclass(frozen=True)
class Scan:
    name: str
    element: str
    energy: Array
    mu: Array
    step: float | None = None
    """The true edge step, where it is known."""

    def aligned(self, first: float = -np.inf, last: float = np.inf, **normalisation: object) -> Aligned:
        """As the agent does it of the part from ``first`` to ``last``, eV from the tabulated edge."""
        settings = AlignmentSettings.model_validate({"normalisation": normalisation})
        at = edge_ev(self.element)
        inside = (self.energy >= at + first) & (self.energy <= at + last)
        known = tabulated(settings, self.element, "K")
        return align(Batch(self.energy[inside], self.mu[None, inside]), GRID, Edge(at), settings, tabulated=known)

    @property
    def larch(self) -> dict[str, float]:
        """Where Larch's pre-edge begins: the others of its windows follow by its rules."""
        windows = normalise(self.energy, self.mu).windows
        assert windows is not None
        return {"pre1": float(windows.pre1[0])}


def step_of(found: Aligned) -> float:
    return np.nan if found.refused[0] else float(found.quantities["edge_step"][0])


def rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def cut_short(scans: list[Scan]) -> None:
    whole = [s.step or step_of(s.aligned()) for s in scans]
    for first, last in CUTS:
        for name, how in WAYS.items():
            off = [abs(step_of(s.aligned(first, last, **how)) / w - 1) for s, w in zip(scans, whole, strict=True)]
            print(
                f"{np.isfinite(off).sum()} of {len(scans)} scans cut to {first:g}…{last:g} eV, {name}: edge step "
                f"off by {100 * np.nanmedian(off):.1f} % (median), {100 * np.nanmax(off):.0f} % at worst"
            )


def windows(scans: list[Scan]) -> None:
    larch, ours = [s.aligned(**s.larch) for s in scans], [s.aligned() for s in scans]
    steps = np.array([[step_of(a), step_of(b)] for a, b in zip(larch, ours, strict=True)])
    begins = {"where alignment's does": {}, "at 25 eV": {"norm1": 25}, "at 100 eV": {"norm1": 100}}
    for where, norm1 in begins.items():
        by_mback = [step_of(s.aligned(mode="mback", **(s.larch if norm1 else {}), **norm1)) for s in scans]
        off = [100 * rms(list(column / by_mback - 1)) for column in steps.T]
        print(
            f"{len(scans)} whole scans, off MBACK whose post-edge begins {where}: Larch's windows {off[0]:.1f} %, "
            f"alignment's {off[1]:.1f} % (RMS)"
        )
    apart = [rms(list(a.mu[0] - b.mu[0])) for a, b in zip(larch, ours, strict=True)]
    most = 100 * np.abs(steps[:, 1] / steps[:, 0] - 1).max()
    print(f"the two differ by up to {most:.1f} % in the step, by {np.median(apart):.4f} (median RMS) as aligned")


def orders(scan: Scan) -> None:
    whole = scan.aligned().mu
    for name, how in (("by range", {}), *((f"order {n}", {"nnorm": n}) for n in (0, 1, 2, 3))):
        moved = [float(np.abs(scan.aligned(last=last, **how).mu - whole).max()) for last in LASTS]
        print(f"{scan.name} cut to {LASTS[0]:g}…{LASTS[-1]:g} eV, post-edge {name}: moved by up to {max(moved):.3f}")


def simulated() -> Scan:
    settings = BeamlineSettings(frames=1, frame_period_s=0)
    events = []
    SimBeamline(settings, [lambda n, d: events.append((n, d))]).run()
    data = next(d["data"] for n, d in events if n == "event" and "It" in d["data"])
    true = Cell(settings.cathode, settings.seed).edge_step
    return Scan("simulated", "Co", np.asarray(data["energy"]), np.log(data["I0"] / data["It"]), true)


def standards(folder: Path) -> Iterator[Scan]:
    """Those that reach far enough for slopes of their own."""
    for path in sorted(folder.glob("*.xdi")):
        for s in read_spectra(path):
            if not flaw(s) and s.element is not None:
                scan = Scan(path.stem, s.element, s.energy, s.mu)
                if not scan.aligned().short[0]:
                    yield scan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    asked = parser.parse_args()
    if asked.data is None:
        cut_short([simulated()])
        return
    scans = list(standards(asked.data / "exp" / "xdi"))
    cut_short(scans)
    windows(scans)
    with np.load(asked.data / "exp" / "operando_linio2" / "spectra.npz") as z:
        orders(Scan("cathode", "Ni", z["energy"].astype(float), z["norm"][0].astype(float)))


if __name__ == "__main__":
    main()
