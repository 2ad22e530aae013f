"""The normalisation against xraylarch's ``pre_edge``: edge steps, E0, normalised μ, speed.

    python benchmarks/against_larch.py FOLDER [--out PICTURES [--draw-all]]

FOLDER holds XDI files. xraylarch is no dependency of this package: it must be installed beside it (pip install
xraylarch). Prints three tables: given the same E0, pre1, pre2, norm1, norm2 and nnorm; everything found automatically
on both sides; speed, in processor time (with OMP_NUM_THREADS=1: of one core). With --out, a picture of every file in
which the two differ by more than the marks allow; the list says in what.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xas_agent.adapters.formats import FileSpectrum, flaw, read_spectra
from xas_agent.agent.spectra.normalisation import NormalisationSettings, Normalised, normalise
from xas_agent.agent.types.xray import edge_ev

try:
    import xraydb
    from larch import Group  # pyright: ignore[reportMissingImports]
    from larch.xafs import mback, pre_edge  # pyright: ignore[reportMissingImports]
except ImportError as error:
    sys.exit(f"{error}: this comparison needs xraylarch, which the package itself does not: pip install xraylarch")

NEAR_EV = 5.0  # between larch's own E0 and the tabulated edge, for the first mark
STEP_SAME, RMS_SAME = 0.01, 0.003
STEP_AUTO, STEPS_AUTO = 0.03, 2.0
BATCH = 256


@dataclass
class Compared:
    spectrum: FileSpectrum
    larch: "Group"
    same: Normalised
    auto: Normalised

    @property
    def name(self) -> str:
        return Path(self.spectrum.source).stem

    @property
    def off_table_ev(self) -> float:
        return self.larch.e0 - edge_ev(self.spectrum.element or "", self.spectrum.edge or "K")

    def step_error(self, ours: Normalised) -> float:
        return float(ours.edge_step[0] / self.larch.edge_step - 1)

    def rms(self, kind: str) -> float:
        e = self.spectrum.energy - self.larch.e0
        inside = (e >= -20) & (e <= 80)
        return float(np.sqrt(np.mean((getattr(self.same, kind)[0] - getattr(self.larch, kind))[inside] ** 2)))

    @property
    def e0_off_steps(self) -> float:
        e = self.spectrum.energy
        near = np.abs(e - self.larch.e0) < 10
        return float((self.auto.e0[0] - self.larch.e0) / np.median(np.diff(e[near])))

    @property
    def differs_given(self) -> str:
        """By what the two differ more than the mark with everything given; empty: not at all."""
        rms = max(self.rms("norm"), self.rms("flat"))
        step = f"edge step by {100 * self.step_error(self.same):+.2f} %"
        said = (abs(self.step_error(self.same)) > STEP_SAME, step), (rms > RMS_SAME, f"μ by {rms:.4f} RMS")
        return ", ".join(what for differs, what in said if differs)

    @property
    def differs_found(self) -> str:
        """By what where each finds its own; E0 and the windows show which of them did it."""
        step = f"edge step by {100 * self.step_error(self.auto):+.2f} %, windows {self._windows}"
        e0 = f"E0 by {self.e0_off_steps:+.1f} steps"
        said = (abs(self.step_error(self.auto)) > STEP_AUTO, step), (abs(self.e0_off_steps) > STEPS_AUTO, e0)
        return ", ".join(what for differs, what in said if differs)

    @property
    def _windows(self) -> str:
        theirs, ours = self.larch.pre_edge_details, self.auto.windows
        assert ours is not None
        names = ("pre1", "pre2", "norm1", "norm2", "nnorm")
        pairs = ((name, getattr(theirs, name), getattr(ours, name)[0]) for name in names)
        return ", ".join(f"{n} {a:g} ↔ {b:g}" for n, a, b in pairs if abs(a - b) > 0.5) or "alike"


def by_larch(spectrum: FileSpectrum, **options: float) -> "Group":
    group = Group(energy=spectrum.energy.copy(), mu=spectrum.mu.copy())
    pre_edge(group, **options)
    return group


def as_larch(group: "Group") -> NormalisationSettings:
    used = group.pre_edge_details
    names = ("pre1", "pre2", "norm1", "norm2", "nnorm", "nvict")
    return NormalisationSettings(e0=group.e0, **{name: getattr(used, name) for name in names})


def compare(spectrum: FileSpectrum) -> Compared:
    group = by_larch(spectrum)
    same = normalise(spectrum.energy, spectrum.mu, as_larch(group))
    return Compared(spectrum, group, same, normalise(spectrum.energy, spectrum.mu))


def mback_step(spectrum: FileSpectrum, group: "Group") -> float:
    """What Larch's MBACK against tabulated f'' says of the edge step: neither side's polynomial."""
    z = xraydb.atomic_number(spectrum.element)
    copy = Group(energy=spectrum.energy.copy(), mu=spectrum.mu.copy())
    mback(copy, z=z, edge=spectrum.edge or "K", e0=group.e0, order=2, norm1=100)
    return float(copy.edge_step)


def fastest(call: Callable[[], object], seconds: float) -> float:
    """Seconds of one call on the processor, whatever else it works on: the median, after a warm-up."""
    took = []
    call()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(took) < 5:
        began = time.process_time()
        call()
        took.append(time.process_time() - began)
    return float(np.median(took))


def speed(spectrum: FileSpectrum, seconds: float = 0.4) -> tuple[float, ...]:
    """Seconds per spectrum, everything automatic: larch, one of ours, ours in a batch; the same with all given."""
    energy, mu = spectrum.energy, spectrum.mu
    given = as_larch(by_larch(spectrum))
    batch = mu * np.linspace(0.9, 1.1, BATCH)[:, None]
    found = []
    for how in (None, given):
        options = {} if how is None else how.model_dump(exclude={"mode", "e0_smoothing_ev", "flatten"})
        settings = how or NormalisationSettings()
        found += [
            fastest(lambda options=options: by_larch(spectrum, **options), seconds),
            fastest(lambda settings=settings: normalise(energy, mu, settings), seconds),
            fastest(lambda settings=settings: normalise(energy, batch, settings), seconds) / BATCH,
        ]
    return tuple(found)


def picture(c: Compared, folder: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (raw, flat) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    e = c.spectrum.energy
    raw.plot(e, c.spectrum.mu, "k", lw=1, label="μ")
    for style, pre, post, at, who in (
        ("C0", c.larch.pre_edge, c.larch.post_edge, c.larch.e0, "larch"),
        ("C3--", c.auto.pre_edge[0], c.auto.post_edge[0], c.auto.e0[0], "xas-agent"),
    ):
        raw.plot(e, pre, style, lw=1)
        raw.plot(e, post, style, lw=1, label=who)
        raw.axvline(at, color=style[:2], ls=style[2:] or "-", lw=0.7)
    flat.plot(e, c.larch.flat, "C0", lw=1, label=f"larch, E0 {c.larch.e0:.2f} eV, step {c.larch.edge_step:.4f}")
    label = f"xas-agent, E0 {c.auto.e0[0]:.2f} eV, step {c.auto.edge_step[0]:.4f}"
    flat.plot(e, c.auto.flat[0], "C3--", lw=1, label=label)
    flat.set_xlim(c.larch.e0 - 40, c.larch.e0 + 80)
    for axis in (raw, flat):
        axis.set_xlabel("energy / eV")
        axis.legend(fontsize=8)
    figure.suptitle(c.name)
    path = folder / f"{c.name}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="folder for pictures of the files that differ")
    parser.add_argument("--draw-all", action="store_true", help="of every file")
    asked = parser.parse_args()
    spectra = [s for f in sorted(asked.folder.glob("*.xdi")) for s in read_spectra(f)]
    compared = []
    for s in spectra:
        if why := flaw(s):
            print(f"{s.id}: left out, {why}")
        else:
            compared.append(compare(s))

    print(
        f"\nGiven larch's E0, pre1, pre2, norm1, norm2, nnorm: {len(compared)} files; "
        f"* marks an E0 within {NEAR_EV:g} eV of xraydb's"
    )
    print(f"{'file':26s} {'E0 − table':>10s} {'edge step':>10s} {'RMS norm':>9s} {'RMS flat':>9s}")
    for c in compared:
        star = "*" if abs(c.off_table_ev) <= NEAR_EV else " "
        print(
            f"{c.name:26s} {c.off_table_ev:9.2f}{star} {100 * c.step_error(c.same):+9.4f}% {c.rms('norm'):9.6f} "
            f"{c.rms('flat'):9.6f}{c.differs_given and '  differs'}"
        )
    print("\nEverything found automatically on both sides")
    print(f"{'file':26s} {'ΔE0 / steps':>11s} {'edge step':>10s}   larch's MBACK − larch's own step")
    for c in compared:
        print(
            f"{c.name:26s} {c.e0_off_steps:+11.2f} {100 * c.step_error(c.auto):+9.3f}%   "
            f"{100 * (mback_step(c.spectrum, c.larch) / c.larch.edge_step - 1):+6.1f}%"
            f"{c.differs_found and '  differs'}"
        )
    differ = [c for c in compared if c.differs_given or c.differs_found]
    print(f"\n{len(differ)} of {len(compared)} files differ{':' if differ else ''}")
    for c in differ:
        print(f"{c.name:26s} given: {c.differs_given or 'alike'}; found: {c.differs_found or 'alike'}")
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        for c in compared if asked.draw_all else differ:
            print(f"wrote {picture(c, asked.out)}")

    print(f"\nSpeed per spectrum, medians, batch of {BATCH}")
    times = np.array([speed(c.spectrum) for c in compared])
    for label, (larch, one, many) in (("all automatic", times[:, :3].T), ("all given", times[:, 3:].T)):
        print(
            f"{label:14s} larch {1e3 * np.median(larch):.2f} ms, ours {1e3 * np.median(one):.3f} ms alone, "
            f"{1e3 * np.median(many):.4f} ms in a batch: {np.median(larch / one):.0f} and "
            f"{np.median(larch / many):.0f} times as fast "
            f"(least {np.min(larch / one):.0f} and {np.min(larch / many):.0f})"
        )


if __name__ == "__main__":
    main()
