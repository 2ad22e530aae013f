"""Compare edge steps from lines and from MBACK: whole and truncated scans, and different windows.

    python benchmarks/mback.py [DATA]

DATA contains exp/xdi and exp/operando_linio2. Without it, only the spectrum of the simulated cathode is truncated.
The tables need xraydb. The benchmark prints:

- the error of the edge step of a truncated scan, relative to lines through the whole scan (for the simulated one, to
  the true step): the median over scans that are long enough for fitted slopes and not refused after truncation;
- the RMS difference between the edge steps of whole scans and those of MBACK, with Larch's windows and with those of
  the alignment (decision 12), by the start of MBACK's post-edge; and the difference between these two sets of windows
  in the edge step and in the aligned spectrum;
- the first spectrum of the cathode, truncated to ever shorter post-edges: the largest change of the aligned spectrum,
  by the order of the post-edge polynomial (decision 1).
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
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.settings import BeamlineSettings

GRID = Grid(-9.0, 82.0, 1.0, (-9.0, -6.0), (62.0, 82.0))
TRUNCATIONS_EV = ((-60.0, 125.0), (-30.0, 125.0))
METHODS = {"MBACK": {"mode": "mback"}, "lines": {}, "MBACK on a parabola": {"mode": "mback", "nnorm": 2}}
STOPS_EV = (400.0, 300.0, 250.0, 200.0, 150.0, 125.0, 100.0)


@dataclass(frozen=True)
class Scan:
    name: str
    element: str
    energy: Array
    mu: Array
    true_step: float | None = None

    def align(self, first: float = -np.inf, last: float = np.inf, **normalisation: object) -> Aligned:
        """Align the part from ``first`` to ``last``, in eV from the tabulated edge."""
        settings = AlignmentSettings.model_validate({"normalisation": normalisation})
        edge = edge_ev(self.element)
        inside = (self.energy >= edge + first) & (self.energy <= edge + last)
        tables = tabulated(settings, self.element, "K")
        return align(Batch(self.energy[inside], self.mu[None, inside]), GRID, Edge(edge), settings, tabulated=tables)

    @property
    def larch_windows(self) -> dict[str, float]:
        """Return the start of Larch's pre-edge; its other windows follow from it by Larch's rules."""
        windows = normalise(self.energy, self.mu).windows
        assert windows is not None
        return {"pre1": float(windows.pre1[0])}


def edge_step(aligned: Aligned) -> float:
    return np.nan if aligned.refused[0] else float(aligned.quantities["edge_step"][0])


def rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def print_truncated(scans: list[Scan]) -> None:
    whole = [s.true_step or edge_step(s.align()) for s in scans]
    for first, last in TRUNCATIONS_EV:
        for name, normalisation in METHODS.items():
            steps = [edge_step(s.align(first, last, **normalisation)) for s in scans]
            errors = [abs(step / w - 1) for step, w in zip(steps, whole, strict=True)]
            print(
                f"{np.isfinite(errors).sum()} of {len(scans)} scans cut to {first:g}…{last:g} eV, {name}: edge step "
                f"off by {100 * np.nanmedian(errors):.1f} % (median), {100 * np.nanmax(errors):.0f} % (maximum)"
            )


def print_windows(scans: list[Scan]) -> None:
    larch, own = [s.align(**s.larch_windows) for s in scans], [s.align() for s in scans]
    steps = np.array([[edge_step(a), edge_step(b)] for a, b in zip(larch, own, strict=True)])
    starts = {"where that of the alignment does": {}, "at 25 eV": {"norm1": 25}, "at 100 eV": {"norm1": 100}}
    for start, norm1 in starts.items():
        by_mback = [edge_step(s.align(mode="mback", **(s.larch_windows if norm1 else {}), **norm1)) for s in scans]
        differences = [100 * rms(list(column / by_mback - 1)) for column in steps.T]
        print(
            f"{len(scans)} whole scans, difference from MBACK with a post-edge that begins {start}: "
            f"Larch's windows {differences[0]:.1f} %, those of the alignment {differences[1]:.1f} % (RMS)"
        )
    spectrum_differences = [rms(list(a.mu[0] - b.mu[0])) for a, b in zip(larch, own, strict=True)]
    max_step_difference = 100 * np.abs(steps[:, 1] / steps[:, 0] - 1).max()
    print(
        f"the two sets of windows differ by up to {max_step_difference:.1f} % in the edge step, "
        f"by {np.median(spectrum_differences):.4f} (median RMS) in the aligned spectrum"
    )


def print_orders(scan: Scan) -> None:
    whole = scan.align().mu
    for name, normalisation in (("by range", {}), *((f"order {n}", {"nnorm": n}) for n in (0, 1, 2, 3))):
        changes = [float(np.abs(scan.align(last=last, **normalisation).mu - whole).max()) for last in STOPS_EV]
        print(
            f"{scan.name} cut to {STOPS_EV[0]:g}…{STOPS_EV[-1]:g} eV, post-edge {name}: "
            f"moved by up to {max(changes):.3f}"
        )


def simulate_scan() -> Scan:
    settings = BeamlineSettings(frames=1, frame_period_s=0)
    events = []
    SimBeamline(settings, [lambda n, d: events.append((n, d))]).run()
    data = next(d["data"] for n, d in events if n == "event" and "It" in d["data"])
    true_step = settings.experiment.begin(settings.seed).edge_step
    return Scan("simulated", "Co", np.asarray(data["energy"]), np.log(data["I0"] / data["It"]), true_step)


def standards(folder: Path) -> Iterator[Scan]:
    """Yield the standards that are long enough for fitted slopes."""
    for path in sorted(folder.glob("*.xdi")):
        for s in read_spectra(path):
            if not flaw(s) and s.element is not None:
                scan = Scan(path.stem, s.element, s.energy, s.mu)
                if not scan.align().short[0]:
                    yield scan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    options = parser.parse_args()
    if options.data is None:
        print_truncated([simulate_scan()])
        return
    scans = list(standards(options.data / "exp" / "xdi"))
    print_truncated(scans)
    print_windows(scans)
    with np.load(options.data / "exp" / "operando_linio2" / "spectra.npz") as z:
        print_orders(Scan("cathode", "Ni", z["energy"].astype(float), z["norm"][0].astype(float)))


if __name__ == "__main__":
    main()
