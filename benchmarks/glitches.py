"""How many glitches are found, and how many good points touched, in measured and computed spectra.

    python benchmarks/glitches.py [DATA] [--gross] [--noise 0.003] [--threshold 3.5] [--narrowest 1.5]

DATA holds exp/xdi, exp/operando_linio2 and feff; without it the simulated beamline's frames alone are looked at.

First, and alone with --gross, the gross glitches of spectra as measured: how many are found of one glitch at each
point in turn, up and down; points touched without any, by the fine search too; processor time per frame.

Then the fine search. 5 % of the points are replaced by glitches of 5 to 50 σ, either way, wherever they fall. σ is
each spectrum's own noise with --noise (in edge steps) added to it; without added noise many of these files have σ of
1e-4 and less, where what is called good has steps of its own that are as large. Printed: found, those of 5 to 10 σ,
those within 15 eV of E0, good points touched beside them, points touched without any glitches, time per spectrum, and
what could be found at best, as interpolation leaves something of good points too. Then what glitches do to the
estimates of the shipped models, repaired and as they are: how many of the means stay within the 90 % interval that
the spectrum has without glitches, and by how many halves of it 95 % of them move at most.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from xas_agent.adapters.formats import flaw, read_spectra
from xas_agent.agent.spectra import AlignmentSettings, Batch, align
from xas_agent.agent.spectra.glitches import Glitches, GlitchSettings, find_glitches
from xas_agent.agent.spectra.gross_glitches import find_gross_glitches, may_have_gross_glitches
from xas_agent.agent.spectra.noise import estimate_noise
from xas_agent.agent.spectra.normalisation import normalise
from xas_agent.agent.types import Array, Estimate
from xas_agent.models import card
from xas_agent.models.runtime import Model, configure_torch, default_threads
from xas_agent.sim_beamline.beamline import BeamlineSettings, SimBeamline

FRACTION = 0.05
SIZES = (5.0, 50.0)  # in σ
GROSS = (0.05, 0.1, 0.2, 0.5)  # in edge steps
COPIES = 40
ESTIMATED = 20  # copies of each standard of which estimates are made
MODELS = {"Cu": "cu-k", "Ni": "ni-k", "Co": "co-k"}
NEAR_EV = 15.0
Mask = NDArray[np.bool_]


class Tally:
    """Counts over many spectra."""

    def __init__(self) -> None:
        self.counts = np.zeros(10)

    def add(self, found: Glitches, clean: Glitches, at: Mask, size: Array, near: Mask) -> None:
        small, close = at & (size < 10), at & near
        pairs = [(found.found & k, k) for k in (at, small, close, ~at)]
        self.counts += [n for hit, of in pairs for n in (hit.sum(), of.sum())] + [clean.found.sum(), clean.found.size]

    def line(self, name: str, seconds: float = np.nan) -> str:
        every, small, close, touched, clean = (100 * h / n if n else np.nan for h, n in self.counts.reshape(-1, 2))
        return (
            f"{name:34s} found {every:5.1f} %  5–10 σ {small:5.1f} %  near E0 {close:5.1f} %  "
            f"touched {touched:5.2f} %  without glitches {clean:5.2f} %  {1e3 * seconds:6.2f} ms"
        )


def spoiled(mu: Array, sigma: Array, rng: np.random.Generator) -> tuple[Array, Mask, Array]:
    at, size = rng.random(mu.shape) < FRACTION, rng.uniform(*SIZES, mu.shape)
    return np.where(at, mu + rng.choice([-1, 1], mu.shape) * size * sigma, mu), at, size


def timed(*args, **options) -> tuple[Glitches, float]:
    find_glitches(*args, **options)
    began = time.perf_counter()
    found = find_glitches(*args, **options)
    return found, (time.perf_counter() - began) / len(found.mu)


def told_at_best(energy: Array, mu: Array, sigma: float, threshold: float) -> float:
    """The share of glitches that stand off by more than ``threshold`` of what interpolation leaves on spectra (N, M)
    without any: RMS over 15 points, of the best polynomial through four neighbours on either side.

    Who finds more takes good points for glitches, or knows more of the spectrum than its points.
    """
    points = mu.shape[1]
    index = np.clip(np.arange(points)[:, None] + np.delete(np.arange(-4, 5), 4), 0, points - 1)
    x = (energy[index] - energy[:, None]) / np.ptp(energy[index], axis=1, keepdims=True)
    left = np.full(mu.shape, np.inf)
    for order in range(6):
        w = np.linalg.pinv(x[..., None] ** np.arange(order + 1))[:, 0]  # value at the point itself
        off = (mu - (w * mu[:, index]).sum(-1)) / np.sqrt(1 + (w * w).sum(-1))
        left = np.minimum(left, np.sqrt(uniform_filter1d(off**2, 15, axis=1)))
    least, most = SIZES
    return float(np.clip((most - np.maximum(threshold * left / sigma, least)) / (most - least), 0, 1).mean())


def gross(label: str, spectra: dict[str, tuple[Array, Array]]) -> None:
    """Print what becomes of gross glitches in spectra: by name energies (M,) and μ as measured (N, M)."""
    points = sum(mu.size for _, mu in spectra.values())
    normal = {name: normalise(energy, mu) for name, (energy, mu) in spectra.items()}
    e0 = {name: float(np.median(known.e0)) for name, known in normal.items()}
    for size in GROSS:
        found = {}
        for name, (energy, mu) in spectra.items():
            at = np.arange(len(energy))
            row, bad = at % len(mu), mu[at % len(mu)]
            bad[at, at] += size * normal[name].edge_step[row] * (-1.0) ** at
            repaired = find_gross_glitches(energy, bad, e0[name])
            found[name] = np.zeros(len(at), bool) if repaired is None else repaired.found[at, at]
        every = 100 * np.concatenate([*found.values()]).mean()
        share = {name: 100 * f.mean() for name, f in found.items()}
        least = min(share, key=lambda name: share[name])
        spans = np.ptp(spectra[least][1][0]) / normal[least].edge_step[0]
        print(
            f"{label}, a point off by {100 * size:g} % of the edge step: {every:.1f} % found, by file "
            f"{np.median([*share.values()]):.1f} % (median), {share[least]:.1f} % (least: {least}, whose μ spans "
            f"{spans:.1f} edge steps)"
        )
    clean = (find_gross_glitches(energy, mu, e0[name]) for name, (energy, mu) in spectra.items())
    touched = sum(int(c.count.sum()) for c in clean if c is not None)
    fine = sum(find_glitches(e, mu, e0[k], GlitchSettings()).count.sum() for k, (e, mu) in spectra.items())
    print(f"{label}, without any: {touched} of {points} points touched, by the fine search {fine}")
    took = [milliseconds(lambda e=e, mu=mu: may_have_gross_glitches(e[None], mu[:1])) for e, mu in spectra.values()]
    print(f"{label}, the look: {min(took):.2f}…{max(took):.2f} ms a frame")


def milliseconds(call: Callable[[], object]) -> float:
    """Processor time of one call: the median, after a warm-up."""
    took = []
    for _ in range(12):
        began = time.process_time()
        call()
        took.append(1e3 * (time.process_time() - began))
    return float(np.median(took[1:]))


def cost(energy: Array, mu: Array) -> None:
    """Print what the fine search costs where frames (N, M) share their energies (M,), and where they do not."""
    e0, how = float(np.median(normalise(energy, mu).e0)), GlitchSettings()
    axes = energy + 1e-3 * np.arange(len(mu))[:, None]
    shared, alone, own = (
        milliseconds(lambda e=e, y=y: find_glitches(e, y, e0, how)) / len(y)
        for e, y in ((energy, mu), (energy, mu[:1]), (axes, mu))
    )
    print(
        f"fine search of frames of {len(energy)} points: {shared:.1f} ms a frame of {len(mu)}, {alone:.1f} ms alone, "
        f"{own:.1f} ms where each has energies of its own"
    )


def standards(folder: Path, noise: float, how: GlitchSettings) -> None:
    total, best = Tally(), []
    for path in sorted(folder.glob("*.xdi")):
        for s in read_spectra(path):
            if flaw(s):
                continue
            rng = np.random.default_rng(0)
            known = normalise(s.energy, s.mu)
            e0, relative = float(known.e0[0]), s.energy - known.e0[0]
            sigma = np.hypot(estimate_noise(relative[None], known.flat)[0], noise)
            mu = known.flat + noise * rng.normal(size=(COPIES, len(s.energy)))
            bad, at, size = spoiled(mu, sigma, rng)
            found, seconds = timed(s.energy, bad, e0, how)
            clean = find_glitches(s.energy, mu, e0, how)
            one = Tally()
            for tally in (one, total):
                tally.add(found, clean, at, size, np.broadcast_to(np.abs(relative) < NEAR_EV, at.shape))
            best.append((told_at_best(s.energy, mu, sigma, how.threshold), len(s.energy)))
            print(f"{one.line(f'{path.stem} σ {sigma:.0e}', seconds)}  at best {100 * best[-1][0]:.1f} %")
    share, points = np.transpose(best)
    print(f"{total.line('all standards')}  at best {100 * np.average(share, weights=points):.1f} %")


def operando(folder: Path, noise: float, how: GlitchSettings) -> None:
    with np.load(folder / "spectra.npz") as z:
        energy, mu = z["energy"].astype(float), z["norm"].astype(float)
    rng = np.random.default_rng(0)
    e0 = float(np.median(normalise(energy, mu).e0))
    sigma = np.hypot(estimate_noise((energy - e0)[None], mu), noise)[:, None]
    mu = mu + noise * rng.normal(size=mu.shape)
    bad, at, size = spoiled(mu, sigma, rng)
    near, later = np.abs(energy - e0) < NEAR_EV, slice(how.earlier_frames, None)
    for name, earlier in (("neighbours in energy", None), ("and earlier frames", mu[:0])):
        found, seconds = timed(energy, bad, e0, how, earlier=earlier)
        clean = find_glitches(energy, mu, e0, how, earlier=earlier)
        tally = Tally()
        cut = [Glitches(g.found[later], g.size, g.sigma, g.mu, g.too_many) for g in (found, clean)]
        tally.add(cut[0], cut[1], at[later], size[later], np.broadcast_to(near, at[later].shape))
        print(tally.line(f"operando, {name}", seconds))


def simulated(frames: int = 40) -> tuple[Array, Array]:
    """Energies (M,) eV and μ (N, M) of the simulated beamline's Co K edge."""
    events: list[dict] = []
    SimBeamline(
        BeamlineSettings(frames=frames, frame_period_s=0), [lambda n, d: events.append(d) if n == "event" else None]
    ).run()
    data = [d["data"] for d in events if "It" in d["data"]]
    return np.asarray(data[0]["energy"]), np.stack([np.log(d["I0"] / d["It"]) for d in data])


def measured(folder: Path) -> Iterator[tuple[str, str, Array, Array]]:
    """Name, element, energies (M,) and μ (N, M) of what the shipped models know."""
    for path in sorted((folder / "xdi").glob("*.xdi")):
        for s in read_spectra(path):
            if not flaw(s) and s.element in MODELS:
                yield path.stem, s.element, s.energy, np.repeat(s.mu[None], ESTIMATED, axis=0)
    with np.load(folder / "operando_linio2" / "spectra.npz") as z:
        yield "operando", "Ni", z["energy"].astype(float), z["norm"].astype(float)


def said(model: Model, energy: Array, mu: Array, how: GlitchSettings | None) -> list[Estimate | None]:
    """Estimates of spectra, None of one that is refused."""
    found = align(Batch(energy, mu), model.grid, model.edge, AlignmentSettings(glitches=how, gross_glitches=False))
    given = model.estimate(found.mu)
    return [None if why else one for why, one in zip(found.refused, given, strict=True)]


def moved(clean: list[Estimate | None], other: list[Estimate | None]) -> dict[str, list[float]]:
    """By descriptor, how far each spectrum's mean moved, in halves of the interval that it has without glitches: the
    wider half, as one is cut off where nothing can be. Infinite if only ``other`` is refused."""
    found: dict[str, list[float]] = {}
    for before, after in zip(clean, other, strict=True):
        for name, d in before.descriptors.items() if before else ():
            by = abs(after.descriptors[name].mean - d.mean) if after else np.inf
            found.setdefault(name, []).append(by / max(d.hi - d.mean, d.mean - d.lo))
    return found


def estimates(spectra: Iterable[tuple[str, str, Array, Array]], noise: float, how: GlitchSettings) -> None:
    """What glitches do to estimates, with and without repair; and what repair does where there are none."""
    models = {element: Model(card.find(name)) for element, name in MODELS.items()}
    total: dict[str, dict[str, list[float]]] = {}
    for label, element, energy, mu in spectra:
        rng, model = np.random.default_rng(0), models[element]
        known = normalise(energy, mu)
        sigma = np.hypot(estimate_noise((energy - known.e0[0])[None], known.flat), noise)[:, None]
        mu = known.flat + noise * rng.normal(size=mu.shape)
        bad, _, _ = spoiled(mu, sigma, rng)
        clean = said(model, energy, mu, None)
        others = {
            "repaired": said(model, energy, bad, how),
            "as they are": said(model, energy, bad, None),
            "repaired without any": said(model, energy, mu, how),
        }
        by_kind = {kind: moved(clean, other) for kind, other in others.items()}
        line = (f"{kind} {shares(np.concatenate([*of.values(), []]))}" for kind, of in by_kind.items())
        print(f"{label:24s} means within the interval, glitches {', '.join(line)}")
        for kind, of in by_kind.items():
            for name, each in of.items():
                total.setdefault(name, {}).setdefault(kind, []).extend(each)
    for name, of in total.items():
        line = (f"{kind} {shares(np.array(each))}" for kind, each in of.items())
        print(f"all, {name:19s} means within the interval, glitches {', '.join(line)}")


def shares(moved: Array) -> str:
    """How many are within the interval, and 95 % quantile of how far they moved in halves of it."""
    return f"{100 * (moved <= 1).mean():.1f} % ({np.quantile(moved, 0.95):.3f})" if moved.size else "–"


def theory(folder: Path, how: GlitchSettings) -> None:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as z:
            energies, mus = z["energy"].astype(float)[:100], z["mu"].astype(float)[:100]
        touched = [
            find_glitches(e, mu[None], float(normalise(e, mu).e0[0]), how).found.mean()
            for e, mu in zip(energies, mus, strict=True)
        ]
        print(f"{path.stem}, FEFF without noise: {100 * np.mean(touched):.2f} % touched in {len(touched)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--gross", action="store_true", help="the gross glitches alone")
    parser.add_argument("--noise", type=float, default=0.003, help="added, in edge steps")
    parser.add_argument("--threshold", type=float, default=GlitchSettings().threshold)
    parser.add_argument("--narrowest", type=float, default=GlitchSettings().narrowest_ev, help="narrowest_ev")
    asked = parser.parse_args()
    configure_torch(default_threads())
    if asked.data is not None and not (asked.data / "exp" / "xdi").is_dir():
        parser.error(f"{asked.data}: found no exp/xdi in it")
    how = GlitchSettings(threshold=asked.threshold, narrowest_ev=asked.narrowest)
    energy, mu = simulated()
    gross("simulated", {"simulated": (energy, mu)})
    cost(energy, mu)
    if asked.data is not None:
        read = [s for path in sorted((asked.data / "exp" / "xdi").glob("*.xdi")) for s in read_spectra(path)]
        good = {Path(s.source).stem: (s.energy, s.mu[None]) for s in read if not flaw(s)}
        gross(f"{len(good)} standards", good)
        with np.load(asked.data / "exp" / "operando_linio2" / "spectra.npz") as z:
            gross("cathode", {"cathode": (z["energy"].astype(float), z["norm"].astype(float))})
    if asked.gross:
        return
    print(f"{asked.noise:g} edge steps of noise added, threshold {how.threshold:g} σ")
    if asked.data is not None:
        standards(asked.data / "exp" / "xdi", asked.noise, how)
        operando(asked.data / "exp" / "operando_linio2", asked.noise, how)
        theory(asked.data / "feff", how)
        estimates(measured(asked.data / "exp"), asked.noise, how)
    estimates([("simulated", "Co", energy, mu)], asked.noise, how)


if __name__ == "__main__":
    main()
