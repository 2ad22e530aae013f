"""Compare the normalisation with xraylarch's ``pre_edge``: edge steps, E0, normalised μ, speed.

    python benchmarks/against_larch.py FOLDER [--out PICTURES [--draw-all]]

FOLDER holds XDI files. The package does not depend on xraylarch, which has to be installed separately (pip install
xraylarch). The benchmark prints three tables: results with the same E0, pre1, pre2, norm1, norm2 and nnorm; results
with automatic settings on both sides; speed, in processor time (of one core with OMP_NUM_THREADS=1). A list of the
files in which the differences exceed the tolerances follows. With --out, it also draws a picture of each of them.
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
    sys.exit(f"{error}: this comparison needs xraylarch, which the package does not install: pip install xraylarch")

NEAR_TABLE_EV = 5.0  # a star marks files with Larch's E0 this close to the tabulated edge
# Tolerances with the same settings: relative edge step, RMS of μ.
SAME_STEP_TOLERANCE, SAME_RMS_TOLERANCE = 0.01, 0.003
# Tolerances with automatic settings: relative edge step, E0 in energy steps of the scan.
AUTO_STEP_TOLERANCE, AUTO_E0_TOLERANCE_STEPS = 0.03, 2.0
BATCH_SPECTRA = 256


@dataclass
class Comparison:
    """A spectrum normalised by Larch and by this package: ``same`` with Larch's settings, ``auto`` without."""

    spectrum: FileSpectrum
    larch: "Group"
    same: Normalised
    auto: Normalised

    @property
    def name(self) -> str:
        return Path(self.spectrum.source).stem

    @property
    def e0_offset_from_table_ev(self) -> float:
        return self.larch.e0 - edge_ev(self.spectrum.element or "", self.spectrum.edge or "K")

    def step_error(self, normalised: Normalised) -> float:
        return float(normalised.edge_step[0] / self.larch.edge_step - 1)

    def rms(self, curve: str) -> float:
        """RMS difference of ``norm`` or ``flat`` between -20 and 80 eV from E0, with the same settings."""
        e = self.spectrum.energy - self.larch.e0
        inside = (e >= -20) & (e <= 80)
        return float(np.sqrt(np.mean((getattr(self.same, curve)[0] - getattr(self.larch, curve))[inside] ** 2)))

    @property
    def e0_difference_steps(self) -> float:
        e = self.spectrum.energy
        near = np.abs(e - self.larch.e0) < 10
        return float((self.auto.e0[0] - self.larch.e0) / np.median(np.diff(e[near])))

    @property
    def same_settings_difference(self) -> str:
        """Quantities beyond the tolerances with the same settings, as text; empty if there are none."""
        rms = max(self.rms("norm"), self.rms("flat"))
        error = self.step_error(self.same)
        differences: list[str] = []
        if abs(error) > SAME_STEP_TOLERANCE:
            differences.append(f"edge step by {100 * error:+.2f} %")
        if rms > SAME_RMS_TOLERANCE:
            differences.append(f"μ by {rms:.4f} RMS")
        return ", ".join(differences)

    @property
    def automatic_difference(self) -> str:
        """Quantities beyond the tolerances with automatic settings, as text, with the windows that differ."""
        error = self.step_error(self.auto)
        differences: list[str] = []
        if abs(error) > AUTO_STEP_TOLERANCE:
            differences.append(f"edge step by {100 * error:+.2f} %, windows {self._differing_windows}")
        if abs(self.e0_difference_steps) > AUTO_E0_TOLERANCE_STEPS:
            differences.append(f"E0 by {self.e0_difference_steps:+.1f} steps")
        return ", ".join(differences)

    @property
    def _differing_windows(self) -> str:
        theirs, ours = self.larch.pre_edge_details, self.auto.windows
        assert ours is not None
        names = ("pre1", "pre2", "norm1", "norm2", "nnorm")
        pairs = ((name, getattr(theirs, name), getattr(ours, name)[0]) for name in names)
        return ", ".join(f"{n} {a:g} ↔ {b:g}" for n, a, b in pairs if abs(a - b) > 0.5) or "equal"


def normalise_with_larch(spectrum: FileSpectrum, **options: float) -> "Group":
    group = Group(energy=spectrum.energy.copy(), mu=spectrum.mu.copy())
    pre_edge(group, **options)
    return group


def larch_settings(group: "Group") -> NormalisationSettings:
    used = group.pre_edge_details
    names = ("pre1", "pre2", "norm1", "norm2", "nnorm", "nvict")
    return NormalisationSettings(e0=group.e0, **{name: getattr(used, name) for name in names})


def compare(spectrum: FileSpectrum) -> Comparison:
    group = normalise_with_larch(spectrum)
    same = normalise(spectrum.energy, spectrum.mu, larch_settings(group))
    return Comparison(spectrum, group, same, normalise(spectrum.energy, spectrum.mu))


def mback_step(spectrum: FileSpectrum, group: "Group") -> float:
    """Return the edge step of Larch's MBACK against tabulated f'', which needs no post-edge polynomial."""
    z = xraydb.atomic_number(spectrum.element)
    copy = Group(energy=spectrum.energy.copy(), mu=spectrum.mu.copy())
    mback(copy, z=z, edge=spectrum.edge or "K", e0=group.e0, order=2, norm1=100)
    return float(copy.edge_step)


def time_call(call: Callable[[], object], seconds: float) -> float:
    """Return the median processor time of one call in seconds, after a warm-up."""
    durations: list[float] = []
    call()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(durations) < 5:
        began = time.process_time()
        call()
        durations.append(time.process_time() - began)
    return float(np.median(durations))


def measure_speed(spectrum: FileSpectrum, seconds: float = 0.4) -> tuple[float, ...]:
    """Return seconds per spectrum of Larch, of this package alone and in a batch.

    The first three values are with automatic settings, the last three with Larch's settings given to both.
    """
    energy, mu = spectrum.energy, spectrum.mu
    batch = mu * np.linspace(0.9, 1.1, BATCH_SPECTRA)[:, None]
    durations: list[float] = []
    for given in (None, larch_settings(normalise_with_larch(spectrum))):
        options = {} if given is None else given.model_dump(exclude={"mode", "e0_smoothing_ev", "flatten"})
        settings = given or NormalisationSettings()
        durations += [
            time_call(lambda options=options: normalise_with_larch(spectrum, **options), seconds),
            time_call(lambda settings=settings: normalise(energy, mu, settings), seconds),
            time_call(lambda settings=settings: normalise(energy, batch, settings), seconds) / BATCH_SPECTRA,
        ]
    return tuple(durations)


def draw(c: Comparison, folder: Path) -> Path:
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
    parser.add_argument("--draw-all", action="store_true", help="draw every file, not only those that differ")
    options = parser.parse_args()
    spectra = [s for f in sorted(options.folder.glob("*.xdi")) for s in read_spectra(f)]
    comparisons: list[Comparison] = []
    for s in spectra:
        if reason := flaw(s):
            print(f"{s.id}: left out, {reason}")
        else:
            comparisons.append(compare(s))

    print(
        f"\nWith Larch's E0, pre1, pre2, norm1, norm2, nnorm: {len(comparisons)} files; "
        f"* marks an E0 within {NEAR_TABLE_EV:g} eV of xraydb's"
    )
    print(f"{'file':26s} {'E0 − table':>10s} {'edge step':>10s} {'RMS norm':>9s} {'RMS flat':>9s}")
    for c in comparisons:
        star = "*" if abs(c.e0_offset_from_table_ev) <= NEAR_TABLE_EV else " "
        print(
            f"{c.name:26s} {c.e0_offset_from_table_ev:9.2f}{star} {100 * c.step_error(c.same):+9.4f}% "
            f"{c.rms('norm'):9.6f} {c.rms('flat'):9.6f}{c.same_settings_difference and '  differs'}"
        )
    print("\nWith automatic settings on both sides")
    print(f"{'file':26s} {'ΔE0 / steps':>11s} {'edge step':>10s}   Larch's MBACK − Larch's step")
    for c in comparisons:
        print(
            f"{c.name:26s} {c.e0_difference_steps:+11.2f} {100 * c.step_error(c.auto):+9.3f}%   "
            f"{100 * (mback_step(c.spectrum, c.larch) / c.larch.edge_step - 1):+6.1f}%"
            f"{c.automatic_difference and '  differs'}"
        )
    different = [c for c in comparisons if c.same_settings_difference or c.automatic_difference]
    print(f"\n{len(different)} of {len(comparisons)} files differ{':' if different else ''}")
    for c in different:
        same, automatic = c.same_settings_difference or "equal", c.automatic_difference or "equal"
        print(f"{c.name:26s} same settings: {same}; automatic: {automatic}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for c in comparisons if options.draw_all else different:
            print(f"wrote {draw(c, options.out)}")

    print(f"\nSpeed per spectrum, medians, batch of {BATCH_SPECTRA}")
    times = np.array([measure_speed(c.spectrum) for c in comparisons])
    for label, (larch, alone, batched) in (("automatic", times[:, :3].T), ("same settings", times[:, 3:].T)):
        print(
            f"{label:14s} Larch {1e3 * np.median(larch):.2f} ms, xas-agent {1e3 * np.median(alone):.3f} ms alone, "
            f"{1e3 * np.median(batched):.4f} ms in a batch: {np.median(larch / alone):.0f} and "
            f"{np.median(larch / batched):.0f} times as fast "
            f"(at least {np.min(larch / alone):.0f} and {np.min(larch / batched):.0f})"
        )


if __name__ == "__main__":
    main()
